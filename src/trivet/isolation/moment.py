"""Saving a machine of its own while it runs, with its memory, and letting it go on from there.

place/upper   its disks and what firmware and TPM remember, of the same moment
place/state   memory and devices, as QEMU's migration stream
place/key     what the machine must have in common with what was saved

The memory is written while the guest runs; it stands still for what it changes last, and while its disks are copied.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from trivet.base.error import Conflict, Corrupt, Exhausted, Internal, Unsupported
from trivet.hypervisor import program
from trivet.hypervisor.qmp import Qmp, QmpRefused
from trivet.isolation import computer, slot
from trivet.isolation.driver import Saved
from trivet.isolation.plan import Plan

UPPER, STATE, KEY = "upper", "state", "key"
PATIENCE = 900.0
_FAST = {"max-bandwidth": 1 << 40, "downtime-limit": 200}


class SavedOtherwise(Unsupported):
    """A machine that isn't what it was when it was saved."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"machine {name} cannot go on from what was saved: QEMU, or the machine's processors, memory or devices "
            "were others then"
        )


def check_saving(plan: Plan) -> None:
    """Refuse one that shares directories, has devices of the host, or whose interfaces are elsewhere than at a start.

    Raises `Conflict`.
    """
    if plan.mounts:
        raise Conflict(
            f"cannot save the memory of machine {plan.name}: what it has open in shared directories is not in it",
            hint=f"trivet vm stop {plan.name} first",
        )
    if computer.hardware(plan).pci:
        raise Conflict(
            f"cannot save the memory of machine {plan.name}: what a device of the host does is not in it",
            hint=f"trivet vm stop {plan.name} first",
        )
    with Qmp(Path(plan.directory, computer.QMP)) as qmp:
        found = slot.layout(qmp)
    taps = [use for use in plan.attachments if use.kind != "none"]
    nics = [computer.nic(use, number) for number, use in enumerate(taps)]
    if found != sorted(f"{nic.device}={nic.mac}".lower() for nic in nics if nic.movable):
        raise Conflict(
            f"cannot save the memory of machine {plan.name}: a network in the middle was taken from it while it ran",
            hint=f"trivet vm stop {plan.name}, and start it",
        )


def save(plan: Plan, place: Path, *, go_on: bool) -> float:
    """Save memory, devices and disks into a new directory; seconds the machine stood still."""
    place.mkdir(mode=0o700)
    try:
        with (place / STATE).open("xb") as state, Qmp(Path(plan.directory, computer.QMP), PATIENCE) as qmp:
            seconds = _save(plan, qmp, state.fileno(), place, go_on=go_on)
            os.fsync(state.fileno())
        (place / KEY).write_text(key_of(plan))
    except QmpRefused as error:
        shutil.rmtree(place, ignore_errors=True)
        if shutil.disk_usage(place.parent).free < 16 << 20:
            raise Exhausted(f"cannot save machine {plan.name}: the disk is full") from error
        raise
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return seconds


@contextlib.contextmanager
def opened(place: Path) -> Iterator[Saved]:
    """Open what was saved. Raises `Corrupt`."""
    try:
        descriptor, key = os.open(place / STATE, os.O_RDONLY | os.O_CLOEXEC), (place / KEY).read_text()
    except OSError as error:
        raise Corrupt(f"what was saved in {place} cannot be read: {error.strerror or error}") from error
    try:
        yield Saved(memory=descriptor, state=descriptor, key=key)
    finally:
        os.close(descriptor)


def check(plan: Plan, saved: Saved) -> None:
    """Refuse what can't go on. Raises `Unsupported`."""
    if saved.key != key_of(plan):
        raise SavedOtherwise(plan.name)


def key_of(plan: Plan) -> str:
    """Name what a machine must have in common with what was saved of it."""
    parts = computer.hardware(plan)
    words: list[object] = [program.version(program.QEMU.find() or program.QEMU.name), computer.memory(plan)]
    words += [plan.limits.cpus, parts.firmware, parts.secure_boot, parts.tpm, parts.watchdog, len(parts.cdroms)]
    words += [
        "sockets panic",
        parts.netboot is not None,
        *(disk.name for disk in parts.disks),
        len(plan.attachments),
        *(each.name for each in parts.usb),
        parts.seed is not None,
    ]
    return " ".join(map(str, words))


def copy(plan: Plan, qmp: Qmp, place: Path) -> float:
    """Copy the disks while the machine stands still, without its memory; seconds it did."""
    begun = time.monotonic()
    qmp.pause()
    try:
        _copy(Path(plan.root.upper), place / UPPER)
    finally:
        qmp.resume()
    return time.monotonic() - begun


def _save(plan: Plan, qmp: Qmp, state: int, place: Path, *, go_on: bool) -> float:
    qmp.execute("migrate-set-parameters", **_FAST)
    stopped = time.monotonic()
    try:
        qmp.give("state", state)
        qmp.execute("migrate", uri="fd:state")
        while qmp.execute("query-migrate").get("status") in ("setup", "active", "device"):
            if qmp.status() in ("running", "prelaunch"):
                stopped = time.monotonic()
            time.sleep(0.02)
        answer = qmp.execute("query-migrate")
        if answer.get("status") != "completed":
            raise QmpRefused("to save its memory", str(answer.get("error-desc", answer.get("status"))))
        _copy(Path(plan.root.upper), place / UPPER)
    except BaseException:
        go_on = True
        raise
    finally:
        if go_on:
            qmp.resume()
    if not go_on:
        qmp.execute("quit")
    return time.monotonic() - stopped


def _copy(source: Path, target: Path) -> None:
    done = subprocess.run(
        ["cp", "-a", "--reflink=auto", "--sparse=auto", "--", str(source), str(target)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise Internal(f"cannot copy the disks: {done.stderr.decode(errors='replace').strip().splitlines()[-1]}")
