"""Snapshots of volumes through the command: taken of what runs, put back, copied, sent away, killed half-way."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import BIN, Daemon
from tests.image.served import trivet_registry
from tests.runtime import until

from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.still import KIND, Still
from trivet.kernel.cgroup import Group, detect
from trivet.store.record import Records

TREE = """
    mkdir -p /data/d; echo one >/data/a; ln /data/a /data/d/b; ln -s a /data/l; mkfifo /data/p; mknod /data/n c 1 3
    dd if=/dev/urandom of=/data/big bs=64k count=64 2>/dev/null; chown 5:6 /data/a; chmod 4750 /data/a
    truncate -s 20G /data/sparse; echo x | dd of=/data/sparse bs=1 seek=50000000 conv=notrunc 2>/dev/null
    chown 7:8 /data; chmod 1770 /data; touch -d @1000000000 /data/d
"""
COUNTER = "i=0; while :; do i=$((i+1)); echo $i >/data/first; echo $i >/data/second; done"


@pytest.fixture
def volume(daemon: Daemon, busybox: str) -> Iterator[str]:
    """A volume with files of every kind; it and all copies of it go afterwards."""
    name = f"snap-{os.urandom(4).hex()}"
    daemon.ok("run", "--rm", "--userns", "host", "-v", f"{name}:/data", busybox, "sh", "-c", TREE)
    yield name
    for taken in daemon.ok("volume", "snapshots", "--format", "name").split():
        if taken.startswith("snap-"):
            daemon.ok("volume", "rm", taken)
    for each in daemon.ok("volume", "ls", "-q").split():
        if each.startswith(name):
            daemon.ok("volume", "rm", each)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a registry."""
    with trivet_registry(tmp_path / "served") as address:
        yield address


def _content(daemon: Daemon, volume: str) -> Path:
    return Path(daemon.client.volumes.get(volume).mountpoint)


def _picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything about a tree that must come back: kinds, owners, modes, times, names of one file, content."""
    found: dict[str, tuple[object, ...]] = {}
    numbers: dict[int, str] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        state = path.lstat()
        name = str(path.relative_to(root))
        content = path.read_bytes() if path.is_file() and not path.is_symlink() and state.st_size < 1 << 30 else b""
        link = str(path.readlink()) if path.is_symlink() else ""
        sparse = state.st_size > 1 << 30 and state.st_blocks < 1 << 10
        first = numbers.setdefault(state.st_ino, name)
        found[name] = (state.st_mode, state.st_uid, state.st_gid, state.st_mtime_ns, content, link, sparse, first)
    return found


def test_put_back(daemon: Daemon, busybox: str, volume: str) -> None:
    """A rolled-back volume is what it was: owners, modes, times to the nanosecond, links, holes; devices stay out."""
    before = _picture(_content(daemon, volume))
    del before["n"]  # a device has no place in a snapshot
    assert daemon.ok("volume", "snapshot", "-q", f"{volume}@one") == f"{volume}@one"
    daemon.ok(
        "run", "--rm", "-v", f"{volume}:/data", busybox, "sh", "-c", "rm -r /data/d; echo two >/data/a; touch /data/x"
    )
    daemon.ok("volume", "rollback", "-q", f"{volume}@one")
    after = _picture(_content(daemon, volume))
    before["."] = (*before["."][:3], after["."][3], *before["."][4:])  # the device's removal touched the root
    assert after == before


def test_snapshots_share_what_they_have(daemon: Daemon, volume: str) -> None:
    """A second snapshot takes what is new, and the first can go without it."""
    daemon.ok("volume", "snapshot", "-q", f"{volume}@one")
    (_content(daemon, volume) / "new").write_bytes(os.urandom(100_000))
    daemon.ok("volume", "snapshot", "-q", f"{volume}@two")
    one, two = daemon.client.volumes.snapshots(volume)
    assert one.added > 4 << 20
    assert 100_000 < two.added < 200_000
    daemon.ok("volume", "rm", f"{volume}@one")
    daemon.ok("volume", "clone", "-q", f"{volume}@two", f"{volume}-copy")
    big = _content(daemon, f"{volume}-copy") / "big"
    assert big.read_bytes() == (_content(daemon, volume) / "big").read_bytes()


def test_one_point_in_time(daemon: Daemon, busybox: str, volume: str) -> None:
    """What a program writes meanwhile is in all files or in none: two counters are never further apart than a step."""
    daemon.ok("run", "-d", "--name", volume, "-v", f"{volume}:/data", busybox, "sh", "-c", COUNTER)
    try:
        for number in range(5):
            daemon.ok("volume", "clone", "-q", volume, f"{volume}-{number}")
            copy = _content(daemon, f"{volume}-{number}")
            first, second = ((copy / name).read_text() for name in ("first", "second"))
            if first and second:  # a file may be caught between being emptied and written
                assert int(first) - int(second) in (0, 1)
            assert second or first
        assert daemon.client.instances.get(volume).status == "running"
        done = daemon.trivet("volume", "rollback", f"{volume}@none")
        assert b"no such snapshot" in done.stderr
        daemon.ok("volume", "snapshot", f"{volume}@one")
        done = daemon.trivet("volume", "rollback", f"{volume}@one")
        assert done.returncode == 1
        assert f"volume {volume} is in use by instance {volume}" in done.stderr.decode()
    finally:
        daemon.ok("rm", "-f", volume)


def test_rename(daemon: Daemon, busybox: str, volume: str) -> None:
    """A volume takes its snapshots along to a new name; one that has snapshots is protected."""
    daemon.ok("volume", "snapshot", "-q", f"{volume}@one")
    done = daemon.trivet("volume", "rm", volume)
    assert done.returncode == 1
    assert f"hint: trivet volume rm {volume}@one" in done.stderr.decode()
    before = _picture(_content(daemon, volume))
    daemon.ok("volume", "rename", volume, f"{volume}-b")
    assert _picture(_content(daemon, f"{volume}-b")) == before
    assert [each.volume for each in daemon.client.volumes.snapshots(f"{volume}-b")] == [f"{volume}-b"]
    assert b"no such volume" in daemon.trivet("volume", "inspect", volume).stderr
    daemon.ok("volume", "rollback", "-q", f"{volume}-b@one")


def test_rename_is_followed_by_those_who_do_not_run(daemon: Daemon, busybox: str, volume: str) -> None:
    """A stopped instance, and one that goes back to a snapshot of itself, finds the volume's files by the new name."""
    new, users = f"{volume}-b", [f"{volume}-{number}" for number in range(3)]
    part = f"type=volume,src={volume},dst=/data,volume-subpath=d"
    daemon.ok("create", "--name", users[0], "-v", f"{volume}:/data", busybox, "cat", "/data/a")
    daemon.ok("run", "-d", "--name", users[1], "--init", "--mount", part, busybox, "sleep", "600")
    daemon.ok("run", "-d", "--name", users[2], "--init", "-v", f"{volume}:/data:ro", busybox, "sleep", "600")
    try:
        refused = daemon.trivet("volume", "rename", volume, new)
        assert refused.returncode == 1
        assert f"volume {volume} is in use by instances {users[1]}, {users[2]}" in refused.stderr.decode()
        assert f"hint: trivet stop {users[1]} {users[2]}" in refused.stderr.decode()
        daemon.ok("stop", *users[1:])
        daemon.ok("snapshot", "create", users[1], "before")
        daemon.ok("volume", "rename", volume, new)
        assert daemon.client.volumes.get(new).users == users
        shown = [daemon.client.instances.get(each) for each in users]
        assert [each.mounts[0].name for each in shown] == [new] * 3
        assert [each.request.mounts[0].source for each in shown] == [new] * 3
        assert daemon.ok("start", "-a", users[0]) == "one"
        daemon.ok("snapshot", "revert", users[1], "before")
        daemon.kill()
        daemon.start()
        daemon.ok("start", *users[1:])
        assert daemon.ok("exec", users[1], "cat", "/data/b") == "one"
        assert daemon.ok("exec", users[2], "cat", "/data/a") == "one"
        assert b"no such volume" in daemon.trivet("volume", "inspect", volume).stderr
    finally:
        daemon.ok("rm", "-f", *users)


def test_a_name_in_place_of_none_keeps_a_volume(daemon: Daemon, busybox: str, volume: str) -> None:
    """A volume that had no name of its own isn't removed with its instance once it was given one."""
    daemon.ok("create", "--name", volume, "-v", "/data", busybox)
    (nameless,) = daemon.client.instances.get(volume).mounts
    daemon.ok("volume", "rename", nameless.name, f"{volume}-kept")
    daemon.ok("rm", "-v", volume)
    assert daemon.client.volumes.get(f"{volume}-kept").users == []


def test_export_and_import(daemon: Daemon, volume: str, tmp_path: Path) -> None:
    """A volume goes out as a tar that tar reads, and comes in again as it was."""
    archive = tmp_path / "volume.tar"
    daemon.ok("volume", "export", "-o", archive, volume)
    assert archive.stat().st_size < 20 << 20  # holes are not written out
    listed = subprocess.run(["tar", "-tf", archive], capture_output=True, text=True, check=True).stdout.split()
    assert {"a", "d/b", "l", "p", "big", "sparse"} <= set(listed)
    daemon.ok("volume", "import", "-q", f"{volume}-in", archive)
    before, after = (_picture(_content(daemon, name)) for name in (volume, f"{volume}-in"))
    del before["n"]
    assert {name: about for name, about in after.items() if name != "."} == {
        name: about for name, about in before.items() if name != "."
    }
    assert daemon.client.volumes.snapshots(volume) == ()


def test_check_reads_snapshots(daemon: Daemon, volume: str) -> None:
    """`system check` names a snapshot whose content is damaged, and what to do; a rollback of it is refused."""
    daemon.ok("volume", "snapshot", "-q", f"{volume}@one")
    (snapshot,) = daemon.client.volumes.snapshots(volume)
    content = daemon.root / "content" / "blobs" / "sha256"
    manifest = json.loads((content / snapshot.digest.partition(":")[2]).read_bytes())
    pack = content / manifest["layers"][0]["digest"].partition(":")[2]
    good = pack.read_bytes()
    pack.chmod(0o600)
    pack.write_bytes(good[: len(good) // 2] + b"!" + good[len(good) // 2 + 1 :])
    try:
        done = daemon.trivet("system", "check")
        assert done.returncode == 1
        assert f"snapshot {volume}@one" in done.stdout.decode()
        assert f"trivet volume rm {volume}@one" in done.stdout.decode()
        before = _picture(_content(daemon, volume))
        assert b"is corrupt" in daemon.trivet("volume", "rollback", f"{volume}@one").stderr
        assert _picture(_content(daemon, volume)) == before
    finally:
        pack.write_bytes(good)


@pytest.mark.parametrize("kind", ["device", "escape", "garbage"])
def test_hostile_archive(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    """An archive that wants out, or brings a device, is refused by name, and no volume is left."""
    archive, name = tmp_path / "bad.tar", f"snap-bad-{kind}"
    if kind == "garbage":
        archive.write_bytes(os.urandom(4096))
    else:
        with tarfile.open(archive, "w") as tar:
            entry = tarfile.TarInfo("sda" if kind == "device" else "../out")
            entry.type = tarfile.BLKTYPE if kind == "device" else tarfile.REGTYPE
            tar.addfile(entry)
    done = daemon.trivet("volume", "import", "-q", name, archive)
    assert done.returncode == 1
    said = {"device": "'sda' is refused", "escape": "'../out' is refused", "garbage": "tar stream is malformed"}[kind]
    assert said in done.stderr.decode()
    assert b"no such volume" in daemon.trivet("volume", "inspect", name).stderr


def test_through_a_registry(daemon: Daemon, volume: str, served: str) -> None:
    """A snapshot goes to a registry and comes back elsewhere; a second one sends only what is new."""
    place = f"{served}/{volume}"
    daemon.ok("volume", "snapshot", "-q", f"{volume}@one")
    digest = daemon.ok("volume", "push", "-q", f"{volume}@one", f"{place}:one")
    assert digest.startswith("sha256:")
    (_content(daemon, volume) / "new").write_bytes(os.urandom(100_000))
    daemon.ok("volume", "snapshot", "-q", f"{volume}@two")
    again = daemon.trivet("volume", "push", f"{volume}@two", f"{place}:two")
    assert again.returncode == 0
    assert b"exists" in again.stderr
    assert daemon.ok("volume", "pull", "-q", f"{place}:two", f"{volume}-b") == f"{volume}-b@two"
    before, after = (_picture(_content(daemon, name)) for name in (volume, f"{volume}-b"))
    del before["n"]
    assert after["big"] == before["big"]
    assert after.keys() == before.keys()
    done = daemon.trivet("volume", "pull", f"{place}:one", f"{volume}-b")
    assert done.returncode == 0
    assert f"hint: volume {volume}-b is as it was" in done.stderr.decode()
    daemon.ok("volume", "rollback", "-q", f"{volume}-b@one")
    assert not (_content(daemon, f"{volume}-b") / "new").exists()
    done = daemon.trivet("volume", "pull", f"{place}:none", f"{volume}-c")
    assert done.returncode == 1
    assert b"no such volume" in daemon.trivet("volume", "inspect", f"{volume}-c").stderr


def test_an_image_is_no_snapshot(daemon: Daemon, busybox: str, served: str) -> None:
    """What isn't a snapshot is refused, and no volume is made of it."""
    daemon.ok("tag", busybox, f"{served}/app:1")
    daemon.ok("push", "-q", f"{served}/app:1")
    done = daemon.trivet("volume", "pull", f"{served}/app:1", "snap-none")
    assert done.returncode == 1
    assert b"is no snapshot of a volume" in done.stderr
    assert b"no such volume" in daemon.trivet("volume", "inspect", "snap-none").stderr
    daemon.ok("rmi", f"{served}/app:1")


def test_an_engine_killed_meanwhile_lets_go(short_path: Path) -> None:
    """Killed while it takes snapshots, an engine leaves nobody frozen and nothing half made."""
    engine = Daemon(short_path / "root", short_path / "run")
    engine.run.mkdir()
    engine.start()
    try:
        engine.ok("import", "-q", "-", "busybox:1", input=busybox_tar())
        key = engine.ok("run", "-d", "--name", "w", "-v", "data:/data", "busybox:1", "sh", "-c", COUNTER)
        for delay in (0.0, 0.05, 0.1, -1):
            if delay >= 0:
                command = [f"{BIN}/trivet", "volume", "snapshot", "-q", "data"]
                environment = {**os.environ, "TRIVET_HOST": engine.address}
                begun = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
                time.sleep(delay)
                engine.kill()
                begun.wait(20)
            else:
                engine.kill()
                _freeze(engine, key)
                time.sleep(0.2)
                seen = _counted(engine)
                time.sleep(0.2)
                assert _counted(engine) == seen
            engine.start()
            assert engine.client.instances.get("w").status == "running"
            until(partial(_goes_on, engine, _counted(engine)))
        for snapshot in engine.client.volumes.snapshots("data"):
            engine.ok("volume", "rm", f"data@{snapshot.name}")
        engine.trivet(
            "system", "check", "--repair"
        )  # what was written for a snapshot that isn't one belongs to nothing
        assert engine.trivet("system", "check").returncode == 0
    finally:
        engine.clean()


def _goes_on(engine: Daemon, seen: str) -> bool:
    return _counted(engine) not in ("", seen)


def _counted(engine: Daemon) -> str:
    return (engine.root / "volume" / "data" / "data" / "second").read_text()


def _freeze(engine: Daemon, key: str) -> None:
    """Bring about what an engine leaves that was killed while an instance stood still."""
    records = Records(engine.root / "record.db")
    plan = records.table("instance", InstanceRecord).find(key).plan
    records.table(KIND, Still).insert(key, Still(key))
    records.close()
    Group(detect(), plan.cgroup).freeze(True)
