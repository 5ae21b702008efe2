"""QEMU without a machine: what makes machines' disks, lets them grow, and copies them.

It reads what guests have written, so that it lives where their QEMU does (isolation/cell.py): a user of its own each
time, no capability, no network, no file in sight, QEMU's filter. Files are opened here and handed over; it is told
every format and what is below. An image whose header names further files, such as a data file, finds none.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trivet.base.error import Exhausted, Internal, TimedOut, TrivetError, Unsupported
from trivet.hypervisor import program
from trivet.hypervisor.machine import SANDBOX
from trivet.hypervisor.qmp import Qmp, QmpRefused, QmpUnavailable
from trivet.isolation import cell
from trivet.launch.operation import Exec, Operation, Propagation, Spawn
from trivet.launch.task import Completed, run
from trivet.runtime.mount import PROPAGATION
from trivet.runtime.namespace import FLAGS

Node = Mapping[str, Any]
"""A node of QEMU's block graph, as blockdev-add takes it."""
Count = Callable[[int, int], None]

_FIRST_USER = cell.FIRST_USER + 2 * cell.USERS  # neither a machine's nor its TPM's
_PATIENCE = 24 * 3600.0
_END = 600.0  # for what it still has to write out
_STEP = 0.05
_JOB = "job"
_PLACE = "/tmp"  # is there everywhere, and hidden only from itself


class DiskFailed(Internal):
    """A disk that QEMU could not make, read or write."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__(f"cannot {what}: {said or 'QEMU ended without a word'}")


class Tool:
    """QEMU with some disks open; `what` it is there for is for messages."""

    def __init__(self, qmp: Qmp, what: str) -> None:
        self.qmp = qmp
        self._what = what

    def hand(self, path: Path | str, *, writable: bool = False) -> int:
        """Hand a file over, to be opened as /dev/fdset/NUMBER, whose number this is."""
        return self.qmp.add_file(path, writable=writable)

    def add(self, node: Node) -> None:
        """Add a node to the graph. Raises `DiskFailed`."""
        with self._explaining():
            self.qmp.execute("blockdev-add", **node)

    def format(self, target: Path, size: int, base: Path | None = None) -> None:
        """Make an empty file a thin disk, perhaps over a raw `base`, which is named and not opened."""
        self.add(_file("new", self.hand(target, writable=True)))
        below = {"backing-file": os.fspath(base), "backing-fmt": "raw"} if base else {}
        options = {"driver": "qcow2", "file": "new", "size": size, "lazy-refcounts": True, **below}
        self._do("blockdev-create", options=options)
        self.qmp.execute("blockdev-del", **{"node-name": "new"})

    def resize(self, node: str, size: int) -> None:
        """Let a disk grow."""
        with self._explaining():
            self.qmp.execute("block_resize", **{"node-name": node, "size": size})

    def copy(self, node: str, target: Path, form: str, count: Count = lambda done, total: None) -> None:
        """Copy what a node shows to a file that shows as much and has nothing in it; what is empty stays so."""
        number = self.hand(target, writable=True)
        backing = {"backing": None} if form == "qcow2" else {}
        self.add({"driver": form, "node-name": "target", "discard": "unmap", "file": _file("", number), **backing})
        self._do("blockdev-mirror", count, device=node, target="target", sync="full", **{"auto-dismiss": False})
        self.qmp.execute("blockdev-del", **{"node-name": "target"})

    def _do(self, command: str, count: Count = lambda done, total: None, **arguments: object) -> None:
        with self._explaining():
            self.qmp.execute(command, **{"job-id": _JOB}, **arguments)
        while (job := self.qmp.execute("query-jobs")[0])["status"] != "concluded":
            count(job["current-progress"], job["total-progress"])
            if job["status"] == "ready":  # a mirror stays one until it is told that this was all
                with suppress(QmpRefused):
                    self.qmp.execute("block-job-cancel", device=_JOB)
            time.sleep(_STEP)
        self.qmp.execute("job-dismiss", id=_JOB)
        if job.get("error"):
            raise _failed(self._what, str(job["error"]))

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except QmpRefused as error:
            raise _failed(self._what, error.description) from error


@contextmanager
def opened(what: str) -> Iterator[Tool]:
    """Have such a QEMU while the block runs. Raises `DiskFailed`, `Unsupported` when it isn't installed."""
    found = program.QEMU.find()
    if found is None:
        raise Unsupported(
            f"cannot {what}: {program.QEMU.name} is not installed", hint="apt-get install qemu-system-x86"
        )
    gone = threading.Event()
    ours, theirs = socket.socketpair()
    with ThreadPoolExecutor(1) as worker:
        task = worker.submit(run, operations(found), input=theirs.fileno(), check=lambda: _until(gone))
        task.add_done_callback(lambda _: theirs.close())  # so that nobody waits for an answer of one that is gone
        try:
            with Qmp(Path("QEMU"), _PATIENCE, connection=ours) as qmp:
                try:
                    yield Tool(qmp, what)
                finally:
                    _end(qmp, task)
        except QmpUnavailable as error:
            raise DiskFailed(what, _last_words(task)) from error
        finally:
            gone.set()


def operations(found: str) -> list[Operation]:
    """Compute what the launcher does; control is by the socket that is its standard input."""
    argv = [found, "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-sandbox", SANDBOX]
    argv += ["-chardev", "socket,id=qmp,fd=0", "-mon", "chardev=qmp,mode=control"]
    return [
        Spawn(flags=FLAGS["mount"] | FLAGS["pid"]),
        Propagation("/", PROPAGATION["rslave"]),
        *cell.around(_PLACE, [], accelerated=False),
        *cell.rights(_FIRST_USER + secrets.randbelow(cell.USERS), accelerated=False),
        Exec(tuple(argv), ("PATH=/usr/bin:/bin", "LC_ALL=C")),
    ]


class _Over(Exception):
    """Nobody waits for it any more."""


def _until(gone: threading.Event) -> None:
    if gone.is_set():
        raise _Over


def _end(qmp: Qmp, task: Future[Completed]) -> None:
    """Let it write out what it has."""
    with suppress(TrivetError):
        qmp.execute("quit")
    with suppress(TimeoutError, Exception):
        task.result(_END)


def _last_words(task: Future[Completed]) -> str:
    try:
        said = task.result(5).error_output.decode(errors="replace").strip().splitlines()
    except TimeoutError:
        raise TimedOut("QEMU does not answer") from None
    return said[-1] if said else ""


def _failed(what: str, said: str) -> TrivetError:
    if "No space left" in said:
        return Exhausted(f"cannot {what}: no space left on device", hint="trivet system prune")
    return DiskFailed(what, said)


def _file(name: str, number: int) -> dict[str, Any]:
    named = {"node-name": name} if name else {}
    return {"driver": "file", "filename": f"/dev/fdset/{number}", "discard": "unmap", **named}
