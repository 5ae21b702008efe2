"""An installation from a CD to its end: the installer partitions and fills the disk, reboots, and the disk boots."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.vm.box import NEEDS, asked, said
from tests.vm.tiny import CACHE, PARAMETERS, initrd, loadable

from trivet.guest import bootable, loader

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(1200),
    pytest.mark.needs(*NEEDS, "grub-mkimage", "genisoimage", "sfdisk", "mke2fs"),
]
SIZE = 96 << 20
MODULES = ("biosdisk", "iso9660", "serial", "linux", "normal")


def installer(home: Path) -> Path:
    """Make an ISO whose kernel and RAM disk write a system with a boot loader to the first disk."""
    (home / "package").mkdir()
    loadable(home / "package", home / "linux")
    tree, disc = home / "system", home / "disc"
    tree.mkdir()
    disc.mkdir()
    shutil.copy(home / "linux", tree / "vmlinuz")
    initrd(tree / "initrd.img")
    bootable.make(tree, home / "disk.raw", SIZE, CACHE, PARAMETERS)
    shutil.copy(home / "linux", disc / "linux")
    initrd(disc / "initrd", disk=gzip.compress((home / "disk.raw").read_bytes(), 1))
    script = home / "early.cfg"
    script.write_text(f"serial\nterminal_output serial\nset root=cd\nlinux /linux {PARAMETERS}\ninitrd /initrd\nboot\n")
    image = ["grub-mkimage", "-O", "i386-pc-eltorito", "-d", str(loader.modules(CACHE)), "-p", "/boot"]
    image += ["-c", str(script), "-o", str(disc / "boot.img"), *MODULES]
    subprocess.run(image, check=True)
    iso = ["genisoimage", "-quiet", "-R", "-b", "boot.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    subprocess.run([*iso, "-o", home / "installer.iso", disc], check=True)
    return home / "installer.iso"


def test_an_iso_installs_unattended_and_the_disk_boots(engine: Daemon, tmp_path: Path) -> None:
    """The empty disk gives way to the CD once; after the reboot it is what boots, with all its partitions."""
    iso = installer(tmp_path)
    options = ["--memory", "512m", "--disk", "256m", "--network", "none"]
    engine.ok("vm", "create", "new", "--cdrom", iso, *options, "--start")
    said(engine, "new", "tiny: installed", 600)
    log = said(engine, "new", "tiny# ", 300)
    assert log.count("tiny: installed") == 1
    assert log.count("tiny: up with") == 2
    asked(engine, "new", "echo partitions $(grep -c vda[123] /proc/partitions)", "partitions 3")
    engine.ok("vm", "stop", "new")
    assert engine.client.instances.get("new").exit_code == 0
    engine.ok("vm", "rm", "new")
