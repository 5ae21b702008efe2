"""`DOCKER_BUILDKIT=1 docker build`: the command with a client of BuildKit built in, unchanged, and clients that lie."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from grpclib.server import Stream
from tests.build.test_caller import ASK
from tests.build.test_caller import agent as agent
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import Link, ask, value
from tests.docker.session import Client, Talk, directory, session
from tests.docker.test_python import HTPASSWD, tar_of
from tests.image.conftest import debian_registry

from trivet.api.docker.buildkit.message import Kind, Packet, Stat

pytestmark = pytest.mark.needs("root", "docker")
Build = Callable[..., "subprocess.CompletedProcess[bytes]"]


def command() -> str:
    """Find a docker command that speaks to BuildKit by itself: since 23 a plug-in does."""
    for place in os.environ["PATH"].split(":"):
        path = Path(place, "docker")
        if path.exists():
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            if (found := re.search(r"version (\d+)", said)) and 19 <= int(found[1]) < 23:
                return str(path)
    pytest.skip("no docker command of the versions 19 to 22")


@pytest.fixture
def build(trivet: Tool, tmp_path: Path) -> Build:
    """`docker build` in a directory that has a Dockerfile."""
    docker = command()
    (tmp_path / "context").mkdir()

    def run(dockerfile: str | None, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        if dockerfile is not None:
            (tmp_path / "context/Dockerfile").write_text(f"FROM {IMAGE}\n{dockerfile}\n")
        line = [docker, "--host", trivet.address, "build", "--progress", "plain", *arguments]
        environment = {**trivet.env, "DOCKER_BUILDKIT": "1", **more.pop("env", {})}
        place = tmp_path / "context"
        return subprocess.run(line, capture_output=True, timeout=90, env=environment, cwd=place, check=False, **more)

    return run


def ok(done: subprocess.CompletedProcess[bytes]) -> str:
    """What it said while it built."""
    assert done.returncode == 0, done.stderr.decode()
    return done.stderr.decode()


def test_directory(build: Build, trivet: Tool, tmp_path: Path) -> None:
    """A directory is sent without what .dockerignore says, with modes, links and many files; progress is BuildKit's."""
    place = tmp_path / "context"
    (place / "many").mkdir()
    for number in range(200):
        (place / f"many/{number}").write_text(str(number) * number)
    (place / "large").write_bytes(os.urandom(3 << 20))
    (place / "run").write_text("#!/bin/sh\necho ran\n")
    (place / "run").chmod(0o755)
    (place / "link").symlink_to("many/7")
    (place / "left out").write_text("x")
    (place / ".dockerignore").write_text("# no\nleft*\nmany/1*\n!many/19\n")
    said = ok(
        build(
            "COPY . /c\nRUN /c/run && cat /c/link && echo && ls /c/many | wc -l && ls /c\nRUN echo bad >&2",
            "-t",
            "bk:1",
            ".",
        )
    )
    assert re.search(r"#\d+ \[2/3\] RUN /c/run", said)
    assert re.search(r"#\d+ [\d.]+ ran\n", said)
    assert re.search(r"#\d+ [\d.]+ 7777777", said)
    assert re.search(r"#\d+ [\d.]+ 90\n", said)
    assert "naming to bk:1 done" in said
    assert "left out" not in said
    assert "CACHED" in ok(build(None, "."))
    assert trivet.ok("run", "--rm", "--network", "none", "bk:1", "sha256sum", "/c/large").split()[0]
    trivet.ok("rmi", "bk:1")


def test_ways_to_say_where(build: Build, trivet: Tool, tmp_path: Path) -> None:
    """A tar or a Dockerfile on standard input, a Dockerfile elsewhere with its own ignore file, quiet, --iidfile."""
    other = tmp_path / "Other"
    other.write_text(f"FROM {IMAGE}\nCOPY . /c\nRUN ls /c\n")
    (tmp_path / "Other.dockerignore").write_text("a\n")
    for name in "ab":
        (tmp_path / "context" / name).write_text(name)
    said = ok(build(None, "-f", str(other), "."))
    assert re.search(r"#\d+ [\d.]+ b\n", said)
    assert not re.search(r"#\d+ [\d.]+ a\n", said)
    done = build(None, "-q", "-", input=tar_of("Dockerfile", f"FROM {IMAGE}\nLABEL by=tar".encode()))
    assert re.fullmatch(rb"sha256:[0-9a-f]{64}\n", done.stdout), done.stderr
    key = tmp_path / "id"
    ok(build(None, "--iidfile", str(key), "-", input=f"FROM {IMAGE}\nLABEL by=input".encode()))
    assert trivet.ok("inspect", "-f", "{{.Config.Labels.by}}", key.read_text()) == "input"
    ok(build(None, "-f", "-", ".", input=f"FROM {IMAGE}\nCOPY b /\n".encode()))
    assert b"cannot be had: nothing" not in build(None, "-f", "nothing", ".").stderr
    assert b"nothing is not in the directory" in build(None, "-f", "nothing", ".").stderr


@pytest.mark.needs("ssh-agent", "musl-gcc")
def test_secret_and_agent(build: Build, agent: Path, tmp_path: Path) -> None:
    """Secrets and agents are asked of the client when a step wants them; what it hasn't, a step can do without."""
    (tmp_path / "word").write_text("hush")
    key = ["--secret", f"id=word,src={tmp_path / 'word'}"]
    step = "RUN --mount=type=secret,id=word --mount=type=secret,id=none cat /run/secrets/word | wc -c; ls /run/secrets"
    assert re.search(r"#\d+ [\d.]+ 4\n", ok(build(step, "--no-cache", *key, ".")))
    done = build("RUN --mount=type=secret,id=none,required true", *key, ".")
    assert b"Dockerfile:2: secret none is required" in done.stderr
    (tmp_path / "ask.c").write_text(ASK)
    subprocess.run(["musl-gcc", "-static", "-o", tmp_path / "context/ask", tmp_path / "ask.c"], check=True)
    environment = {"SSH_AUTH_SOCK": str(agent)}
    steps = "COPY ask /bin/\nRUN --mount=type=ssh ask; ask"
    assert ok(build(steps, "--no-cache", "--ssh", "default", ".", env=environment)).count("keys 1 type 12") == 2
    assert b"ssh agent default is required" in build("RUN --mount=type=ssh,required true", ".").stderr


def test_outputs(build: Build, tmp_path: Path) -> None:
    """Files go into the client's directory, or to it as a tar; what an exporter isn't is refused."""
    out = tmp_path / "out"
    ok(build("FROM scratch\nCOPY --from=0 /etc /e\nCOPY --from=0 /bin/sh /e/sh", "-o", str(out), "."))
    assert (out / "e/passwd").read_text().startswith("root:")
    assert os.access(out / "e/sh", os.X_OK)
    done = build(None, "-o", "-", ".")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        assert "e/passwd" in [name.removeprefix("./") for name in archive.getnames()]
    assert b"multiple outputs not supported" in build(None, "-o", "type=local,dest=a", "-o", "type=image", ".").stderr
    assert b"could not be found" in build(None, "-o", "type=nonsense", ".").stderr


def test_failure(build: Build) -> None:
    """A step that fails, and a Dockerfile that is wrong, are told with their lines."""
    done = build("RUN echo before; exit 7", ".")
    assert done.returncode == 1
    assert b"Dockerfile:2: RUN echo before; exit 7 ended with exit code 7" in done.stderr
    assert re.search(rb"#\d+ ERROR: ", done.stderr)
    assert b"unknown instruction RUNN" in build("RUNN x", ".").stderr


@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes_ends_its_build(build: Build, trivet: Tool, tmp_path: Path, kill: signal.Signals) -> None:
    """Interrupted or killed, the client leaves no step running."""
    mark = f"8{secrets.randbelow(10**6):06}"
    (tmp_path / "context/Dockerfile").write_text(f"FROM {IMAGE}\nRUN sleep {mark}\n")
    environment = {**trivet.env, "DOCKER_BUILDKIT": "1"}
    line = [command(), "--host", trivet.address, "build", "."]
    with subprocess.Popen(line, cwd=tmp_path / "context", env=environment, stderr=subprocess.PIPE) as process:
        until(lambda: running(mark))
        process.send_signal(kill)
        assert process.wait(20) != 0
    until(lambda: not running(mark))


def running(mark: str) -> bool:
    """Tell whether somebody sleeps so long."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if line.read_bytes() == f"sleep\0{mark}\0".encode():
                return True
        except OSError:
            continue
    return False


def until(test: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 20
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.needs("docker-registry")
def test_credentials(build: Build, trivet: Tool, tmp_path: Path) -> None:
    """What a build begins with may need an account: the client is asked for it; the classic builder brings it along."""
    account = base64.b64encode(b"user:secret").decode()
    with debian_registry(tmp_path / "served", htpasswd=HTPASSWD) as address:
        name = f"{address}/a/b:1"
        config = tmp_path / "config"
        config.mkdir()
        (config / "config.json").write_text(json.dumps({"auths": {address: {"auth": account}}}))
        own = {"DOCKER_CONFIG": str(config)}
        trivet.ok("tag", IMAGE, name)
        push = trivet.command("push", name)
        assert subprocess.run(push, env={**trivet.env, **own}, capture_output=True, check=False).returncode == 0
        for environment in ({}, {"DOCKER_BUILDKIT": "0"}):
            trivet.run("rmi", name)
            dockerfile = f"FROM {name}\nLABEL a={len(environment)}".encode()
            assert build(None, "--pull", "-", input=dockerfile, env=environment).returncode != 0
            ok(build(None, "--pull", "-", input=dockerfile, env={**own, **environment}))
        trivet.run("rmi", name)


def post(tool: Tool, query: str) -> list[dict[str, Any]]:
    """Ask for a build by a session; the lines of the answer."""
    with closing(Link(tool.socket)) as link:
        link.request("POST", f"/build?version=2&{query}", headers={"Content-Length": "0"})
        return [json.loads(line) for line in link.getresponse().read().splitlines()]


async def lie(tool: Tool, context: Talk, dockerfile: bytes = f"FROM {IMAGE}\nCOPY . /c\n".encode()) -> str:
    """Build what such a client sends; the error, or what image came of it."""
    key = secrets.token_hex(12)
    client = Client({"dockerfile": directory({"Dockerfile": dockerfile}), "context": context})
    async with session(tool.socket, key, client):
        lines = await asyncio.to_thread(post, tool, f"session={key}&remote=client-session&buildid={key}")
    last = lines[-1]
    return str(last.get("error") or last.get("aux", {}).get("ID") or last)


def packets(*told: Packet) -> Talk:
    """Say this, whatever is asked."""

    async def talk(stream: Stream[Any, Any], wanted: str) -> None:
        if wanted:
            return await directory({})(stream, wanted)
        for packet in told:
            await stream.send_message(packet)
        while await stream.recv_message() is not None:
            pass
        return None

    return talk


END = Packet(kind=Kind.STAT)
SMALL = Packet(kind=Kind.STAT, stat=Stat(path="f", mode=0o644, size=3))
LIES = {
    "outside": (
        [Packet(kind=Kind.STAT, stat=Stat(path="../../x", mode=0o644)), END, Packet(kind=Kind.END)],
        "sha256:",  # it is within the context all the same
    ),
    "unasked": ([SMALL, END, Packet(kind=Kind.DATA, id=9, data=b"x")], "what it was not asked for"),
    "longer": ([SMALL, END, Packet(kind=Kind.DATA, id=0, data=b"more")], "f grew while it was sent"),
    "shorter": (
        [SMALL, END, Packet(kind=Kind.DATA, id=0, data=b"x"), Packet(kind=Kind.DATA, id=0)],
        "f shrank while it was sent",
    ),
    "early": ([Packet(kind=Kind.DATA, id=0, data=b"x")], "contents before it had listed its files"),
    "negative": ([Packet(kind=Kind.STAT, stat=Stat(path="f", size=-1)), END], "of no size"),
    "itself": ([Packet(kind=Kind.ERROR, data=b"my disk is gone")], "my disk is gone"),
}


@pytest.mark.parametrize("what", LIES)
def test_lies(trivet: Tool, what: str) -> None:
    """A client that sends what it shouldn't gets a reason, and nothing comes of it."""
    told, words = LIES[what]
    assert words in asyncio.run(lie(trivet, packets(*told)))


def test_a_client_that_hangs_up(trivet: Tool) -> None:
    """A client that goes in the middle of a directory, has none, or speaks no gRPC ends its build."""

    async def leave(stream: Stream[Any, Any], wanted: str) -> None:
        await stream.send_message(SMALL)
        stream._stream._transport.close()

    assert "has gone" in asyncio.run(lie(trivet, leave))

    async def nothing(stream: Stream[Any, Any], wanted: str) -> None:
        await stream.send_initial_metadata()

    assert "ended in the middle" in asyncio.run(lie(trivet, nothing))
    said = value(trivet, "POST", "/build", None, 404, version="2", session="nobody", remote="client-session")
    assert said["message"].startswith("no active session for nobody")


def test_what_is_asked_for_properly(trivet: Tool) -> None:
    """An honest client builds; sessions, uploads and cancellations that fit nothing are refused, or have no effect."""
    assert asyncio.run(lie(trivet, directory({"a": b"1", "b": b""}))).startswith("sha256:")
    for header, words in (({}, "no upgrade proto"), ({"Upgrade": "tcp"}, "protocol tcp not supported")):
        with closing(Link(trivet.socket)) as link:
            link.request("POST", "/session", headers=header)
            assert words in json.loads(link.getresponse().read())["message"]
    ask(trivet, "POST", "/build/cancel", None, 200, id="nobody")
    assert "waits for this upload" in value(trivet, "POST", "/build", b"x", 404, buildid="upload-request:x")["message"]
