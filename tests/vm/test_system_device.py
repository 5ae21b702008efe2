"""Devices of machines with a system of their own: directories of the host, sticks, a watchdog."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, asked, said
from tests.vm.test_cell import status_of, within

from trivet.hypervisor.qmp import Qmp

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS, "mdir")]


def tree(engine: Daemon, name: str) -> str:
    """Ask QEMU what it has plugged in at its USB sockets."""
    with Qmp(Path(engine.client.machines.get(name).display).with_name("qmp.sock")) as qmp:
        return str(qmp.execute("human-monitor-command", **{"command-line": "info usb"}))


def test_directories_are_shared(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """The guest sees what the host writes and the other way round, and can't write where it may only read."""
    data, notes = tmp_path / "data", tmp_path / "notes"
    for place in (data, notes):
        place.mkdir()
        (place / "word").write_text(place.name)
    engine.ok("vm", "create", "sharer", *tiny, "-v", f"{data}:/srv/data", "-v", f"{notes}:/notes:ro", "--start")
    said(engine, "sharer", "tiny# ")
    mounting = "mkdir -p /srv/data /notes; mount -t virtiofs srv-data /srv/data; mount -t virtiofs notes /notes"
    asked(engine, "sharer", f"{mounting}; echo they are $(cat /srv/data/word /notes/word)", "they are datanotes")
    asked(engine, "sharer", "echo inside > /srv/data/new; touch /notes/new; echo written $?", "written 1")
    assert (data / "new").read_text() == "inside\n"
    assert not (notes / "new").exists()
    (data / "later").write_text("outside")
    asked(engine, "sharer", "echo it is $(cat /srv/data/later)", "it is outside")
    found = engine.client.machines.get("sharer").devices
    assert {(each.name, each.target, each.read_only) for each in found} == {
        ("srv-data", "/srv/data", False),
        ("notes", "/notes", True),
    }


def test_a_machine_that_shares_stays_in_its_cell(engine: Daemon, tmp_path: Path) -> None:
    """Its QEMU is a user of its own without a right, sees no file of what is shared, and its memory isn't saved."""
    pid = engine.client.instances.get("sharer").pid
    user = int(status_of(pid)["Uid"].split()[0])
    assert user != 0
    assert status_of(pid)["CapEff"] == "0" * 16
    assert within(pid, user, "/usr/bin/ls", "/share/0/.").returncode
    assert within(pid, user, "/usr/bin/ls", str(tmp_path)).returncode
    assert "what it has open in shared directories" in engine.trivet("snapshot", "sharer", "then").stderr.decode()
    assert "only while it is off" in engine.trivet("vm", "device", "rm", "sharer", "notes").stderr.decode()
    engine.ok("vm", "stop", "sharer")


def test_a_share_comes_and_goes(engine: Daemon, tmp_path: Path) -> None:
    """A volume is shared, too, is in use as long, and is seen by both; what is removed isn't there any more."""
    engine.ok("vm", "device", "rm", "sharer", "srv-data")
    engine.ok("vm", "device", "add", "sharer", "share:kept:/kept")
    assert "in use by instance sharer" in engine.trivet("volume", "rm", "kept").stderr.decode()
    engine.ok("vm", "start", "sharer")
    mounting = "mkdir -p /kept /old; mount -t virtiofs kept /kept; mount -t virtiofs srv-data /old; echo old $?"
    asked(engine, "sharer", f"{mounting}; echo volume > /kept/word; sync", "old 255")
    place = Path(engine.client.volumes.get("kept").mountpoint)
    asked(engine, "sharer", "echo done $(cat /kept/word)", "done volume")
    assert (place / "word").read_text() == "volume\n"
    file = tmp_path / "file"
    file.touch()
    engine.ok("vm", "stop", "-f", "sharer")
    for wish, complaint in (
        (f"share:{file}:/x", "is no directory"),
        ("share:other:/kept", "two mounts have the same target"),
        ("watchdog:bite", "can reset, poweroff or pause"),
        ("gpu:1", "is no device"),
    ):
        assert complaint in engine.trivet("vm", "device", "add", "sharer", wish).stderr.decode()
    assert engine.trivet("volume", "inspect", "other").returncode == 1
    engine.ok("vm", "rm", "sharer")
    engine.ok("volume", "rm", "kept")


def test_sticks_come_and_go_while_it_runs(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """One is there from the start, another is plugged in; each has its socket, also after the other went."""
    for name in ("one", "two", "three"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
    engine.ok("vm", "create", "stuck", *tiny, "--usb", f"{tmp_path}/one:ro", "--watchdog", "reset", "--start")
    said(engine, "stuck", "tiny# ")
    engine.ok("vm", "device", "add", "stuck", f"usb:{tmp_path}/two")
    assert "at most 2" in engine.trivet("vm", "device", "add", "stuck", f"usb:{tmp_path}/three").stderr.decode()
    assert ("Port 3," in tree(engine, "stuck"), "Port 4," in tree(engine, "stuck")) == (True, True)
    engine.ok("vm", "device", "rm", "stuck", "usb1")
    assert ("Port 3," in tree(engine, "stuck"), "Port 4," in tree(engine, "stuck")) == (False, True)
    engine.ok("snapshot", "stuck", "then")
    engine.ok("snapshot", "revert", "stuck", "then")
    asked(engine, "stuck", "echo goes on $((1+1))", "goes on 2")
    assert "Port 4," in tree(engine, "stuck")
    listed = engine.ok("vm", "device", "ls", "stuck")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["usb2", "usb"], ["watchdog", "watchdog"]]
    engine.ok("vm", "stop", "-f", "stuck")
    engine.ok("vm", "device", "rm", "stuck", "watchdog")
    assert "has no device usb1" in engine.trivet("vm", "device", "rm", "stuck", "usb1").stderr.decode()
    engine.ok("vm", "rm", "stuck")
