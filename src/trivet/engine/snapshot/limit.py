"""A writable layer of limited size: a file system of its own in a sparse file, seen in the host's mount namespace.

HOME/
├── disk.ext4      takes what is written to it, and gives back what is deleted
└── rw             where it is mounted, through a loop device that goes with the mount

Quotas of the host's file system would cost less, but few are mounted with them; this works wherever files do.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from trivet.base.error import InvalidArgument, Unsupported
from trivet.engine.snapshot.ext4 import make_drive, run
from trivet.kernel.mount import unmount

MINIMUM = 16 << 20


class TooSmall(InvalidArgument):
    """A limit that no file system fits in."""

    def __init__(self, size: int) -> None:
        super().__init__(f"a writable layer cannot be limited to {size} bytes: it takes {MINIMUM >> 20} MiB at least")


class NotLimited(Unsupported):
    """A host that can't mount a file."""

    def __init__(self, home: Path, problem: str) -> None:
        super().__init__(
            f"cannot limit the writable layer of instance {home.name[:12]}: {problem}",
            hint="it takes a loop device; without --storage-opt size= there is no need for one",
        )


def check(size: int) -> None:
    """Raise `TooSmall` for what can't be a limit; 0 is none."""
    if 0 < size < MINIMUM:
        raise TooSmall(size)


def make(home: Path, names: list[str], size: int) -> None:
    """Move directories of `home` into a file system of `size` bytes. Raises `StoreFull`, also if they don't fit."""
    seed = home / "seed"
    seed.mkdir(mode=0o700)
    for name in names:
        (home / name).rename(seed / name)
    run(make_drive(home / "disk.ext4", size, content=seed), f"the writable layer of {size} bytes", home / "disk.ext4")
    subprocess.run(["rm", "-rf", "--one-file-system", seed], check=True)
    (home / "rw").mkdir(mode=0o700)


def is_limited(home: Path) -> bool:
    """Tell whether a writable layer is of this kind."""
    return (home / "disk.ext4").exists()


def show(home: Path) -> Path:
    """Mount it unless it is; return where. Raises `NotLimited`."""
    place = home / "rw"
    if not os.path.ismount(place):
        line = ["mount", "-t", "ext4", "-o", "loop,noatime,discard", str(home / "disk.ext4"), str(place)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode and not os.path.ismount(place):  # somebody else was faster
            raise NotLimited(home, (done.stderr.strip().splitlines() or ["mount said nothing"])[0])
    return place


def hide(home: Path) -> None:
    """Unmount it if it is mounted. Who uses it keeps it."""
    if os.path.ismount(home / "rw"):
        unmount(home / "rw")
