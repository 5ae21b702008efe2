"""What machines begin with, in files: DIRECTORY/{memory,state,sums}."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from trivet.hypervisor import memory


class Template(msgspec.Struct, frozen=True):
    """Descriptors of a machine's sealed memory and state."""

    memory: int
    state: int

    def close(self) -> None:
        """Let go of both."""
        os.close(self.memory)
        os.close(self.state)


def load(place: Path) -> Template:
    """Copy what is in files into memory. Raises OSError, also for what isn't as it was written."""
    opened: list[int] = []
    try:
        for name in ("memory", "state"):
            with (place / name).open("rb") as file:
                opened.append(memory.make(f"trivet-{name}"))
                memory.copy(file.fileno(), opened[-1])
            memory.seal(opened[-1])
        if (place / "sums").read_text() != _sums(Template(*opened)):
            raise OSError(errno.EIO, "it isn't what was written", str(place))
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return Template(*opened)


def store(made: Template, place: Path) -> None:
    """Write it to files in an empty directory, and to the disk."""
    for name, descriptor in (("memory", made.memory), ("state", made.state)):
        with (place / name).open("wb") as file:
            memory.copy(descriptor, file.fileno())
            os.fsync(file.fileno())
    (place / "sums").write_text(_sums(made))


def _sums(template: Template) -> str:
    return f"{memory.checksum(template.memory)} {memory.checksum(template.state)}\n"
