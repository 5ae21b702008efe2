"""How an instance's machine begins: a spare one becomes it, it is forked from a template, or it boots.

Each way falls back to the next; a machine that hangs while it boots is replaced once.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path

import msgspec

from trivet.base.error import TrivetError
from trivet.hypervisor.machine import Acceleration
from trivet.hypervisor.template import Templates
from trivet.isolation import boot, fork, guest, machine, provision, resize, standby
from trivet.isolation.failure import explain
from trivet.isolation.local import group
from trivet.isolation.plan import Plan
from trivet.isolation.pool import Pool
from trivet.launch.channel import Channel
from trivet.launch.operation import Operation
from trivet.launch.spawn import LaunchError, LaunchTimeout, spawn
from trivet.runtime import life

_PATIENCE = {Acceleration.KVM: 20.0, Acceleration.EMULATION: 60.0}
"""Seconds until a machine that hasn't answered is given up; a machine or two in a hundred hangs when it boots."""
_ATTEMPTS = 2
log = logging.getLogger(__name__)

_LEFT = (
    "monitor.sock",
    "pid",
    "exit",
    "paused",
    machine.CONSOLE,
    machine.QMP,
    machine.SHARE_SOCKET,
    fork.ORIGIN,
    fork.AWAKE,
    resize.SHAPE,
    resize.PROCESSORS,
)


class Nursery:
    """Where the machines of one engine begin."""

    def __init__(self, cache: Path, spares: int) -> None:
        self.cache = cache
        self.templates = Templates(cache / "template")
        self.pool = Pool(cache, self.templates, spares)
        # Machines that all come up at the same time take longer than one after the other, and seem to hang.
        self.turns = threading.BoundedSemaphore(2 * (os.cpu_count() or 1))

    def start(self, plan: Plan) -> Channel:
        """Take a spare machine, fork one, or boot one, and set the program up in it; it waits for `Channel.go()`."""
        host = provision.acquire(self.cache, plan, template=True)
        with self.turns:
            begun, reason = self._begin(plan, host)
            return begun or self._boot(plan, reason)

    def instead(self, plan: Plan, steps: tuple[Operation, ...]) -> Channel:
        """Carry something out in a machine of the plan's instead of its program. Raises `CannotFork`."""
        with self.turns:
            begun, reason = self._begin(plan, provision.acquire(self.cache, plan, template=True), steps)
        if begun is None:
            raise fork.CannotFork(reason)
        return begun

    def _begin(
        self, plan: Plan, host: machine.Host, instead: tuple[Operation, ...] | None = None
    ) -> tuple[Channel | None, str]:
        begun, reason = self._become(plan, host, instead), ""
        if begun is None:
            begun, reason = self._fork(plan, host, instead)
        if begun:
            self.pool.want(plan, host, _PATIENCE[host.acceleration])
        return begun, reason

    def _become(self, plan: Plan, host: machine.Host, instead: tuple[Operation, ...] | None = None) -> Channel | None:
        """Let a spare machine become the instance's; None when there is none that can."""
        found = self.pool.take(plan, host, _PATIENCE[host.acceleration])
        if found is None:
            return None
        clear(plan)
        try:
            return standby.become(found, plan, host, _PATIENCE[host.acceleration], instead)
        except (LaunchError, TrivetError, OSError) as error:
            found.channel.close()
            standby.remove(found.plan)
            if isinstance(error, LaunchError):
                raise _explain(plan, error, forked=True) from error
            log.warning("a spare machine cannot become instance %s's: %s", plan.name, error)
            return None

    def _fork(
        self, plan: Plan, host: machine.Host, instead: tuple[Operation, ...] | None = None
    ) -> tuple[Channel | None, str]:
        """Start the machine from a template; None and why when it has to boot instead."""
        patience = _PATIENCE[host.acceleration]
        clear(plan)
        try:
            with fork.prepared(self.templates, plan, host, patience) as ready:
                fork.note(plan, fork.FORKED)
                if ready.origin and instead:
                    origin = msgspec.structs.replace(ready.origin, instead=instead)
                    ready = msgspec.structs.replace(ready, origin=origin)
                return self.launch(plan, ready), ""
        except LaunchTimeout as error:
            return None, error.message
        except fork.CannotFork as error:
            if Path(plan.directory, fork.ORIGIN).exists():
                self.templates.forget(machine.machine(plan, host), error.message)
            return None, error.message

    def _boot(self, plan: Plan, reason: str) -> Channel:
        """Start the machine from nothing."""
        host = provision.acquire(self.cache, plan)
        patience = _PATIENCE[host.acceleration]
        for _ in range(_ATTEMPTS):
            clear(plan)
            fork.note(plan, fork.BOOTED, reason)
            try:
                return self.launch(plan, host)
            except LaunchTimeout:
                continue
        raise boot.MachineSilent(f"instance {plan.name}", patience, boot.console(plan))

    def launch(self, plan: Plan, host: machine.Host) -> Channel:
        """Start QEMU with what the host offers, and set the program up."""
        patience = _PATIENCE[host.acceleration]
        steps, forked, made = operations(plan, host), host.origin is not None, machine.machine(plan, host)
        resize.note(plan, made)
        silent = [nic.name for nic in made.nics] if host.origin and host.origin.changes else ()
        meanwhile = fork.wake(plan, made, silent) if forked else None
        try:
            return spawn(steps, timeout=patience, meanwhile=meanwhile)
        except LaunchError as error:
            raise _explain(plan, error, forked) from error


def _explain(plan: Plan, error: LaunchError, forked: bool) -> TrivetError:
    """Say what went wrong: a step on the host, the boot, or a step in the guest."""
    name, console = f"instance {plan.name}", boot.console(plan)
    if error.index == 0 and error.errno == errno.ECHILD:  # the monitor's word for a machine that ended
        ended = boot.ended(name, console, boot.machine_log(plan))
        return fork.CannotFork(ended.message) if forked else ended
    up = Path(plan.directory, fork.AWAKE).exists() if forked else boot.came_up(console)
    steps: list[Operation | None] = [*guest.launch(plan, forked=forked)] if up else []
    step = steps[error.index] if error.index < len(steps) else error.operation
    drives = {guest.IMAGE: plan.root.lowers[0], guest.DRIVE: plan.root.upper}
    cause = error.text or os.strerror(error.errno).lower()
    return boot.unmountable(step, drives, name, cause) or explain(step, error.errno, error.text, name)


def clear(plan: Plan) -> None:
    """End what an earlier start left, so that nothing of it is taken for this one's."""
    if not Path(plan.directory, "pid").exists():
        return
    life.clear(Path(plan.directory), group(plan))
    group(plan).create(machine.resources(plan))
    for name in _LEFT:
        Path(plan.directory, name).unlink(missing_ok=True)


def operations(plan: Plan, host: machine.Host) -> list[Operation]:
    """Compute what the launcher does on this host for a machine."""
    home = group(plan)
    return machine.launch(plan, host, home.joins, home.unified, home.reap)
