"""Which spare machines there are: of the shapes that were started last, made in the background and given back.

One is made when an instance of its shape has started, at a low priority. It goes when nobody has wanted it for
some minutes, when memory becomes scarce, and with the engine.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.hypervisor.template import Templates, digest, shape_of
from trivet.isolation import machine, standby, warm
from trivet.isolation.plan import Plan
from trivet.isolation.standby import Standby
from trivet.kernel import procfs
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


class Pool:
    """The spares of one engine, `count` of each shape."""

    def __init__(self, cache: Path, templates: Templates, count: int) -> None:
        self._cache, self._templates, self._count = cache, templates, count
        self._waiting: dict[str, list[Standby]] = {}
        self._wanted: dict[str, Callable[[], Standby]] = {}
        self._making: Plan | None = None
        self._failed = 0
        self._closed = False
        self._worker: threading.Thread | None = None
        self._changed = threading.Condition()

    def take(self, plan: Plan, host: machine.Host) -> Standby | None:
        """Take a spare for an instance, if there is one that fits."""
        if not self._count or not standby.fits(plan):
            return None
        key = _key(plan, host)
        with self._changed:
            waiting = self._waiting.get(key)
            return waiting.pop() if waiting else None

    def want(self, plan: Plan, host: machine.Host, patience: float) -> None:
        """Have spares made for those who come after this instance."""
        if not self._count or not standby.fits(plan):
            return

        def make() -> Standby:
            image, upper = warm.drives(self._cache)
            planned = self._making = standby.planned(plan, image)
            standby.sweep(Path(plan.directory).parent, str(Path(plan.cgroup).parent), self._known())
            return standby.make(self._templates, planned, upper, host, patience)

        with self._changed:
            key = _key(plan, host)
            self._wanted.pop(key, None)
            self._wanted[key] = make
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
        for each in gone:
            _remove(each)

    def close(self) -> None:
        """End them all, also the one that is being made."""
        with self._changed:
            self._closed, worker, making = True, self._worker, self._making
            self._changed.notify_all()
        self.drop()
        if making:
            standby.remove(making)
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
            make = self._wanted.get(key)
        if make is None or not standby.kept(machine.DEFAULT_MEMORY, procfs.memory):
            with self._changed:
                self._wanted.pop(key, None)
            return
        try:
            made = make()
        except (TrivetError, OSError, LaunchError, LaunchTimeout) as error:
            log.warning("cannot make a spare machine: %s", error)
            with self._changed:
                self._failed += 1
                if self._wanted.get(key) is make:  # and no newer wish, which may do better
                    self._wanted.pop(key)  # until the next start; if it is no accident, not at all
                self._count = 0 if self._failed >= _FAILURES else self._count
            return
        finally:
            self._making = None
        with self._changed:
            if not self._closed and key in self._waiting:
                self._failed = 0
                self._waiting[key].append(made)
                return
        _remove(made)

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
        for each in gone:
            _remove(each)

    def _known(self) -> set[str]:
        places = (*self.waiting(), *((self._making.directory,) if self._making else ()))
        return {Path(place).name for place in places}


def _key(plan: Plan, host: machine.Host) -> str:
    return digest(shape_of(machine.machine(plan, host)))


def _remove(gone: Standby) -> None:
    gone.channel.close()
    standby.remove(gone.plan)
