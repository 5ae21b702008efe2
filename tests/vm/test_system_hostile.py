"""Disks whose headers a guest, or somebody with a backup, has written: nothing of the host's is opened for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS

from trivet.engine.disk import tool
from trivet.launch.operation import Exec
from trivet.launch.task import run

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS)]
SECRET = b"nobody's business\n" * 4096


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's, as long as the disks that claim it."""
    file = tmp_path / "secret"
    file.write_bytes(SECRET.ljust(1 << 20, b"\0"))
    return file


def claim(disk: Path, secret: Path, size: str = "1G") -> None:
    """Put an image in a disk's place that says that its data is in another file, and would show that file."""
    disk.unlink()
    kept = secret.read_bytes()
    words = ["-f", "qcow2", "-o", f"data_file={secret},data_file_raw=on"]
    subprocess.run(["qemu-img", "create", "-q", *words, disk, size], check=True)
    secret.write_bytes(kept)


def test_a_disk_that_names_another_file_shows_nothing_of_it(
    engine: Daemon, tiny: list[str], secret: Path, tmp_path: Path
) -> None:
    """Neither is it exported, nor resized, nor backed up, nor made an image of; the file it names stays as it was."""
    engine.ok("vm", "create", "liar", *tiny)
    claim(Path(engine.client.machines.get("liar").disks[0].path), secret)
    for words in (
        ("export", "liar", tmp_path / "out.raw"),
        ("export", "liar", tmp_path / "out.ova"),
        ("disk", "resize", "liar", "root:2g"),
        ("backup", "create", "liar", tmp_path / "store"),
        ("commit", "liar", "liar:1"),
    ):
        done = engine.trivet("vm", *words)
        assert done.returncode == 1, words
        assert b"Could not open" in done.stderr, (words, done.stderr)
    assert secret.read_bytes().startswith(SECRET)
    assert secret.stat().st_size == 1 << 20
    engine.ok("vm", "rm", "liar")


def test_a_backup_that_names_another_file_shows_nothing_of_it(
    engine: Daemon, tiny: list[str], secret: Path, tmp_path: Path
) -> None:
    """No machine is made of it."""
    store = tmp_path / "store"
    engine.ok("vm", "create", "victim", *tiny)
    engine.ok("vm", "backup", "create", "victim", store)
    (file,) = store.glob("*.qcow2")
    claim(file, secret)
    done = engine.trivet("vm", "restore", store, "evil")
    assert b"Could not open" in done.stderr
    assert engine.trivet("inspect", "evil").returncode == 1
    engine.ok("vm", "rm", "victim")


def test_what_reads_disks_sees_nothing_of_the_host() -> None:
    """A program in QEMU's place is a user of its own, without a capability, a network or a path to anybody's file."""
    script = (
        "cat /proc/self/status; ls /; echo links $(grep -c : /proc/self/net/dev); cat /etc/passwd /etc/shadow; "
        "touch /x /usr/x /dev/x"
    )
    plan = [*tool.operations("")[:-1], Exec(("/usr/bin/sh", "-c", script), ())]
    done = run(plan)
    said = done.output.decode()
    fields = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert int(fields["Uid"].split()[0]) >= 0x6000_0000
    assert (fields["Groups"].strip(), fields["NoNewPrivs"]) == ("", "1")
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert "links 1" in said
    names = {line for line in said.splitlines() if ":" not in line}
    assert {"usr", "lib", "lib64", "etc", "dev", "proc"} <= names
    assert {"root", "home", "sys", "tmp", "var", "run", "bin"}.isdisjoint(names)
    assert done.error_output.decode().count("No such file") == 2
    assert done.error_output.decode().count("touch: ") == 3
