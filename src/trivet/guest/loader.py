"""Boot loaders of Debian, for disks that begin with BIOS, UEFI and Secure Boot alike; none of them is installed here.

CACHE/loader/
└── VERSION/             complete, or not there: it is renamed into place
    ├── pc/              GRUB's modules for BIOS
    ├── shim.efi         signed by Microsoft
    └── grub.efi         signed by Debian; reads /EFI/debian/grub.cfg
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
from pathlib import Path

import msgspec

from trivet.base.error import Corrupt, Unsupported
from trivet.guest.kernel import run

SECTOR = 512
PACKAGES = ("grub-pc-bin", "grub-efi-amd64-signed", "shim-signed")
_FILES = {
    "pc": "usr/lib/grub/i386-pc",
    "grub.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
    "shim.efi": "usr/lib/shim/shimx64.efi.signed",
}
_MODULES = ("biosdisk", "part_gpt", "ext2", "normal", "linux", "search", "search_label", "serial", "configfile", "test")
_KERNEL_SECTOR = 0x5C  # of boot.img: where it finds the rest (grub-core/boot/i386/pc/boot.S)
_BLOCK_LIST = 0x1F4  # of the first sector of the rest: where the others are (diskboot.S)


class Loader(msgspec.Struct, frozen=True, kw_only=True):
    """What a disk begins with: the first sector, what is embedded behind it, and the two programs for UEFI."""

    first: bytes
    core: bytes
    shim: Path
    grub: Path


def obtain(cache: Path, at: int) -> Loader:
    """Return the loaders, from the cache or the machine's mirror; the embedded part begins at sector `at` of the disk.

    Raises `NoKernel` when the mirror can't be reached, `Unsupported` without grub-mkimage.
    """
    home = modules(cache).parent
    core = bytearray(_core(home / "pc"))
    core += bytes(-len(core) % SECTOR)
    struct.pack_into("<QH", core, _BLOCK_LIST, at + 1, len(core) // SECTOR - 1)
    first = bytearray((home / "pc/boot.img").read_bytes())
    struct.pack_into("<Q", first, _KERNEL_SECTOR, at)
    return Loader(first=bytes(first), core=bytes(core), shim=home / "shim.efi", grub=home / "grub.efi")


def modules(cache: Path) -> Path:
    """Tell where GRUB's modules for BIOS are."""
    return (_cached(cache / "loader") or _install(cache / "loader")) / "pc"


def _core(home: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="trivet-loader-") as scratch:
        target, script = Path(scratch, "core.img"), Path(scratch, "early.cfg")
        script.write_text("search.fs_label root root\nset prefix=($root)/boot/grub\n")
        argv = ["grub-mkimage", "-O", "i386-pc", "-d", str(home), "-p", "/boot/grub", "-c", str(script)]
        try:
            subprocess.run([*argv, "-o", str(target), *_MODULES], check=True, capture_output=True)
        except FileNotFoundError:
            raise Unsupported(
                "cannot make a bootable disk: grub-mkimage is not installed", hint="apt-get install grub-common"
            ) from None
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise Corrupt(f"cannot make a boot loader: {said}") from error
        return target.read_bytes()


def _cached(store: Path) -> Path | None:
    found = [path for path in store.glob("*") if (path / "grub.efi").exists()]
    return max(found, key=lambda path: path.stat().st_mtime) if found else None


def _install(store: Path) -> Path:
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=store) as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # apt downloads as user _apt where it can
        run(["apt-get", "download", "-q", *PACKAGES], scratch)
        packages = sorted(scratch.glob("*.deb"))
        for package in packages:
            run(["dpkg-deb", "-x", str(package), str(scratch / "tree")], scratch)
        ready = scratch / "ready"
        ready.mkdir()
        for short, place in _FILES.items():
            source = scratch / "tree" / place
            if not source.exists():
                raise Corrupt(f"the boot loader packages have no {place}")
            source.rename(ready / short)
        final = store / packages[0].name.split("_")[1].replace("%3a", ":")
        try:
            ready.rename(final)
        except OSError:
            if not (final / "grub.efi").exists():  # another process was faster
                raise
    return final
