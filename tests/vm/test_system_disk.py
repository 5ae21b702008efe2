"""The disks of machines with an operating system of their own: more, larger, as they were, backed up."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, PATIENCE, asked, said

from trivet.hypervisor.qmp import Qmp

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS)]


def test_disks_come_grow_and_go(engine: Daemon, tiny: list[str]) -> None:
    """A disk is plugged in with its limits, grows before the guest's eyes, is unplugged, and nothing of it stays."""
    engine.ok("vm", "create", "plug", *tiny, "--start")
    said(engine, "plug", "tiny# ")
    engine.ok("vm", "disk", "add", "plug", "data:64m,iops=900")
    engine.ok("vm", "disk", "resize", "plug", "data:96m")
    engine.ok("vm", "disk", "resize", "plug", "root:2g")
    asked(engine, "plug", "echo sizes $(cat /sys/block/vda/size) $(cat /sys/block/vdc/size)", "sizes 4194304 196608")
    engine.ok("vm", "disk", "limit", "plug", "data,iops=16,rate=1m")
    with Qmp(Path(engine.client.machines.get("plug").display).with_name("qmp.sock")) as qmp:
        limits = qmp.execute("qom-get", path="/objects/limit-data", property="limits")
    assert (limits["iops-total"], limits["bps-total"]) == (16, 1 << 20)
    assert engine.client.machines.get("plug").disks[1].iops == 16
    engine.ok("vm", "disk", "limit", "plug", "data")
    assert "cannot shrink" in engine.trivet("vm", "disk", "resize", "plug", "root:1g").stderr.decode()
    assert "it is what the machine boots" in engine.trivet("vm", "disk", "rm", "plug", "root").stderr.decode()
    assert "has no disk other" in engine.trivet("vm", "disk", "rm", "plug", "other").stderr.decode()
    engine.ok("vm", "disk", "rm", "plug", "data")
    asked(engine, "plug", "echo left $(ls /sys/block | tr '\\n' ' ')", "left vda vdb")
    assert [disk.name for disk in engine.client.machines.get("plug").disks] == ["root"]
    home = Path(engine.client.machines.get("plug").disks[0].path).parent
    assert [path.name for path in home.iterdir()] == ["root.qcow2"]


def test_it_goes_back_to_a_snapshot_with_memory(engine: Daemon, tiny: list[str]) -> None:
    """What the guest had in memory and on disks comes back, also from off; a clone of one that is off is another."""
    asked(engine, "plug", "echo before > /word; dd if=/word of=/dev/vda 2>/dev/null; sync; echo wrote $?", "wrote 0")
    engine.ok("snapshot", "plug", "then")
    asked(engine, "plug", "echo after > /word; dd if=/word of=/dev/vda 2>/dev/null; sync; cat /word", "\nafter")
    engine.ok("snapshot", "revert", "plug", "then")
    asked(engine, "plug", "echo now $(cat /word) $(head -c 6 /dev/vda)", "now before before")
    engine.ok("clone", "plug", "--name", "sibling")
    assert engine.client.instances.get("sibling").status == "running"
    asked(engine, "sibling", "echo sibling $(head -c 6 /dev/vda)", "sibling before")
    said(engine, "sibling", '"local-hostname":"sibling"')
    asked(engine, "plug", "echo goes on $((1+1))", "goes on 2")
    engine.ok("vm", "rm", "-f", "sibling")
    engine.ok("vm", "stop", "plug")
    engine.ok("clone", "plug", "--name", "twin")
    engine.ok("vm", "start", "twin")
    said(engine, "twin", "tiny# ")
    asked(engine, "twin", "echo twin $(head -c 6 /dev/vda)", "twin before")
    engine.ok("vm", "rm", "-f", "twin")
    engine.ok("snapshot", "revert", "plug", "then")
    asked(engine, "plug", "echo again $(cat /word)", "again before")


def test_it_stays_what_it_was_when_what_was_saved_is_damaged(engine: Daemon, tiny: list[str]) -> None:
    """Memory that QEMU can't read is no memory to go on with: it says so, and the machine has the disk of before."""
    asked(engine, "plug", "echo last > /word; dd if=/word of=/dev/vda 2>/dev/null; sync; cat /word", "\nlast")
    (state,) = Path(engine.root).glob("instance/*/checkpoint/*/state")
    with state.open("r+b") as file:
        file.truncate(state.stat().st_size // 2)
    done = engine.trivet("snapshot", "revert", "plug", "then")
    assert done.returncode == 1
    assert b"machine plug did not go on" in done.stderr
    deadline = time.monotonic() + PATIENCE
    while engine.client.instances.get("plug").status != "exited":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    engine.ok("vm", "start", "plug")
    asked(engine, "plug", "echo has $(head -c 4 /dev/vda)", "has last")
    engine.ok("vm", "rm", "-f", "plug")


def test_snapshots_are_a_tree(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """From an earlier one another branch begins, any is gone back to, and a twin has the disk of where it was."""
    engine.ok("vm", "create", "tree", *tiny, "--disk", "8m")

    def write(word: str) -> None:
        raw = tmp_path / "raw"
        raw.write_bytes(word.encode().ljust(8 << 20, b"."))
        disk = engine.client.machines.get("tree").disks[0].path
        subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", raw, disk], check=True)

    def read(machine: str = "tree") -> str:
        engine.ok("vm", "export", machine, tmp_path / "out.raw")
        return (tmp_path / "out.raw").read_bytes().partition(b".")[0].decode()

    for word in ("trunk", "left"):
        write(word)
        engine.ok("snapshot", "tree", word)
    engine.ok("snapshot", "revert", "tree", "trunk")
    assert read() == "trunk"
    write("right")
    engine.ok("snapshot", "tree", "right")
    names = [line.split()[1].strip("*") for line in engine.ok("snapshot", "ls", "tree").splitlines()[1:]]
    assert names == ["trunk", "left", "right"]
    for word in ("left", "right", "trunk", "left"):
        engine.ok("snapshot", "revert", "tree", word)
        assert read() == word
    engine.ok("clone", "tree", "--name", "twig")
    write("later")
    assert (read(), read("twig")) == ("later", "left")
    engine.ok("vm", "rm", "twig", "tree")


def test_backups_hold_what_changed(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """The second backup is of the changed blocks, also of a machine that is off; any point is restored, and proven."""
    store = tmp_path / "store"
    engine.ok("vm", "create", "kept", *tiny, "--start")
    said(engine, "kept", "tiny# ")
    writing = "| dd of=/dev/vda bs=512 seek=9 2>/dev/null; sync; echo wrote"
    asked(engine, "kept", f"echo first {writing} $((0+1))", "wrote 1")
    engine.ok("vm", "backup", "create", "kept", store)
    asked(
        engine, "kept", "echo second | dd of=/dev/vda bs=512 seek=9 2>/dev/null; sync; echo wrote $((1+1))", "wrote 2"
    )
    engine.ok("vm", "backup", "create", "kept", store)
    engine.ok("vm", "stop", "kept")
    engine.ok("vm", "backup", "create", "kept", store)
    points = engine.client.machines.backups(str(store))
    assert [(point.number, point.full, point.quiet) for point in points] == [
        (1, True, False),
        (2, False, False),
        (3, False, True),
    ]
    reading = "echo it is $(dd if=/dev/vda bs=512 skip=9 count=1 2>/dev/null | head -n 1)"
    for number, word in (("1", "it is first"), ("3", "it is second")):
        engine.ok("vm", "restore", store, f"again-{number}", "--point", number, "--start")
        asked(engine, f"again-{number}", reading, word)
        engine.ok("vm", "rm", "-f", f"again-{number}")
    assert "boots" in engine.ok("vm", "backup", "verify", store, "--expect", "tiny# ")
    assert [found.name for found in engine.client.instances.list(all=True) if found.name.startswith("verify")] == []
    engine.ok("vm", "rm", "kept")


def test_it_runs_while_it_is_restored(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """It has all of the backup at once, is filled meanwhile, by the next engine too, then needs it no more."""
    store = tmp_path / "store"
    engine.ok("vm", "create", "kept", *tiny, "--add-disk", "data:8m")
    content = {disk.name: os.urandom(4 << 20) for disk in engine.client.machines.get("kept").disks}
    for disk in engine.client.machines.get("kept").disks:
        _write(disk.path, content[disk.name], tmp_path)
    engine.ok("vm", "backup", "create", "kept", store)
    content["root"] = b"second" + content["root"][6:]
    _write(engine.client.machines.get("kept").disks[0].path, content["root"], tmp_path)
    engine.ok("vm", "backup", "create", "kept", store)
    engine.ok("vm", "restore", "--live", store, "soon")
    assert [disk.filling for disk in engine.client.machines.get("soon").disks] == [True, True]
    for words in (("snapshot", "soon"), ("clone", "soon"), ("vm", "backup", "create", "soon", str(tmp_path / "x"))):
        assert "still being restored" in engine.trivet(*words).stderr.decode()
    engine.ok("vm", "export", "soon", tmp_path / "early.raw")
    assert (tmp_path / "early.raw").read_bytes()[: 4 << 20] == content["root"]
    engine.ok("vm", "start", "soon")
    engine.kill()
    engine.start()
    asked(engine, "soon", "echo it is $(head -c 6 /dev/vda)", "it is second")
    deadline = time.monotonic() + PATIENCE
    while any(disk.filling for disk in engine.client.machines.get("soon").disks):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    shutil.rmtree(store)
    asked(engine, "soon", "echo third | dd of=/dev/vda bs=512 seek=8192 conv=fsync; echo wrote $?", "wrote 0")
    engine.ok("vm", "stop", "-f", "soon")
    engine.ok("snapshot", "soon")
    engine.ok("vm", "export", "soon", tmp_path / "late.raw")
    late = (tmp_path / "late.raw").read_bytes()
    assert late[: 4 << 20] == content["root"]
    assert late[512 * 8192 :].startswith(b"third")
    engine.ok("vm", "rm", "kept", "soon")


def _write(disk: str, content: bytes, scratch: Path) -> None:
    """Write the beginning of a disk that nobody has open, and have it marked as changed as a guest's writes are."""
    raw = scratch / "content"
    raw.write_bytes(content)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", f"write -s {raw} 0 {len(content)}", disk], check=True)


def test_a_backup_that_is_killed_leaves_nothing_in_the_way(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """After the engine was killed in the middle of one the next backup is made, and nothing else is there."""
    engine.ok("vm", "create", "cut", *tiny, "--rate", "20m", "--start")
    said(engine, "cut", "tiny# ")
    asked(engine, "cut", "dd if=/dev/urandom of=/dev/vda bs=1M count=64 2>/dev/null; sync; echo full $?", "full 0")
    begun = engine.begin("vm", "backup", "create", "cut", str(tmp_path))
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob("*.qcow2")):
        assert time.monotonic() < deadline
    engine.kill()
    begun.wait()
    engine.start()
    engine.ok("vm", "backup", "create", "cut", tmp_path)
    points = engine.client.machines.backups(str(tmp_path))
    assert [point.full for point in points] == [True]
    assert [path.name for path in tmp_path.glob("*.qcow2")] == [f"{points[0].id}-root.qcow2"]
    engine.ok("vm", "rm", "-f", "cut")


@pytest.mark.parametrize(
    ("tampering", "complaint"),
    [
        (lambda text: text.replace('"root"', '"../../etc/shadow"'), "which cannot be"),
        (lambda text: text.replace('"full": true', '"full": false', 1), "begins with changes"),
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: text.replace('"id": "', '"id": "0', 1), "is not there"),
    ],
)
def test_tampered_backups_are_refused(
    engine: Daemon, tiny: list[str], tmp_path: Path, tampering: Callable[[str], str], complaint: str
) -> None:
    """A directory that names other files, or lacks some, makes no machine."""
    engine.ok("vm", "create", "victim", *tiny)
    engine.ok("vm", "backup", "create", "victim", tmp_path)
    manifest = tmp_path / "backup.json"
    manifest.write_text(tampering(manifest.read_text()))
    done = engine.trivet("vm", "restore", tmp_path, "evil")
    assert complaint in done.stderr.decode()
    assert engine.trivet("inspect", "evil").returncode == 1
    engine.ok("vm", "rm", "victim")


def test_a_damaged_disk_is_named(engine: Daemon, tiny: list[str]) -> None:
    """A disk that isn't one ends the machine at once, which says so; no other format is guessed."""
    engine.ok("vm", "create", "hurt", *tiny)
    disk = Path(engine.client.machines.get("hurt").disks[0].path)
    disk.write_bytes(b"KDMV" + bytes(1 << 20))  # as another format begins
    done = engine.trivet("vm", "start", "hurt")
    assert done.returncode == 1
    assert "not in qcow2 format" in done.stderr.decode()
    assert engine.client.instances.get("hurt").exit_code == 1
    engine.ok("vm", "rm", "hurt")


def test_limits_change_while_it_runs(engine: Daemon, tiny: list[str]) -> None:
    """Memory is taken by the balloon and given back, no more than the machine was switched on with."""
    engine.ok("vm", "create", "wide", *tiny, "--cpus", "1", "--start")
    said(engine, "wide", "tiny# ")
    engine.ok("update", "--memory", "160m", "wide")
    asked(engine, "wide", "echo less $(($(grep MemFree /proc/meminfo | tr -dc 0-9) < 140000))", "less 1")
    engine.ok("update", "--memory", "256m", "--cpus", "0.5", "wide")
    assert "was switched on with" in engine.trivet("update", "--memory", "512m", "wide").stderr.decode()
    assert "was switched on with" in engine.trivet("update", "--cpus", "3", "wide").stderr.decode()
    assert next(iter(engine.client.instances.stats("wide"))).memory > 0
    assert "trivet vm commit" in engine.trivet("commit", "wide", "wide:1").stderr.decode()
    engine.ok("vm", "rm", "-f", "wide")
