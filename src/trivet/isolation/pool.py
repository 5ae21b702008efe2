"""Which spare machines there are: of the shapes that were started last, made in the background and given back.

One is made when an instance of its shape has started, at a low priority. It goes when nobody has wanted it for
some minutes, when memory becomes scarce, and with the engine. The first of its shape is frozen where guests are
emulated: those that follow go on as it, also when they are asked for and none is waiting.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trivet.base.error import TrivetError
from trivet.hypervisor.machine import Acceleration
from trivet.hypervisor.template import Templates, digest, shape_of
from trivet.isolation import machine, standby, warm
from trivet.isolation.frozen import Freezer
from trivet.isolation.plan import Plan
from trivet.isolation.standby import Standby
from trivet.kernel import procfs
from trivet.launch.monitor import read_process
from trivet.launch.spawn import LaunchError, LaunchTimeout

SHAPES = 2
"""Of which there are spares."""
KEPT = 600.0
"""Seconds that one waits."""
_GLANCE = 5.0
_LEISURE = 10
"""By how much others come first: on a busy host they get ten times as much, and a spare is made all the same."""
_FAILURES = 3

log = logging.getLogger(__name__)


class _Wish(msgspec.Struct, frozen=True):
    """Whose kind of spare is wanted."""

    plan: Plan
    host: machine.Host
    patience: float


class Pool:
    """The spares of one engine, `count` of each shape."""

    def __init__(self, cache: Path, templates: Templates, count: int) -> None:
        self._cache, self._templates, self._count = cache, templates, count
        self._waiting: dict[str, list[Standby]] = {}
        self._wanted: dict[str, _Wish] = {}
        self._making: list[Plan] = []
        self._freezer = Freezer(SHAPES)
        self._failed = 0
        self._closed = False
        self._worker: threading.Thread | None = None
        self._changed = threading.Condition()

    def take(self, plan: Plan, host: machine.Host, patience: float) -> Standby | None:
        """Take a spare for an instance, if there is one that fits, or one like it can be thawed."""
        if not self._count or not standby.fits(plan):
            return None
        key = _key(plan, host)
        with self._changed:
            waiting = self._waiting.get(key)
            if waiting:
                return waiting.pop()
        return self._thaw(key, _Wish(plan, host, patience))

    def want(self, plan: Plan, host: machine.Host, patience: float) -> None:
        """Have spares made for those who come after this instance."""
        if not self._count or not standby.fits(plan):
            return
        with self._changed:
            key = _key(plan, host)
            self._wanted.pop(key, None)
            self._wanted[key] = _Wish(plan, host, patience)
            self._waiting.setdefault(key, [])
            if self._worker is None and not self._closed:
                self._worker = threading.Thread(target=self._work, name="spare", daemon=True)
                self._worker.start()
            self._changed.notify_all()

    def waiting(self) -> tuple[str, ...]:
        """Name the run directories of those that wait."""
        with self._changed:
            return tuple(each.plan.directory for waiting in self._waiting.values() for each in waiting)

    def drop(self) -> None:
        """Remove those that wait."""
        with self._changed:
            gone = [each for waiting in self._waiting.values() for each in waiting]
            self._wanted.clear()
            self._waiting.clear()
        self._freezer.drop()
        for each in gone:
            _remove(each)

    def close(self) -> None:
        """End them all, also the one that is being made."""
        with self._changed:
            self._closed, worker, making = True, self._worker, list(self._making)
            self._changed.notify_all()
        self.drop()
        for each in making:
            standby.remove(each)
        if worker:
            worker.join(_GLANCE)
        self.drop()

    # --- in the background --------------------------------------------------------------------------

    def _work(self) -> None:
        usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), usual + _LEISURE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next() is not None, _GLANCE)
                if self._closed:
                    return
                key = self._next()
            self._give_back()
            if key is not None:
                self._make(key)

    def _next(self) -> str | None:
        shapes = list(self._wanted)[-SHAPES:]
        return next((key for key in reversed(shapes) if len(self._waiting[key]) < self._count), None)

    def _make(self, key: str) -> None:
        with self._changed:
            wish = self._wanted.get(key)
        if wish is None or not standby.kept(machine.DEFAULT_MEMORY, procfs.memory):
            with self._changed:
                self._wanted.pop(key, None)
            return
        try:
            made = self._thaw(key, wish) or self._first(key, wish)
        except (TrivetError, OSError, LaunchError, LaunchTimeout) as error:
            log.warning("cannot make a spare machine: %s", error)
            with self._changed:
                self._failed += 1
                if self._wanted.get(key) is wish:  # and no newer wish, which may do better
                    self._wanted.pop(key)  # until the next start; if it is no accident, not at all
                self._count = 0 if self._failed >= _FAILURES else self._count
            return
        with self._changed:
            if not self._closed and key in self._waiting:
                self._failed = 0
                self._waiting[key].append(made)
                return
        _remove(made)

    def _thaw(self, key: str, wish: _Wish) -> Standby | None:
        """Let the frozen one go on as another; None when there is none, or it can't."""
        frozen = self._freezer.hold(key)
        if frozen is None:
            return None
        try:
            with self._planned(wish) as (plan, upper):
                return standby.thaw(frozen, plan, upper, wish.host, wish.patience)
        except (TrivetError, OSError, LaunchError, LaunchTimeout) as error:
            log.warning("cannot go on as a frozen machine: %s", error)
            if not self._closed:
                self._freezer.refuse(key)
            return None
        finally:
            frozen.close()

    def _first(self, key: str, wish: _Wish) -> Standby:
        """Fork one from its template. If it can be frozen it is another one that waits: with less memory of its own."""
        made = self._fork(wish)
        process = read_process(Path(made.plan.directory))
        emulated = wish.host.acceleration is Acceleration.EMULATION
        if not process or not emulated or not self._freezer.keep(key, made.plan, process.pid):
            return made
        self._templates.unload(machine.machine(made.plan, wish.host))
        follows = self._thaw(key, wish)
        if follows is None:
            return made
        _remove(made)
        return follows

    def _fork(self, wish: _Wish) -> Standby:
        with self._planned(wish) as (plan, upper):
            standby.sweep(Path(wish.plan.directory).parent, str(Path(wish.plan.cgroup).parent), self._known())
            return standby.make(self._templates, plan, upper, wish.host, wish.patience)

    @contextlib.contextmanager
    def _planned(self, wish: _Wish) -> Iterator[tuple[Plan, Path]]:
        """Plan a spare, of which is known that it is being made, and the writable drive it gets a copy of."""
        image, upper = warm.drives(self._cache)
        plan = standby.planned(wish.plan, image)
        with self._changed:
            self._making.append(plan)
        try:
            yield plan, upper
        finally:
            with self._changed:
                self._making.remove(plan)

    def _give_back(self) -> None:
        """Remove what nobody has wanted for long, or whose memory others need."""
        enough, now = standby.kept(0, procfs.memory), time.monotonic()
        with self._changed:
            shapes = list(self._wanted)[-SHAPES:]
            gone = [
                each
                for key, waiting in self._waiting.items()
                for each in waiting
                if not enough or key not in shapes or now - each.made > KEPT
            ]
            for key, waiting in self._waiting.items():
                self._waiting[key] = [each for each in waiting if each not in gone]
                if len(waiting) > len(self._waiting[key]):
                    self._wanted.pop(key, None)
        if not enough:
            self._freezer.drop()
        for each in gone:
            _remove(each)

    def _known(self) -> set[str]:
        with self._changed:
            making = [each.directory for each in self._making]
        return {Path(place).name for place in (*self.waiting(), *making)}


def _key(plan: Plan, host: machine.Host) -> str:
    return digest(shape_of(machine.machine(plan, host)))


def _remove(gone: Standby) -> None:
    gone.channel.close()
    standby.remove(gone.plan)
