"""The gym's program, and the images that hold it."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from tests.busybox import busybox_tar
from tests.gym.attack import Entry
from tests.native import compiled

INSIDE = Path(__file__).with_name("inside")


def build(directory: Path) -> Path:
    """Make the program, a copy that attacks may spoil; returns its path."""
    program = directory / "gym"
    shutil.copy(compiled("gym", INSIDE.glob("*.c")), program)
    return program


def image(program: Path, layer: tuple[Entry, ...], words: dict[str, str]) -> bytes:
    """Write an image's root file system: busybox, the program as /gym, and what the attack lays over it."""
    output = io.BytesIO(busybox_tar())
    paths = {each.path.strip("/") for each in layer}
    kept = io.BytesIO()
    with tarfile.open(fileobj=output) as given, tarfile.open(fileobj=kept, mode="w") as tar:
        for member in given:
            if not any(member.name == path or member.name.startswith(f"{path}/") for path in paths):
                tar.addfile(member, given.extractfile(member) if member.isfile() else None)
        for entry in (Entry("gym", program=True, mode=0o755), *layer):
            _add(tar, entry, program, words)
    return kept.getvalue()


def _add(tar: tarfile.TarFile, entry: Entry, program: Path, words: dict[str, str]) -> None:
    info = tarfile.TarInfo(entry.path.strip("/"))
    info.mode = entry.mode
    content = b""
    if entry.link:
        info.type, info.linkname = tarfile.SYMTYPE, entry.link.format(**words)
    elif entry.fifo:
        info.type = tarfile.FIFOTYPE
    else:
        content = program.read_bytes() if entry.program else entry.content.format(**words).encode()
        info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def tree(program: Path, layer: tuple[Entry, ...], words: dict[str, str], directory: Path) -> Path:
    """Lay the same out as a directory."""
    directory.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(image(program, layer, words))) as tar:
        tar.extractall(directory)  # an archive of our own; its links are never followed
    return directory


def installed(*names: str) -> str:
    """Name the first of these programs that is missing."""
    return next((name for name in names if not shutil.which(name)), "")
