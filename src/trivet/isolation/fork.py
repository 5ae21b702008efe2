"""Starting a machine as a copy of its shape's template instead of booting it.

plan.directory/origin   "forked", or "booted" and why it was not forked
plan.directory/awake    there when a fork goes on
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from trivet.base.error import Internal, TrivetError
from trivet.hypervisor import memory
from trivet.hypervisor.machine import Machine
from trivet.hypervisor.qmp import Qmp, QmpRefused, QmpUnavailable
from trivet.hypervisor.template import MEMORY_NAME, Templates
from trivet.isolation import guest, machine
from trivet.isolation.elastic import elastic
from trivet.isolation.plan import Plan

FORKED, BOOTED, RESTORED = "forked", "booted", "restored"
_STEP = 0.002
_PATIENCE = 60.0
ORIGIN, AWAKE = "origin", "awake"
_TOLD = 2.0


class CannotFork(Internal):
    """A machine that has to boot after all."""


@contextlib.contextmanager
def prepared(templates: Templates, plan: Plan, host: machine.Host, patience: float) -> Iterator[machine.Host]:
    """Give the host the template of the plan's machine while it is being forked. Raises `CannotFork`."""
    with contextlib.ExitStack() as undo:
        try:
            template = undo.enter_context(templates.use(machine.machine(plan, host), patience))
        except (TrivetError, OSError) as error:
            raise CannotFork(str(error)) from error
        contents, shares = template.memory, bool(guest.shared(plan)) or elastic(plan)
        if shares:  # a file server has to see what is written, a balloon give it back: this one gets a copy of its own
            contents = memory.make(MEMORY_NAME)
            undo.callback(os.close, contents)
            memory.copy(template.memory, contents)
        origin = machine.Origin(memory=memory.path_of(contents), state=memory.path_of(template.state), writable=shares)
        yield msgspec.structs.replace(host, origin=origin)


def wake(plan: Plan, made: Machine, silent: Sequence[str] = ()) -> Callable[[Callable[[], bool]], None]:
    """Return what lets QEMU, once it listens, begin in its template's state; network cards named `silent` stay off."""

    def load(reported: Callable[[], bool]) -> None:
        connection = _connect(Path(plan.directory, machine.QMP), reported)
        if connection is None:  # it failed before there was a QEMU
            return
        try:
            with Qmp(Path(plan.directory, machine.QMP), patience=_PATIENCE, connection=connection) as qmp:
                qmp.load(machine.STATE_DESCRIPTOR)
                for device in made.late:
                    qmp.execute("device_add", **device)
                for name in silent:
                    qmp.execute("set_link", name=name, up=False)
                qmp.resume()
            Path(plan.directory, AWAKE).touch()
        except QmpUnavailable as error:
            if not _soon(reported):  # else the launcher tells more: it may never have come to QEMU
                raise CannotFork(error.message) from error
        except QmpRefused as error:
            raise CannotFork(error.message) from error

    return load


def go_on(plan: Plan) -> Callable[[Callable[[], bool]], None]:
    """Return what lets a QEMU that was frozen go on, once it listens again."""

    def resume(reported: Callable[[], bool]) -> None:
        connection = _connect(Path(plan.directory, machine.QMP), reported)
        if connection is None:
            return
        try:
            with Qmp(Path(plan.directory, machine.QMP), patience=_PATIENCE, connection=connection) as qmp:
                qmp.resume()
            Path(plan.directory, AWAKE).touch()
        except (QmpUnavailable, QmpRefused) as error:
            raise CannotFork(error.message) from error

    return resume


def _soon(reported: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _TOLD
    while not (said := reported()) and time.monotonic() < deadline:
        time.sleep(_STEP)
    return said


def note(plan: Plan, origin: str, reason: str = "") -> None:
    """Write down where the machine came from."""
    Path(plan.directory, ORIGIN).write_text(f"{origin} {reason}".strip())


def noted(plan: Plan) -> str:
    """Tell where the machine came from; "" when it hasn't started."""
    try:
        return Path(plan.directory, ORIGIN).read_text()
    except FileNotFoundError:
        return ""


def _connect(path: Path, reported: Callable[[], bool]) -> socket.socket | None:
    """Connect to QEMU as soon as it listens."""
    deadline = time.monotonic() + _PATIENCE
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    while not reported() and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):  # it is bound before it listens
            connection.connect(os.fspath(path))
            return connection
        time.sleep(_STEP)
    connection.close()
    return None
