"""Frozen machines: a spare one's whole QEMU, kept as files in memory that others begin as (launch/native/frozen.h).

What QEMU has translated of the guest's kernel is nothing that a machine's state has, and takes ten times as long to do
again as everything else of a start. So the process is kept, and not the machine: with its memory, threads and
descriptors, at the moment when it stands still.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from trivet.base.error import Internal, TrivetError
from trivet.hypervisor import memory
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.template import MEMORY_NAME
from trivet.isolation import cell, machine
from trivet.isolation.plan import Plan
from trivet.launch import launcher

FREEZE = Path(launcher.__file__).with_name("bin") / "trivet-freeze"
_PATIENCE = 60.0
_ATTEMPTS, _STEP = 10, 0.2
_STREAMS = (0, 1, 2)

log = logging.getLogger(__name__)


class CannotFreeze(Internal):
    """A machine that can't be kept."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"cannot keep a spare machine for others to begin as: {cause}")


class Frozen(msgspec.Struct, frozen=True):
    """Descriptors of sealed files: the guest's memory, and the rest of QEMU."""

    memory: int
    rest: int

    def close(self) -> None:
        """Let go of them; who began as this machine keeps what it needs."""
        for descriptor in (self.memory, self.rest):
            os.close(descriptor)


class Freezer:
    """The frozen machines of one engine, by what they are of; of those that were wanted last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, Frozen] = {}
        self._refused = not (FREEZE.exists() and cell.THAW.exists())
        self._lock = threading.Lock()

    def hold(self, key: str) -> Frozen | None:
        """Duplicate one, so that it can be let go of meanwhile; None when there is none."""
        with self._lock:
            found = self._kept.pop(key, None)
            if found is None:
                return None
            self._kept[key] = found  # the last one wanted
            return Frozen(os.dup(found.memory), os.dup(found.rest))

    def keep(self, key: str, plan: Plan, pid: int) -> bool:
        """Freeze a spare, unless there is one; whether there is one now. What can't be once is not tried again."""
        if self._refused or key in self._kept:
            return key in self._kept
        try:
            made = _patiently(lambda: freeze(plan, pid))
        except (TrivetError, OSError) as error:
            log.warning("%s", error)
            self._refused = True
            return False
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._most:
                self._kept.pop(next(iter(self._kept))).close()
        return True

    def refuse(self, key: str) -> None:
        """Give one up that nothing could begin as, and all that would come."""
        with self._lock:
            self._refused = True
            if key in self._kept:
                self._kept.pop(key).close()

    def drop(self) -> None:
        """Let go of all."""
        with self._lock:
            for each in self._kept.values():
                each.close()
            self._kept.clear()


def freeze(plan: Plan, pid: int) -> Frozen:
    """Keep a spare machine that stands still, and goes on standing still. Raises `CannotFreeze`."""
    with contextlib.ExitStack() as undo:
        made = [memory.make(MEMORY_NAME), memory.make("trivet-frozen")]
        for descriptor in made:
            undo.callback(os.close, descriptor)
        with Qmp(Path(plan.directory, machine.QMP)) as qmp:
            generation = str(qmp.execute("query-vm-generation-id")["guid"]).replace("-", "")
        _run(pid, generation, made, given(plan))
        for descriptor in made:
            memory.seal(descriptor)
        undo.pop_all()
        return Frozen(*made)


def _patiently(act: Callable[[], Frozen]) -> Frozen:
    """Do it again if it fails: QEMU may not have heard yet that who spoke with it has gone."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(CannotFreeze):
            return act()
        time.sleep(_STEP)
    return act()


def given(plan: Plan) -> tuple[str, ...]:
    """List the descriptors that any spare is given, with the files of this one's that QEMU has under other numbers."""
    files = {
        cell.IMAGE: plan.root.lowers[0],
        cell.UPPER: plan.root.upper,
        cell.CONSOLE: f"{plan.directory}/{machine.CONSOLE}",
    }
    same = (*_STREAMS, machine.AGENT_DESCRIPTOR, cell.CONTROL, machine.MEMORY_DESCRIPTOR)
    return (*map(str, same), *(f"{number}={path}" for number, path in files.items()))


def _run(pid: int, generation: str, made: list[int], words: tuple[str, ...]) -> None:
    numbers = (machine.MEMORY_DESCRIPTOR, made[1], made[0])
    command = [str(FREEZE), str(pid), generation, *map(str, numbers), *words]
    try:
        subprocess.run(command, pass_fds=made, capture_output=True, check=True, timeout=_PATIENCE)
    except subprocess.CalledProcessError as error:
        raise CannotFreeze(error.stderr.decode(errors="replace").strip() or f"status {error.returncode}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotFreeze(str(error)) from error
