"""Saving a machine whose program runs, and beginning others as its copies.

place/{memory,state,sums}   see hypervisor/stored.py
place/drive                 the writable drive, of the same moment
place/key                   what a copy must have in common with it
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trivet.base.error import Corrupt, Internal, Unsupported
from trivet.hypervisor import capture, memory, stored
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.template import MEMORY_NAME, digest, shape_of
from trivet.isolation import boot, guest, machine
from trivet.isolation.driver import Saved
from trivet.isolation.elastic import elastic
from trivet.isolation.plan import Plan
from trivet.isolation.resize import Shape, parse, untouched
from trivet.launch.channel import Channel
from trivet.launch.frame import Type

DRIVE, KEY = "drive", "key"
_PATIENCE = 600.0  # for a large drive to be copied
_ANSWER = 20.0


class Key(msgspec.Struct, frozen=True):
    """What a copy must have in common with what was saved: a digest, and what the machine was started with."""

    digest: str
    shape: Shape


class CannotSave(Unsupported):
    """An instance whose memory can't be saved, or its copy can't begin."""

    def __init__(self, plan: Plan, cause: str, hint: str | None = None) -> None:
        super().__init__(f"cannot save the memory of instance {plan.name}: {cause}", hint=hint)


class SavedByAnother(Unsupported):
    """What was saved under conditions that are no more."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(
            f"cannot let instance {plan.name} go on from what was saved: QEMU, the guest's kernel or the instance's "
            "memory, processors or networks were others then"
        )


def check(plan: Plan) -> None:
    """Refuse what can't be saved. Raises `CannotSave`."""
    if shares := guest.shared(plan):
        targets = ", ".join(mount.target for mount in shares)
        raise CannotSave(plan, f"a file server on the host knows what it has open below {targets}")


def check_whole(plan: Plan, shape: Shape) -> None:
    """Refuse a machine that has grown since it was started: copies begin with what it had then. Raises `CannotSave`."""
    if not untouched(plan, shape):
        cause = "it has been given memory or processors since it was started"
        raise CannotSave(plan, cause, f"trivet restart {plan.name}")


def save(plan: Plan, pid: int, key: Key, place: Path, *, go_on: bool) -> float:
    """Save memory, devices and drive into a new directory; seconds the machine stood still."""
    check(plan)
    place.mkdir(mode=0o700)
    try:
        return _save(plan, pid, key, place, go_on=go_on)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _save(plan: Plan, pid: int, key: Key, place: Path, *, go_on: bool) -> float:
    with (place / DRIVE).open("xb+") as drive, Qmp(Path(plan.directory, machine.QMP), _PATIENCE) as qmp:
        upper, quiet = Path(plan.root.upper), _quiet(plan, go_on=go_on)
        made, seconds = capture.capture(qmp, capture.find(pid), upper, drive.fileno(), quiet, go_on=go_on)
        try:
            stored.store(made, place)
            os.fsync(drive.fileno())
            (place / KEY).write_text(f"{key.digest} {key.shape.memory} {key.shape.cpus}\n")
        except BaseException:
            if not go_on:
                qmp.resume()
            raise
        finally:
            made.close()
        if not go_on:
            qmp.execute("quit")
    return seconds


@contextlib.contextmanager
def opened(place: Path) -> Iterator[Saved]:
    """Load what was saved, to be begun with any number of times. Raises `Corrupt`."""
    try:
        digest_, _, rest = (place / KEY).read_text().partition(" ")
        shape, found = parse(rest), stored.load(place)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise Corrupt(f"what was saved in {place} cannot be read: {cause}") from error
    try:
        yield Saved(memory=found.memory, state=found.state, key=digest_, size=shape.memory, cpus=shape.cpus)
    finally:
        found.close()


@contextlib.contextmanager
def contents(plan: Plan, saved: Saved) -> Iterator[int]:
    """Give the memory to begin with; an elastic instance needs a copy of its own, of which its balloon gives back."""
    if not elastic(plan):
        yield saved.memory
        return
    made = memory.make(MEMORY_NAME)
    try:
        memory.copy(saved.memory, made)
        yield made
    finally:
        os.close(made)


def key_of(plan: Plan, host: machine.Host) -> str:
    """Name what a copy must have in common with the saved machine."""
    made = machine.machine(plan, host)
    return f"{digest(shape_of(made))}-{len(made.nics)}p"  # in the first of the slots


@contextlib.contextmanager
def _quiet(plan: Plan, *, go_on: bool) -> Iterator[None]:
    """Let no frame be under way between monitor and agent. The mark is for an engine that finds the machine stopped."""
    mark = Path(plan.directory, "paused")
    with Channel.connect(Path(plan.directory, "monitor.sock")) as channel:
        channel.greet(_ANSWER)
        channel.send(Type.HOLD)
        try:
            while (frame := channel.receive(_ANSWER)) is not None and frame.type is Type.STARTED:
                pass  # it has only just begun
        except TimeoutError:
            raise boot.AgentSilent(plan.name, _ANSWER) from None
        if frame is None or frame.type is not Type.HELD:
            raise Internal(f"cannot save the memory of instance {plan.name}: it has just ended")
        mark.touch()
        try:
            yield
        except BaseException:
            go_on = True
            raise
        finally:
            if go_on:
                mark.unlink(missing_ok=True)
                channel.send(Type.RELEASE)
