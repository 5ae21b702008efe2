"""What a build asks of the command that started it, over a real engine (SECURITY rows 38, 41)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.build.workshop import base_files, make_tar
from tests.conftest import Daemon

from trivet.base.error import InvalidArgument
from trivet.build.secret import Offered
from trivet.client.schema_build import BuildRequest

pytestmark = pytest.mark.needs("root")

TOKEN = "t0ken-9f1c2ab77e"
SHOW = "FROM build-base\nRUN --mount=type=secret,id=t,target=/s --mount=type=secret,id=t,env=T "


@pytest.fixture(scope="module")
def engine(daemon: Daemon) -> Daemon:
    """An engine that has the image build-base."""
    daemon.ok("import", "-", "build-base", input=make_tar(base_files()))
    return daemon


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """An empty directory to build."""
    path = tmp_path / "context"
    path.mkdir()
    return path


def dockerfile(context: Path, text: str) -> Path:
    """Write a context's Dockerfile."""
    (context / "Dockerfile").write_text(text)
    return context


def traces(directory: Path, word: str) -> list[str]:
    """Find the files that hold a word, also packed with gzip."""
    found = subprocess.run(["zgrep", "-rlFa", word, str(directory)], capture_output=True, text=True, check=False)
    whole = subprocess.run(["grep", "-rlFa", word, str(directory)], capture_output=True, text=True, check=False)
    return [*found.stdout.split(), *whole.stdout.split()]


def layers_hold(engine: Daemon, name: str, word: str) -> bool:
    """Tell whether a word is in an image's layers, unpacked."""
    done = engine.trivet("build", "-o", "-", "-", input=f"FROM {name}".encode())
    return word.encode() in done.stdout


def shown_in_memory(engine: Daemon) -> list[Path]:
    """List what the engine's builds have on show; other engines' are their own business."""
    return list(Offered(engine.run).directory.glob("*"))


def test_secret_is_shown_and_forgotten(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """A secret is a file or a variable while the step runs, and nowhere afterwards: not on disk, not in the image."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    dockerfile(
        context, f'{SHOW}busybox sha256sum /s; stat -c "%a %u" /s; test "$T" = "$(cat /s)" && echo same; ls /s\n'
    )
    done = engine.trivet("build", "--secret", f"id=t,src={file}", "-t", "secretive", context)
    assert done.returncode == 0, done.stderr
    assert b"400 0" in done.stderr
    assert b"same" in done.stderr
    assert traces(engine.root, TOKEN) == []
    assert shown_in_memory(engine) == []
    assert not layers_hold(engine, "secretive", TOKEN)
    assert TOKEN not in engine.ok("image", "inspect", "secretive")
    changed = engine.trivet("build", "--secret", "id=t,env=OTHER", context, env={"OTHER": "else"})
    assert b"CACHED" in changed.stderr


def test_secret_is_missing(engine: Daemon, context: Path) -> None:
    """A secret that isn't offered isn't there; one that is required, or can't be read, ends the build kindly."""
    dockerfile(context, "FROM build-base\nRUN --mount=type=secret,id=none ls /run/secrets || echo nothing\n")
    assert b"nothing" in engine.trivet("build", context).stderr
    dockerfile(context, "FROM build-base\nRUN --mount=type=secret,id=none,required true\n")
    done = engine.trivet("build", context)
    assert b"Dockerfile:2: secret none is required" in done.stderr
    assert b"--secret id=none,src=FILE" in done.stderr
    done = engine.trivet("build", "--secret", "id=x,src=/nonexistent", context)
    assert b"there is no file /nonexistent" in done.stderr


def test_secret_when_the_engine_is_killed(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """An engine that is killed while a step shows a secret leaves it on no disk, and the next one removes it."""
    (tmp_path / "token").write_text(TOKEN)
    dockerfile(context, f"{SHOW}echo > /begun; sleep 60\n")
    command = engine.begin("build", "--secret", f"id=t,src={tmp_path}/token", str(context))
    deadline = time.monotonic() + 20
    while not list(engine.root.glob("snapshot/overlay/instance/build-*/upper/begun")) and time.monotonic() < deadline:
        time.sleep(0.05)
    engine.kill()
    command.wait(20)
    assert traces(engine.root, TOKEN) == []
    engine.start()
    assert shown_in_memory(engine) == []


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """An SSH agent with one key."""
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as process:
        while not socket.exists():
            time.sleep(0.02)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
        subprocess.run(
            ["ssh-add", "-q", tmp_path / "key"], env={**os.environ, "SSH_AUTH_SOCK": str(socket)}, check=True
        )
        yield socket
        process.send_signal(signal.SIGTERM)


ASK = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, getenv("SSH_AUTH_SOCK"));
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(s, (void *)&a, sizeof a)) { perror("connect"); return 1; }
    if (write(s, "\0\0\0\1\13", 5) != 5) return 2;   /* SSH_AGENTC_REQUEST_IDENTITIES */
    unsigned char b[4096];
    int n = read(s, b, sizeof b);
    printf("keys %d type %d\n", n > 8 ? b[8] : -1, n > 4 ? b[4] : -1);
}
"""


@pytest.mark.needs("ssh-agent", "musl-gcc")
def test_agent(engine: Daemon, context: Path, agent: Path, tmp_path: Path) -> None:
    """A step talks to the caller's SSH agent, as a user who isn't root too, and several times; it leaves no trace."""
    words = (tmp_path / "key.pub").read_text().split()[1]
    (tmp_path / "ask.c").write_text(ASK)
    subprocess.run(["musl-gcc", "-static", "-o", context / "ask", tmp_path / "ask.c"], check=True)
    shown = "--mount=type=ssh,uid=1000"
    lines = [
        *("FROM build-base", "COPY ask /bin/", "USER 1000"),
        f"RUN {shown} ask; ask; stat -c %a-%u $SSH_AUTH_SOCK",
    ]
    done = engine.trivet("build", "--ssh", f"default={agent}", dockerfile(context, "\n".join(lines)))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"keys 1 type 12") == 2
    assert b"600-1000" in done.stderr
    assert traces(engine.root, words) == []
    dockerfile(context, "FROM build-base\nRUN --mount=type=ssh,required true\n")
    assert b"ssh agent default is required" in engine.trivet("build", context).stderr
    assert b"neither an agent's socket nor" in engine.trivet("build", "--ssh", "default=/dev/null", context).stderr


@pytest.mark.needs("ssh-agent", "musl-gcc")
def test_key_files(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """--ssh takes key files as well: an agent holds them as long as the command, and none with a passphrase."""
    for name, phrase in (("one", ""), ("two", ""), ("locked", "secret phrase")):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", tmp_path / name], check=True)
    (tmp_path / "ask.c").write_text(ASK)
    subprocess.run(["musl-gcc", "-static", "-o", context / "ask", tmp_path / "ask.c"], check=True)
    dockerfile(context, "FROM build-base\nCOPY ask /bin/\nRUN --mount=type=ssh,id=git ask\n")
    keys = f"git={tmp_path}/one,{tmp_path}/two"
    done = engine.trivet("build", "--ssh", keys, context)
    assert done.returncode == 0, done.stderr
    assert b"keys 2 type 12" in done.stderr
    assert not list(Path(tempfile.gettempdir()).glob("trivet-ssh-*/agent"))
    for bad, words in ((f"{tmp_path}/locked", b"passphrase"), (f"{tmp_path}/none", b"no such file")):
        assert words in engine.trivet("build", "--ssh", f"git={bad}", context).stderr


def test_named_directory(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """--build-context sends a directory, without what its own .dockerignore names, only when it is used."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("kept", "left"):
        (other / name).write_text(name)
    (other / ".dockerignore").write_text("left\n")
    dockerfile(context, "FROM scratch\nCOPY --from=o / /\n")
    out = tmp_path / "out"
    engine.ok("build", "--build-context", f"o={other}", "-o", out, context)
    assert {path.name for path in out.iterdir()} == {"kept", ".dockerignore"}


def test_named_layout(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """--build-context takes an image out of an OCI layout on the caller's disk."""
    layout = tmp_path / "layout"
    engine.ok(
        "build", "-o", f"type=oci,dest={tmp_path}/a.tar", "-t", "laid-out", "-", input=b"FROM build-base\nENV A=b"
    )
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.extractall(layout)
    dockerfile(context, "FROM it\nRUN echo $A > /a\n")
    engine.ok("build", "--build-context", f"it=oci-layout://{layout}", "-o", f"type=tar,dest={tmp_path}/t.tar", context)
    with tarfile.open(tmp_path / "t.tar") as archive:
        member = archive.extractfile("a")
        assert member
        assert member.read() == b"b\n"


def test_outputs(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """--output gives files, a tar or an archive and keeps no image; two more flags tell what was made."""
    dockerfile(context, "FROM scratch\nCOPY Dockerfile /d/\n")
    engine.ok("build", "-o", f"{tmp_path}/files", "-t", "not-kept", context)
    assert (tmp_path / "files/d/Dockerfile").is_file()
    assert engine.trivet("image", "inspect", "not-kept").returncode
    done = engine.trivet("build", "--output", "type=docker,dest=-", "-t", "archived", context)
    assert done.stdout[257:262] == b"ustar"
    places: list[str | Path] = ["--metadata-file", tmp_path / "m", "--iidfile", tmp_path / "i"]
    engine.ok("build", *places, "-t", "kept", context)
    told = json.loads((tmp_path / "m").read_text())
    assert told["containerimage.config.digest"] == (tmp_path / "i").read_text()
    assert told["image.name"] == "kept:latest"
    assert told["containerimage.digest"].startswith("sha256:")
    done = engine.trivet("build", "-o", "/proc/nowhere", context)
    assert done.returncode
    assert b"/proc/nowhere" in done.stderr


def test_archives_as_directories(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """With tar=false an OCI archive is a layout, which a build can begin with; elsewhere the word is refused."""
    dockerfile(context, "FROM scratch\nCOPY Dockerfile /d/\n")
    layout = tmp_path / "layout"
    engine.ok("build", "-o", f"type=oci,dest={layout},tar=false", "-t", "spread", context)
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    dockerfile(context, "FROM spread\nCOPY --from=spread /d /e\n")
    engine.ok("build", "--build-context", f"spread=oci-layout://{layout}", "-o", tmp_path / "files", context)
    assert (tmp_path / "files/e/Dockerfile").is_file()
    for wish in (f"type=local,dest={layout},tar=false", "type=oci,tar=false"):
        assert b"tar=false is for type=oci" in engine.trivet("build", "-o", wish, context).stderr


def test_several_platforms(engine: Daemon, context: Path, tmp_path: Path) -> None:
    """--platform A,B makes one index with an image for each."""
    dockerfile(context, "FROM scratch\nARG TARGETARCH\nCOPY <<EOF /arch\n$TARGETARCH\nEOF\n")
    platforms = ["--platform", "linux/amd64", "--platform", "linux/arm64"]
    engine.ok("build", *platforms, "-o", tmp_path / "out", context)
    assert {path.name: (path / "arch").read_text() for path in (tmp_path / "out").iterdir()} == {
        "linux_amd64": "amd64\n",
        "linux_arm64": "arm64\n",
    }
    engine.ok("build", *platforms, "-t", "both", "--metadata-file", tmp_path / "m", context)
    assert "both" in engine.ok("image", "ls")


def test_grants_by_the_raw_api(engine: Daemon) -> None:
    """The API gives no more than the command: without `allow` no insecure step, and no session of somebody else."""
    text = b"FROM build-base\nRUN --security=insecure true\n"
    context = make_tar({"Dockerfile": text})
    with pytest.raises(InvalidArgument, match="--security=insecure is not granted"):
        list(engine.client.images.build(context, BuildRequest()))
    with pytest.raises(InvalidArgument, match="at least 16 characters"):
        engine.client.transport.request("POST", "/v1/build/session", {"key": "short"}, b"")
    wish = msgspec.structs.replace(BuildRequest(), secrets=["x"], session="0" * 32)
    text = b"FROM build-base\nRUN --mount=type=secret,id=x true\n"
    with pytest.raises(Exception, match="does not answer"):
        list(engine.client.images.build(make_tar({"Dockerfile": text}), wish))
