"""A directory as a disk that boots, made without mounting anything: GPT, a BIOS loader, a UEFI partition, ext4.

    sector 0        GRUB's first sector, and the partition table
    1   1 MiB       the rest of GRUB for BIOS
    2  32 MiB       FAT: shim and GRUB for UEFI
    3  to the end   ext4 with label root; grows with the disk

GRUB starts /vmlinuz with /initrd.img, links that Debian's packages keep pointing at the newest kernel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from trivet.base.error import Internal, Unsupported
from trivet.guest import loader
from trivet.guest.loader import SECTOR, Loader

MEBIBYTE = 1 << 20
_BIOS, _EFI, _ROOT = 1, 2, 34  # MiB where the partitions begin
_FIRST_BYTES = 440  # of sector 0 that are the loader's; behind them is the partition table
_PACKAGES = {"sfdisk": "fdisk", "mkfs.vfat": "dosfstools", "mcopy": "mtools", "mmd": "mtools", "mke2fs": "e2fsprogs"}
_TABLE = f"""label: gpt
unit: sectors
1 : start={_BIOS * 2048}, size=2048, type=21686148-6449-6E6F-744E-656564454649, name="bios"
2 : start={_EFI * 2048}, size={(_ROOT - _EFI) * 2048}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="efi"
3 : start={_ROOT * 2048}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name="root"
"""
# An emulated timer on a busy host misses its beats, which a kernel takes for a broken one, and panics.
PARAMETERS = "root=LABEL=root ro console=tty0 console=ttyS0,115200 no_timer_check"


class DiskFailed(Internal):
    """A bootable disk that could not be made."""

    def __init__(self, program: str, output: bytes) -> None:
        said = output.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        super().__init__(f"cannot make a bootable disk: {program}: {said[-1]}")


def make(tree: Path, target: Path, size: int, cache: Path, parameters: str = PARAMETERS) -> None:
    """Write what is below `tree` to the disk image `target` of `size` bytes, sparse.

    Raises `Unsupported` for a program that isn't there, `DiskFailed`, and what getting the loader raises.
    """
    loaders = loader.obtain(cache, _BIOS * MEBIBYTE // SECTOR)
    _configure(tree, parameters)
    with target.open("wb") as disk:
        disk.truncate(size)
        _run(["sfdisk", "--quiet", str(target)], _TABLE.encode())
        disk.seek(0)
        disk.write(loaders.first[:_FIRST_BYTES])
        disk.seek(_BIOS * MEBIBYTE)
        disk.write(loaders.core)
    with tempfile.TemporaryDirectory(prefix=".disk-", dir=target.parent) as scratch:
        _put(_efi(Path(scratch), loaders), target, _EFI * MEBIBYTE)
    _root(tree, target, size - (_ROOT + 1) * MEBIBYTE)


def _configure(tree: Path, parameters: str) -> None:
    """Tell GRUB what to start; what the system's own packages may say later counts instead."""
    home = tree / "boot/grub"
    home.mkdir(parents=True, exist_ok=True)
    (home / "grub.cfg").write_text(
        "serial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\nset timeout=0\n"
        f"linux /vmlinuz {parameters}\ninitrd /initrd.img\nboot\n"
    )


def _efi(scratch: Path, loaders: Loader) -> Path:
    file, script = scratch / "efi.fat", scratch / "grub.cfg"
    script.write_text("search.fs_label root root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
    with file.open("wb") as created:
        created.truncate((_ROOT - _EFI) * MEBIBYTE)
    _run(["mkfs.vfat", "-n", "EFI", str(file)])
    _run(["mmd", "-i", str(file), "::EFI", "::EFI/BOOT", "::EFI/debian"])
    for source, place in (
        (loaders.shim, "EFI/BOOT/BOOTX64.EFI"),
        (loaders.grub, "EFI/BOOT/grubx64.efi"),
        (script, "EFI/debian/grub.cfg"),
    ):
        _run(["mcopy", "-i", str(file), str(source), f"::{place}"])
    return file


def _root(tree: Path, target: Path, size: int) -> None:
    """Make the file system in its place: mke2fs takes an offset, and knows how to fill it from a directory."""
    options = f"offset={_ROOT * MEBIBYTE},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    kind = ["-q", "-F", "-t", "ext4", "-L", "root", "-d", str(tree), "-E", options]
    _run(["mke2fs", *kind, str(target), f"{size >> 10}k"])


def _put(source: Path, target: Path, offset: int) -> None:
    with source.open("rb") as reading, target.open("r+b") as writing:
        writing.seek(offset)
        shutil.copyfileobj(reading, writing, MEBIBYTE)


def _run(argv: list[str], text: bytes = b"") -> None:
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    program = shutil.which(argv[0], path=search)
    if program is None:
        raise Unsupported(
            f"cannot make a bootable disk: {argv[0]} is not installed",
            hint=f"apt-get install {_PACKAGES.get(argv[0], argv[0])}",
        )
    done = subprocess.run([program, *argv[1:]], input=text, capture_output=True, check=False)
    if done.returncode:
        raise DiskFailed(argv[0], done.stderr)
