"""Images, volumes, networks, files and the engine itself, through the command."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import BIN, Daemon

pytestmark = pytest.mark.needs("root")


def test_images_there_and_back(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """`save`, `rmi` and `load` give the same image back, in either layout, by file and by pipe."""
    daemon.ok("tag", busybox, "travel:1")
    before = json.loads(daemon.ok("image", "inspect", "travel:1"))[0]
    for layout in ("docker", "oci"):
        file = tmp_path / f"{layout}.tar"
        daemon.ok("save", "-o", file, "--format", layout, "travel:1")
        daemon.ok("rmi", "travel:1")
        assert "travel:1" not in daemon.ok("images", "--format", "name")
        loaded = daemon.ok("load", input=file.read_bytes())
        assert "travel:1" in loaded
        after = json.loads(daemon.ok("image", "inspect", "travel:1"))[0]
        assert after["config"] == before["config"]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["docker.tar", "oci.tar"]
    daemon.ok("rmi", "travel:1")


def test_a_failed_save_leaves_nothing(daemon: Daemon, tmp_path: Path) -> None:
    """A save of an unknown image makes no file."""
    assert daemon.trivet("save", "-o", tmp_path / "x.tar", "nosuch:1").returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_image_lists(daemon: Daemon, busybox: str) -> None:
    """`images` shows names, ids and sizes, as a table, ids, names and JSON."""
    table = daemon.ok("images")
    assert table.splitlines()[0].split() == ["NAME", "ID", "PLATFORM", "CREATED", "SIZE"]
    rows = [json.loads(line) for line in daemon.ok("images", "--json").splitlines()]
    row = next(row for row in rows if busybox in " ".join(row["names"]))
    assert row["id"].removeprefix("sha256:")[:12] in daemon.ok("images", "-q").split()


def test_builds(daemon: Daemon, busybox: str, tmp_path: Path) -> None:
    """A context is sent without what .dockerignore names, and becomes an image."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {busybox}\nARG WHO\nCOPY . /app\nRUN echo $WHO > /who\nCMD cat /who; ls /app\n"
    )
    (tmp_path / "kept").write_text("x")
    (tmp_path / "ignored").write_text("x")
    (tmp_path / ".dockerignore").write_text("ignored\nDockerfile\n.dockerignore\n")
    daemon.ok("build", "-t", "built:1", "--build-arg", "WHO=me", tmp_path, timeout=300)
    assert daemon.ok("run", "--rm", "built:1").split() == ["me", "kept"]
    (tmp_path.parent / "other.Dockerfile").write_text(f"FROM {busybox}\nCOPY . /app\n")
    key = daemon.ok("build", "-q", "-f", tmp_path.parent / "other.Dockerfile", tmp_path, timeout=300)
    assert daemon.ok("run", "--rm", key, "ls", "-A", "/app").split() == ["kept"]
    bare = daemon.ok("build", "-q", "-", input=f"FROM {busybox}\nENV A=stdin\n".encode(), timeout=300)
    assert daemon.ok("run", "--rm", bare, "sh", "-c", "echo $A") == "stdin"


def test_build_errors_name_the_line(daemon: Daemon, tmp_path: Path) -> None:
    """A mistake in a Dockerfile is told with file and line."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nBANANA\n")
    done = daemon.trivet("build", tmp_path)
    assert done.returncode == 1
    assert "Dockerfile:2" in done.stderr.decode()


def test_volumes(daemon: Daemon, busybox: str) -> None:
    """A volume is made, listed, used, kept from removal while used, removed."""
    assert daemon.ok("volume", "create", "--label", "a=b", "clivol") == "clivol"
    assert "clivol" in daemon.ok("volume", "ls", "-q").split()
    daemon.ok("run", "--rm", "-v", "clivol:/data", busybox, "sh", "-c", "echo kept > /data/x")
    assert daemon.ok("run", "--rm", "-v", "clivol:/data:ro", busybox, "cat", "/data/x") == "kept"
    assert json.loads(daemon.ok("volume", "inspect", "clivol"))[0]["labels"] == {"a": "b"}
    daemon.ok("create", "--name", "user-of-clivol", "-v", "clivol:/data", busybox)
    assert daemon.trivet("volume", "rm", "clivol").returncode == 1
    daemon.ok("rm", "user-of-clivol")
    assert daemon.ok("volume", "rm", "clivol") == "clivol"


def test_networks(daemon: Daemon, busybox: str) -> None:
    """A network is made with a subnet, carries names, is listed, removed."""
    daemon.ok("network", "create", "--subnet", "10.219.7.0/24", "clinet")
    try:
        row = next(
            row for row in map(json.loads, daemon.ok("network", "ls", "--json").splitlines()) if row["name"] == "clinet"
        )
        assert row["subnet"] == "10.219.7.0/24"
        server = ["nc", "-ll", "-p", "80", "-e", "echo", "hello"]
        daemon.ok("run", "-d", "--name", "clinet-a", "--network", "clinet", busybox, *server)
        client = "until nc clinet-a 80 < /dev/null; do sleep 0.1; done"
        assert daemon.ok("run", "--rm", "--network", "clinet", busybox, "sh", "-c", client) == "hello"
        assert daemon.trivet("network", "rm", "clinet").returncode == 1
    finally:
        daemon.trivet("rm", "-f", "clinet-a")
        assert daemon.ok("network", "rm", "clinet") == "clinet"


@pytest.fixture
def box(daemon: Daemon, busybox: str) -> Iterator[str]:
    """A running instance to copy from and to."""
    daemon.ok("run", "-d", "--name", "cpbox", busybox, "sleep", "300")
    yield "cpbox"
    daemon.ok("rm", "-f", "cpbox")


def test_copies(daemon: Daemon, box: str, tmp_path: Path) -> None:
    """`cp` follows Docker's rules in both directions, and speaks tar on - ."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(os.urandom(100_000))
    (source / "link").symlink_to("sub/file")
    daemon.ok("cp", source, f"{box}:/tmp")
    daemon.ok("cp", f"{source}/.", f"{box}:/tmp/new")
    daemon.ok("cp", source / "sub" / "file", f"{box}:/tmp/single")
    assert daemon.ok("exec", box, "ls", "/tmp", "/tmp/source", "/tmp/new").split() == [
        "/tmp:", "new", "single", "source", "/tmp/new:", "link", "sub", "/tmp/source:", "link", "sub",
    ]  # fmt: skip
    daemon.ok("cp", f"{box}:/tmp/source", tmp_path / "back")
    assert (tmp_path / "back" / "sub" / "file").read_bytes() == (source / "sub" / "file").read_bytes()
    assert (tmp_path / "back" / "link").readlink() == Path("sub/file")
    daemon.ok("cp", f"{box}:/tmp/single", tmp_path)
    assert (tmp_path / "single").stat().st_size == 100_000
    done = daemon.trivet("cp", f"{box}:/etc/passwd", "-")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["passwd"]
    daemon.ok("cp", "-", f"{box}:/root", input=done.stdout)
    assert daemon.ok("exec", box, "cat", "/root/passwd").startswith("root:")
    missing = daemon.trivet("cp", f"{box}:/nosuch", tmp_path)
    assert (missing.returncode, "no such file in instance cpbox: /nosuch" in missing.stderr.decode()) == (1, True)
    onto = daemon.trivet("cp", source, f"{box}:/etc/passwd")
    assert onto.returncode == 1
    assert "cannot copy directory" in onto.stderr.decode()


def test_the_engine(daemon: Daemon, busybox: str) -> None:
    """`info`, `df`, `check` and `version` describe the engine, for people and for programs."""
    info = json.loads(daemon.ok("info", "--json"))
    assert {level["level"] for level in info["levels"]} == {"process", "container", "vm"}
    assert "LEVEL" in daemon.ok("system", "info")
    assert {row["kind"] for row in map(json.loads, daemon.ok("system", "df", "--json").splitlines())} >= {
        "images",
        "instances",
    }
    assert daemon.ok("system", "check") == "nothing wrong"
    assert set(json.loads(daemon.ok("version", "--json"))) == {"command", "engine"}


def test_events(daemon: Daemon, busybox: str) -> None:
    """`events` shows what happened, filtered, up to a moment."""
    since = str(time.time() - 1)
    daemon.ok("run", "--rm", "--name", "eventful", busybox, "true")
    lines = daemon.ok("events", "--since", since, "--until", str(time.time()), "--filter", "name=eventful", "--json")
    actions = [json.loads(line)["action"] for line in lines.splitlines()]
    assert "create" in actions
    assert actions.index("create") < actions.index("start")


def test_prune(daemon: Daemon, busybox: str) -> None:
    """`prune` removes what has ended, after a yes; a dry run only tells."""
    daemon.ok("run", "--name", "ended", busybox, "true")
    assert "would delete: instance ended" in daemon.ok("instance", "prune", "--dry-run")
    assert daemon.trivet("instance", "prune").returncode == 2
    assert "deleted: instance ended" in daemon.ok("instance", "prune", "--yes")
    assert daemon.trivet("inspect", "ended").returncode == 1


def test_a_closed_pipe(daemon: Daemon, busybox: str) -> None:
    """A reader that goes away ends the command quietly."""
    script = f"{BIN}/trivet run --rm {busybox} seq 1 1000000 | head -1; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "TRIVET_HOST": daemon.address}
    done = subprocess.run(["bash", "-c", script], capture_output=True, env=environ, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("1\n141\n", "")


def test_why_names_what_keeps_a_blob(daemon: Daemon, busybox: str) -> None:
    """From a layer's digest up to the image that needs it; a stranger is told as such."""
    layer = daemon.client.images.get(busybox).layers[0]["digest"]
    assert daemon.ok("why", layer).splitlines()[-1].startswith("  kept by image ")
    for spelling in (layer.removeprefix("sha256:"), layer[:40]):
        assert daemon.ok("why", spelling) == daemon.ok("why", layer)
    refused = daemon.trivet("why", "0" * 64)
    assert (refused.returncode, b"is not in the content store" in refused.stderr) == (1, True)
    assert daemon.trivet("why", "sha256:xyz").returncode == 1


def test_an_upload_that_fails_while_input_is_open_ends_the_command(daemon: Daemon) -> None:
    """The engine's refusal is told at once, though nobody has ended standard input."""
    reading, writing = os.pipe()
    try:
        environment = {**os.environ, "TRIVET_HOST": daemon.address}
        command = [str(BIN / "trivet"), "import", "-", "BAD NAME"]
        done = subprocess.run(command, stdin=reading, capture_output=True, timeout=60, env=environment, check=False)
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 1, done.stderr
    assert done.stderr.decode().splitlines()[-1].startswith(("trivet: ", "hint: "))
