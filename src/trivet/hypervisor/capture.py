"""Saving a running machine: its memory, its devices' state and its drive, all of the same moment.

    before      what is in the memory and on the drive is copied, so that little has to be moved at that moment
    stopped     the devices' state (a third of a megabyte) · the memory the guest has written · a backup of what was
                written to the drive since it was copied begins, as of now
    after       the backup ends

QEMU can write a stream of everything, too, but not one that several machines could begin with: only a file in
memory is shared by those who don't change it. Which pages differ from the file that a fork began with, the kernel
knows (kernel/pagemap.py).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from trivet.base.error import Unsupported
from trivet.hypervisor import leftover, memory
from trivet.hypervisor.qmp import Qmp, QmpRefused
from trivet.hypervisor.stored import Template
from trivet.hypervisor.template import MEMORY_NAME
from trivet.hypervisor.urgency import urgent
from trivet.kernel import pagemap

_STEP = 0.002
_DRIVE = "upper"


class NotCapturable(Unsupported):
    """A machine whose memory can't be copied."""

    def __init__(self, cause: str, hint: str | None = None) -> None:
        super().__init__(f"cannot save the memory of a machine: {cause}", hint=hint)


class Guest(msgspec.Struct, frozen=True):
    """Where a QEMU process has its guest's memory: a mapping of the file it was forked from, or of a copy of it."""

    pid: int
    start: int
    end: int
    private: bool

    @property
    def size(self) -> int:
        """Tell how large it is, in bytes."""
        return self.end - self.start

    @property
    def file(self) -> Path:
        """Name the file below the mapping."""
        return Path(f"/proc/{self.pid}/map_files/{self.start:x}-{self.end:x}")


def find(pid: int) -> Guest:
    """Find a guest's memory. Raises `NotCapturable`."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if f"/memfd:{MEMORY_NAME} " in line:
            place, rights = line.split()[:2]
            start, end = (int(word, 16) for word in place.split("-"))
            return Guest(pid, start, end, private=rights.endswith("p"))
    raise NotCapturable("it was booted, not forked from a template", "restart it")


def capture(
    qmp: Qmp, guest: Guest, drive: Path, target: int, quiet: AbstractContextManager[None], *, go_on: bool
) -> tuple[Template, float]:
    """Save a running machine, which is stopped for a moment while it is `quiet`; unless it shall `go_on`, for good.

    Its drive goes to the empty file `target`. Returns what others can begin with, sealed, and the seconds it stood
    still. Raises what QMP does, and OSError; then the machine goes on.
    """
    leftover.sweep(qmp)
    with contextlib.ExitStack() as undo:
        made = [memory.make(MEMORY_NAME, guest.size), memory.make("trivet-state")]
        for descriptor in made:
            undo.callback(os.close, descriptor)
        with contextlib.ExitStack() as meanwhile:
            copy = meanwhile.enter_context(_Copy(guest, made[0]))
            backup = meanwhile.enter_context(_backup(qmp, drive, target))
            state = meanwhile.enter_context(_lent(qmp, made[1], os.O_WRONLY))
            copy.all()
            _flush(drive)
            with quiet, urgent(guest.pid), contextlib.ExitStack() as stopped:
                begun = time.monotonic()
                stopped.callback(qmp.resume)
                _save(qmp, state, copy)
                backup()
                if go_on:
                    stopped.close()
                stopped.pop_all()
                seconds = time.monotonic() - begun
        for descriptor in made:
            memory.seal(descriptor)
        undo.pop_all()
    return Template(made[0], made[1]), seconds


def _save(qmp: Qmp, state: str, copy: _Copy) -> None:
    """Stop the machine, and copy its memory while QEMU saves the devices, which leaves it alone."""
    saving = ("xen-save-devices-state", {"filename": state, "live": False})
    with contextlib.closing(qmp.in_turn(("stop", {}), saving)) as answers:
        next(answers)
        copy.written()
        next(answers)


class _Copy(contextlib.ExitStack):
    """A guest's memory and the file it is copied to."""

    def __init__(self, guest: Guest, target: int) -> None:
        super().__init__()
        self._guest, self._target = guest, target
        self._source = self._open(f"/proc/{guest.pid}/mem")
        self._pagemap = self._open(f"/proc/{guest.pid}/pagemap")
        self._file = self._open(guest.file)

    def _open(self, path: str | Path) -> int:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.callback(os.close, descriptor)
        return descriptor

    def all(self) -> None:
        """Copy everything: the guest runs, so it is worth nothing yet but that the pages are there."""
        memory.copy(self._file, self._target)
        view = mmap.mmap(self._target, self._guest.size)
        self.callback(view.close)
        self._view = self.enter_context(memoryview(view))
        self.written()

    def written(self) -> None:
        """Copy what isn't the file's any more; where the file itself is written to, all of it."""
        if not self._guest.private:
            memory.copy(self._file, self._target)
            return
        for start, end in pagemap.written(self._pagemap, self._guest.start, self._guest.end):
            while start < end:
                part = self._view[start - self._guest.start : end - self._guest.start]
                start += os.preadv(self._source, [part], start)


@contextlib.contextmanager
def _backup(qmp: Qmp, drive: Path, target: int) -> Iterator[Callable[[], None]]:
    """Copy a drive while it is written to; gives what is to be called at the moment that counts."""
    name = f"{leftover.PREFIX}{secrets.token_hex(4)}"
    with contextlib.ExitStack() as undo:
        qmp.execute("block-dirty-bitmap-add", node=_DRIVE, name=name)
        undo.callback(qmp.execute, "block-dirty-bitmap-remove", node=_DRIVE, name=name)
        with drive.open("rb") as source:
            memory.copy(source.fileno(), target)
        path = undo.enter_context(_lent(qmp, target, os.O_RDWR))
        # What stops flushes everything. The copy is flushed by whoever wanted it, when nobody waits for that.
        how = {"node-name": name, "discard": "unmap", "cache": {"no-flush": True}}
        qmp.execute("blockdev-add", driver="file", filename=path, **how)
        undo.callback(qmp.execute, "blockdev-del", **{"node-name": name})

        def begin() -> None:
            where = {"device": _DRIVE, "target": name, "job-id": name}
            how = {"sync": "bitmap", "bitmap": name, "bitmap-mode": "always", "auto-dismiss": False}
            qmp.execute("blockdev-backup", **where, **how)

        yield begin
        _finish(qmp, name)


def _flush(drive: Path) -> None:
    """Have written what QEMU will write when it stops, while nothing moves: so that there is little to do."""
    with drive.open("rb+") as file:
        os.fdatasync(file.fileno())


def _finish(qmp: Qmp, job: str) -> None:
    while True:
        found = next(each for each in qmp.execute("query-jobs") if each["id"] == job)
        if found["status"] == "concluded":
            break
        time.sleep(_STEP)
    qmp.execute("job-dismiss", id=job)
    if "error" in found:
        raise QmpRefused("a copy of its drive", str(found["error"]))


@contextlib.contextmanager
def _lent(qmp: Qmp, descriptor: int, mode: int) -> Iterator[str]:
    """Lend QEMU a file of ours; yields the name it has there."""
    opened = os.open(memory.path_of(descriptor), mode | os.O_CLOEXEC)
    try:
        number = qmp.lend(opened)
    finally:
        os.close(opened)
    try:
        yield f"/dev/fdset/{number}"
    finally:
        qmp.execute("remove-fd", **{"fdset-id": number})
