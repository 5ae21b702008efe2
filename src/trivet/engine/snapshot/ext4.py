"""Making ext4 file systems in sparse files, and the other programs that drives are made with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from trivet.base.error import Internal, Unsupported
from trivet.store.content import StoreFull

PACKAGES = {"mkfs.erofs": "erofs-utils", "mke2fs": "e2fsprogs"}


class ProgramMissing(Unsupported):
    """A system program that drives are made with."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"cannot make file systems in files: {program} is not installed",
            hint=f"apt-get install {PACKAGES[program]}",
        )


class DriveFailed(Internal):
    """A drive that could not be made."""

    def __init__(self, what: str, output: bytes) -> None:
        reason = output.decode(errors="replace").strip().splitlines()
        super().__init__(f"cannot make {what}: {reason[-1] if reason else 'the program said nothing'}")


def make_drive(file: Path, size: int, content: Path | None = None) -> list[str]:
    """Compose the command that makes an ext4 file system of `size` bytes in a sparse file, empty or with files."""
    lazy = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    seed = ["-d", str(content)] if content else []
    return [find("mke2fs"), "-q", "-F", "-t", "ext4", "-m", "0", "-E", lazy, *seed, str(file), f"{size >> 10}k"]


def run(line: Sequence[str], what: str, file: Path) -> None:
    """Run a command that makes `file`. Raises `StoreFull`, `DriveFailed`."""
    done = subprocess.run(line, capture_output=True, check=False)
    if done.returncode:
        fail(what, file, done.stderr)


def fail(what: str, file: Path, output: bytes) -> None:
    """Raise what fits a program's complaint about `file`."""
    full = b"No space left" in output or b"Could not allocate" in output
    if full or shutil.disk_usage(file.parent).free < 1 << 20:
        raise StoreFull(file, OSError(28, "No space left on device"))
    raise DriveFailed(what, output)


def find(program: str) -> str:
    """Find a system program. Raises `ProgramMissing`."""
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise ProgramMissing(program)
    return found
