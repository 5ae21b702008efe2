"""Machines with an operating system of their own come from elsewhere, and go there: OVA, images, CDs, answers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, said

from trivet.guest import loader

pytestmark = [pytest.mark.vm, pytest.mark.needs(*NEEDS)]


def test_a_machine_goes_elsewhere_and_comes_back(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """An OVA brings all disks back with their content, a committed image begins further machines, block by block."""
    engine.ok("vm", "create", "there", *tiny, "--disk", "64m", "--add-disk", "data:16m", "--cpus", "2")
    disks = {disk.name: Path(disk.path) for disk in engine.client.machines.get("there").disks}
    for name, path in disks.items():
        raw = tmp_path / f"{name}.raw"
        raw.write_bytes(name.encode() * 65536)
        subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    engine.ok("vm", "export", "there", tmp_path / "there.ova")
    engine.ok("vm", "import", tmp_path / "there.ova", "back")
    back = engine.client.machines.get("back")
    assert (back.cpus, back.memory, [disk.size for disk in back.disks]) == (2, 256 << 20, [64 << 20, 16 << 20])
    engine.ok("vm", "export", "back", tmp_path / "again.raw")
    engine.ok("vm", "export", "there", tmp_path / "root.vmdk")
    files = [str(tmp_path / "again.raw"), str(tmp_path / "root.vmdk")]
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "vmdk", *files], check=True, capture_output=True)
    assert (tmp_path / "again.raw").read_bytes()[: 4 * 65536] == b"root" * 65536
    engine.ok("vm", "commit", "there", "golden:1")
    engine.ok("vm", "create", "child", "--image", "golden:1", "--no-cloud-init", "--disk", "96m")
    engine.ok("vm", "export", "child", tmp_path / "child.raw")
    assert (tmp_path / "child.raw").stat().st_size == 96 << 20
    with (tmp_path / "child.raw").open("rb") as file:
        assert file.read(4 * 65536) == b"root" * 65536
    assert "used by child" in engine.trivet("rmi", "golden:1").stderr.decode()
    assert engine.trivet("run", "golden:1").returncode == 125
    engine.ok("vm", "rm", "there", "back", "child")
    engine.ok("rmi", "golden:1")


@pytest.mark.parametrize("suffix", ["ova", "qcow2", "raw", "vmdk", "vhd", "vhdx", "vdi"])
def test_every_format_brings_the_disk_back(engine: Daemon, tiny: list[str], tmp_path: Path, suffix: str) -> None:
    """A machine written to a file and made of it again has the same disk, byte by byte, with its holes and its end."""
    engine.ok("vm", "create", "from", *tiny, "--disk", "33m")
    content = tmp_path / "content"
    with content.open("wb") as file:
        for place in (0, 5 << 20, (33 << 20) - 4096):
            file.seek(place)
            file.write(os.urandom(4096))
    disk = engine.client.machines.get("from").disks[0].path
    subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", content, disk], check=True)
    path = tmp_path / f"there.{suffix}"
    engine.ok("vm", "export", "from", path)
    if suffix == "ova":
        engine.ok("vm", "import", path, "again")
    else:
        engine.ok("vm", "create", "again", "--image", path, "--disk", "33m", "--no-cloud-init", "--network", "none")
    engine.ok("vm", "export", "again", tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == content.read_bytes()
    engine.ok("vm", "rm", "from", "again")


def test_answers_are_where_installers_look(engine: Daemon, tiny: list[str], tmp_path: Path) -> None:
    """The initial RAM disk has them in its root, and a stick with the label that ks.cfg is looked for on."""
    (tmp_path / "preseed.cfg").write_text("tiny: answered\n")
    engine.ok("vm", "create", "asked", *tiny, "--answer", tmp_path / "preseed.cfg", "--start")
    said(engine, "asked", "tiny: answered")
    stick = Path(engine.client.machines.get("asked").display).with_name("stick.img")
    assert "answered" in subprocess.run(["mtype", "-i", stick, "::preseed.cfg"], capture_output=True, text=True).stdout
    engine.ok("vm", "rm", "-f", "asked")


@pytest.mark.needs("grub-mkimage", "genisoimage")
def test_a_cd_is_booted_when_the_disk_is_empty(engine: Daemon, tmp_path: Path) -> None:
    """With the usual order an empty disk gives way to the CD."""
    (tmp_path / "cd").mkdir()
    script = tmp_path / "early.cfg"
    script.write_text('serial\nterminal_output serial\necho "grub: from the CD"\nsleep 600\n')
    modules = loader.modules(Path("/var/cache/trivet"))
    image = ["grub-mkimage", "-O", "i386-pc-eltorito", "-d", str(modules), "-p", "/boot", "-c", str(script)]
    image += ["-o", str(tmp_path / "cd/boot.img"), "biosdisk", "iso9660", "serial", "echo", "sleep"]
    subprocess.run(image, check=True)
    iso = ["genisoimage", "-quiet", "-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    subprocess.run([*iso, "-o", tmp_path / "cd.iso", tmp_path / "cd"], check=True)
    engine.ok("vm", "create", "new", "--cdrom", tmp_path / "cd.iso", "--network", "none", "--start")
    said(engine, "new", "grub: from the CD")
    engine.ok("vm", "rm", "-f", "new")
