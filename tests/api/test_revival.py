"""Containers saved with what they have in memory, by a real CRIU, and let go on from there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.criu import criu as criu
from tests.runtime import until

pytestmark = [pytest.mark.needs("root")]
IMAGE = "busybox:test"
# n is in memory; where it got to is in a tmpfs, in a volume and on the disk.
COUNT = """
n=0
while sleep 0.05; do
    n=$((n+1))
    for place in /dev/shm /data /; do echo $n >$place/new; mv $place/new $place/n; done
done
"""
# The word is in memory and on the disk.
KEEP = """
mkfifo /pipe; exec 3<>/pipe
while read said <&3; do
    if [ $said = say ]; then echo $word $(cat /word) >/new; mv /new /said; else word=$said; echo $word >/word; fi
done
"""
TALK = """
mkfifo /pipe
(while :; do sleep 1; done) >/pipe & nc -l -p 5000 </pipe >/got & sleep 1
i=0; while sleep 0.1; do i=$((i+1)); echo $i; done | nc 127.0.0.1 5000
echo closed >/closed; sleep 1000
"""


@pytest.fixture(scope="module")
def engine(criu: Path, tmp_path_factory: pytest.TempPathFactory, short: Path) -> Iterator[Daemon]:
    """An engine that finds this CRIU."""
    made = Daemon(tmp_path_factory.mktemp("engine"), short)
    made.start(path=f"{criu.parent}:{os.environ['PATH']}")
    try:
        made.ok("import", "-q", "-", IMAGE, input=busybox_tar())
        yield made
    finally:
        made.clean()


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose name is short, for sockets."""
    path = Path(subprocess.run(["mktemp", "-d", "/tmp/tvXXXX"], capture_output=True, text=True).stdout.strip())
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def begin(engine: Daemon) -> Iterator[Callable[..., str]]:
    """Containers that run a script, by their names."""
    made: list[str] = []

    def run(script: str, *options: str) -> str:
        made.append(f"frozen-{os.urandom(3).hex()}")
        engine.ok("run", "-d", "--name", made[-1], *options, IMAGE, "sh", "-c", script)
        return made[-1]

    yield run
    for name in made:
        engine.trivet("rm", "-f", name)


def counted(engine: Daemon, name: str, place: str = "/dev/shm") -> int:
    """Tell how far one has counted."""
    return int(engine.trivet("exec", name, "cat", f"{place}/n").stdout or 0)


def goes_on(engine: Daemon, name: str) -> None:
    """Wait until it has counted further than now, everywhere."""
    before = counted(engine, name)
    until(lambda: all(counted(engine, name, place) > before for place in ("/dev/shm", "/data", "")), 60)


def without(program: str, place: Path) -> str:
    """Give a PATH with all there is but one program."""
    place.mkdir()
    for directory in map(Path, os.environ["PATH"].split(":")):
        for found in directory.glob("*"):
            if found.name != program and not (place / found.name).is_symlink():
                (place / found.name).symlink_to(found)
    return str(place)


@pytest.mark.parametrize("users", ["", "host"])
def test_it_goes_on_where_it_was(
    engine: Daemon, begin: Callable[..., str], users: str, criu: Path, tmp_path: Path
) -> None:
    """Memory, tmpfs, disk, volumes, address, port, limits and rights are as they were, and the next engine's too."""
    volume = f"volume-{os.urandom(3).hex()}"
    options = ("-m", "64m", "-p", "80", "-v", f"{volume}:/data", *(("--userns", users) if users else ()))
    name = begin(COUNT, *options, "-v", f"{tmp_path}:/shown:ro")
    goes_on(engine, name)
    rights = engine.ok("exec", name, "grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/1/status")
    mounts = sorted(engine.ok("exec", name, "cut", "-d ", "-f5,6", "/proc/1/mountinfo").splitlines())
    before = engine.client.instances.get(name)
    for number in range(2):
        counts = counted(engine, name)
        assert engine.ok("checkpoint", name, f"s{number}") == f"s{number}"
        ended = engine.client.instances.get(name)
        assert (ended.status, ended.pid) == ("exited", 0)
        assert f"saved as snapshot s{number}" in ended.error
        if number:
            engine.kill()
            engine.start(path=without("criu", tmp_path / "bin"))
            assert b"apt install criu, version 4.2 or later" in engine.trivet("restore", name).stderr
            engine.stop()
            engine.start(path=f"{criu.parent}:{os.environ['PATH']}")
        engine.ok("restore", name)
        assert counted(engine, name) >= counts
        goes_on(engine, name)
    after = engine.client.instances.get(name)
    assert after.networks[0].addresses == before.networks[0].addresses
    assert [each.container_port for each in after.ports] == [80]
    assert engine.ok("exec", name, "grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/1/status") == rights
    assert sorted(engine.ok("exec", name, "cut", "-d ", "-f5,6", "/proc/1/mountinfo").splitlines()) == mounts
    assert [each.memory_limit for each in engine.client.instances.stats(name)] == [64 << 20]
    assert engine.trivet("exec", name, "touch", "/shown/x").returncode
    engine.ok("stop", "-t", "0", name)
    engine.ok("start", name)
    goes_on(engine, name)


def test_snapshots_of_a_running_container(engine: Daemon, begin: Callable[..., str]) -> None:
    """It goes on after a snapshot, and goes back to any of them: memory and disk are of one moment."""
    name = begin(KEEP)

    def value() -> str:
        return engine.ok("exec", name, "sh", "-c", "rm -f /said; echo say >/pipe; until cat /said; do sleep 0.05; done")

    def keep(word: str) -> None:
        engine.ok("exec", name, "sh", "-c", f"until [ -p /pipe ]; do sleep 0.05; done; echo {word} >/pipe")
        assert value() == f"{word} {word}"

    for word in ("early", "late"):
        keep(word)
        assert f"{word} (with memory: it stood still for" in engine.ok("snapshot", name, word)
    keep("lost")
    for word in ("early", "late", "early"):
        engine.ok("snapshot", "revert", name, word)
        assert value() == f"{word} {word}"
    assert [(row.memory, row.current) for row in engine.client.checkpoints.list(name)] == [(True, True), (True, False)]


@pytest.mark.parametrize("users", ["", "host"])
def test_connections(engine: Daemon, begin: Callable[..., str], users: str) -> None:
    """With the host's users a connection carries on; with users of its own the program sees that it has ended."""
    name = begin(TALK, *(("--userns", users) if users else ()))

    def got() -> int:
        return len(engine.trivet("exec", name, "cat", "/got").stdout.split())

    until(lambda: got() > 3, 60)
    engine.ok("checkpoint", name)
    engine.ok("restore", name)
    before = got()
    if users:
        until(lambda: got() > before + 3, 60)
    else:
        until(lambda: engine.trivet("exec", name, "cat", "/closed").returncode == 0, 60)


REFUSED = {
    "terminal": (("-t",), "its program has a terminal"),
    "init": (("--init",), "trivet's own init"),
    "root": (("--read-only",), "its root is read-only"),
    "queues": (("--ipc", "host"), "another's ipc namespace"),
    "network": (("--cap-add", "NET_ADMIN"), "it has CAP_NET_ADMIN over its network"),
    "host": (("--network", "host"), "it has the host's network"),
    "level": (("--isolation", "process"), "would be lost at level process"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_saved_is_refused_by_name(
    engine: Daemon, begin: Callable[..., str], options: tuple[str, ...], words: str
) -> None:
    """The sentence says why, the instance goes on, and there is no snapshot."""
    name = begin("sleep 1000", *options)
    for verb in ("checkpoint", "snapshot"):
        refused = engine.trivet(verb, name)
        assert (refused.returncode, words in refused.stderr.decode()) == (1, True), refused
    assert engine.client.instances.get(name).status == "running"
    assert engine.client.checkpoints.list(name) == []


def test_programs_added_are_not_saved(engine: Daemon, begin: Callable[..., str]) -> None:
    """What exec added is named, and the instance goes on."""
    name = begin("sleep 1000")
    engine.ok("exec", "-d", name, "sleep", "999")
    refused = engine.trivet("checkpoint", name)
    assert b"was added by exec" in refused.stderr
    assert engine.client.instances.get(name).status == "running"
    assert not list((engine.root / "instance").glob("*/checkpoint/*"))


def test_clones_of_a_running_container(engine: Daemon, begin: Callable[..., str]) -> None:
    """They would need other ids and addresses than its memory knows: refused."""
    assert b"would be lost at level container" in engine.trivet("clone", begin("sleep 1000")).stderr


def test_a_restore_that_fails_leaves_what_was(engine: Daemon, begin: Callable[..., str], tmp_path: Path) -> None:
    """What CRIU says is told; the instance can be started, and restored when the cause is gone."""
    (tmp_path / "there").mkdir()
    name = begin("exec 5>/data/file; while sleep 0.1; do echo here >&5; done", "-v", f"{tmp_path}/there:/data")
    until((tmp_path / "there/file").exists, 60)
    engine.ok("checkpoint", name)
    (tmp_path / "there/file").rename(tmp_path / "file")
    failed = engine.trivet("restore", name)
    assert (failed.returncode, b"criu could not restore instance" in failed.stderr) == (1, True), failed
    assert engine.client.instances.get(name).status == "exited"
    (tmp_path / "file").rename(tmp_path / "there/file")
    engine.ok("restore", name)
    size = (tmp_path / "there/file").stat().st_size
    until(lambda: (tmp_path / "there/file").stat().st_size > size, 60)
