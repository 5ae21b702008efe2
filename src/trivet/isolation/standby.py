"""Standby machines: forked, warmed up and stopped, to become whoever's comes next.

plan.directory/../spare-ID   a spare's run directory; what is in it moves to the instance's

A spare has drives of nobody's, no network and no program. Its instance's drives take the place of the former, its
interface is plugged in, and its monitor hears whose it is. What made it stays connected: without that it ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from trivet.hypervisor import exchange, memory
from trivet.hypervisor.machine import Machine
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.template import Templates
from trivet.hypervisor.urgency import ordinary
from trivet.isolation import cell, fork, guest, machine, resize, warm
from trivet.isolation.elastic import elastic
from trivet.isolation.frozen import Frozen
from trivet.isolation.local import group, layout
from trivet.isolation.plan import Log, Plan, Program, Root
from trivet.kernel import tap
from trivet.kernel.cgroup import Group
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.monitor import read_process
from trivet.launch.operation import Monitor, Operation, Relay, encode
from trivet.launch.spawn import launch_error, spawn
from trivet.runtime import life

PREFIX = "spare-"
_MOVED = ("monitor.sock", "pid", machine.QMP, machine.CONSOLE, "machine.log")
_SCRATCH = "upper"


class Standby(msgspec.Struct, frozen=True):
    """A machine that waits; the channel is what keeps it."""

    plan: Plan
    channel: Channel
    made: float


def fits(plan: Plan) -> bool:
    """Tell whether a spare can become the instance's: it has so many slots, and memory that others share.

    One is made beside the instance's control group, where nobody would look for it if that isn't the engine's place.
    """
    taps = [attachment for attachment in plan.attachments if attachment.kind == "tap"]
    at_home = Path(plan.cgroup).name == Path(plan.directory).name
    return at_home and not guest.shared(plan) and not elastic(plan) and len(taps) <= len(machine.sockets(shared=False))


def planned(model: Plan, image: Path) -> Plan:
    """Plan a spare of the same shape as an instance, for nobody."""
    name = f"{PREFIX}{secrets.token_hex(4)}"
    directory = Path(model.directory).parent / name
    return Plan(
        id=name,
        name=name,
        level=model.level,
        program=Program(argv=("/",)),
        root=Root(form="drive", lowers=(str(image),), upper=str(directory / _SCRATCH)),
        directory=str(directory),
        cgroup=str(Path(model.cgroup).parent / name),
        log=Log(path=""),
        security=msgspec.structs.replace(model.security, privileged=False),
        hostname="spare",
        limits=msgspec.structs.replace(model.limits, cpu_shares=0, cpuset="", pids=0),
    )


def make(templates: Templates, plan: Plan, scratch: Path, host: machine.Host, patience: float) -> Standby:
    """Fork a machine, have it warm up, and stop it. Raises `CannotFork`, and what launching and QMP do."""
    with contextlib.ExitStack() as undo:
        undo.callback(remove, plan)
        _prepare(plan, scratch)
        with fork.prepared(templates, plan, host, patience) as ready:
            assert ready.origin
            ready = msgspec.structs.replace(ready, origin=msgspec.structs.replace(ready.origin, spare=True))
            made, home = machine.machine(plan, ready), group(plan)
            steps = machine.launch(plan, ready, home.joins, home.unified, home.reap)
            channel = spawn(steps, timeout=patience, meanwhile=fork.wake(plan, made))
        undo.callback(channel.close)
        with Qmp(Path(plan.directory, machine.QMP)) as qmp:
            exchange.rehearse(qmp, warm.nic())
        for work in (warm.up(plan), warm.down()):
            _carry_out(plan, work, patience)
        with Qmp(Path(plan.directory, machine.QMP), patience) as qmp:
            if not exchange.end_rehearsal(qmp, warm.nic(), patience):
                raise fork.CannotFork("a spare machine does not let go of its interface")
            qmp.pause()
        undo.pop_all()
    return Standby(plan, channel, time.monotonic())


def thaw(frozen: Frozen, plan: Plan, scratch: Path, host: machine.Host, patience: float) -> Standby:
    """Let a frozen spare go on as another one, and stop it. Raises `CannotFork`, and what launching and QMP do."""
    with contextlib.ExitStack() as undo:
        undo.callback(remove, plan)
        _prepare(plan, scratch)
        origin = machine.Origin(
            memory=memory.path_of(frozen.memory), state=memory.path_of(frozen.rest), spare=True, frozen=True
        )
        home = group(plan)
        steps = machine.launch(plan, msgspec.structs.replace(host, origin=origin), home.joins, home.unified, home.reap)
        channel = spawn(steps, timeout=patience, meanwhile=fork.go_on(plan))
        undo.callback(channel.close)
        with Qmp(Path(plan.directory, machine.QMP)) as qmp:
            qmp.pause()
        undo.pop_all()
    return Standby(plan, channel, time.monotonic())


def remove(plan: Plan) -> None:
    """Kill a spare and remove what was made for it. Idempotent."""
    _remove(Path(plan.directory), group(plan))


def sweep(home: Path, cgroup: str, known: set[str] | None = None) -> None:
    """Remove what is left in `home` and below `cgroup` of spares whose maker has died: all but the `known` ones."""
    for place in home.glob(f"{PREFIX}*"):
        if place.name not in (known or ()):
            _remove(place, Group(layout(), f"{cgroup}/{place.name}"))


def _remove(directory: Path, home: Group) -> None:
    life.clear(directory, home)
    shutil.rmtree(directory, ignore_errors=True)


def become(
    spare: Standby, plan: Plan, host: machine.Host, patience: float, instead: tuple[Operation, ...] | None = None
) -> Channel:
    """Make a spare the instance's machine, whose program waits, or which does something `instead`.

    Raises `CannotFork`, `LaunchError`, OSError, and what QMP does.
    """
    steps, made = _steps(plan, host, instead)
    for name in _MOVED:
        Path(spare.plan.directory, name).rename(Path(plan.directory, name))
    resize.note(plan, made)
    fork.note(plan, fork.FORKED)
    process = read_process(Path(plan.directory))
    if process is None:
        raise fork.CannotFork("the spare machine has gone")
    with ThreadPoolExecutor(1) as beside, Qmp(Path(plan.directory, machine.QMP)) as qmp:
        moved = beside.submit(_move, spare.plan, plan, process.pid)
        _equip(qmp, plan, made)
        spare.channel.send(Type.BECOME, encode(steps))
        qmp.resume()
        Path(plan.directory, fork.AWAKE).touch()
        _await_ready(spare.channel, list(instead or guest.launch(plan, forked=True)), patience)
        moved.result()
    return spare.channel


def _steps(plan: Plan, host: machine.Host, instead: tuple[Operation, ...] | None) -> tuple[list[Operation], Machine]:
    whole = msgspec.structs.replace(host, origin=machine.Origin(memory="", state="", instead=instead))
    home = group(plan)
    steps = machine.launch(plan, whole, home.joins, home.unified, home.reap)
    kept: list[Operation] = [step for step in steps if isinstance(step, Monitor | Relay)]
    return kept, machine.machine(plan, whole)


def _prepare(plan: Plan, scratch: Path) -> None:
    directory = Path(plan.directory)
    for name in ("", "share", cell.PLACE):
        (directory / name).mkdir(mode=0o700)
    with scratch.open("rb") as source, (directory / _SCRATCH).open("xb") as target:
        memory.copy(source.fileno(), target.fileno())
    group(plan).create(machine.resources(plan))


def _carry_out(plan: Plan, steps: list[Operation], patience: float) -> None:
    with Channel.connect(Path(plan.directory, "monitor.sock")) as channel:
        channel.greet(patience)
        channel.send(Type.EXEC, encode(steps))
        _await_ready(channel, steps, patience)
        channel.go()
        while (frame := channel.receive(patience)) is not None and frame.type is not Type.EXIT:
            pass
        if frame is None or frame.payload[:4] != bytes(4):
            raise fork.CannotFork("a spare machine cannot warm up")


def _await_ready(channel: Channel, steps: list[Operation], patience: float) -> None:
    try:
        frame = channel.receive(patience)
    except TimeoutError:
        raise fork.CannotFork(f"a spare machine did not answer within {patience:.0f} s") from None
    if frame is not None and frame.type is Type.FAILED:
        raise launch_error(steps, frame.payload)
    if frame is None or frame.type is not Type.READY:
        raise fork.CannotFork("a spare machine ended")


def _equip(qmp: Qmp, plan: Plan, made: Machine) -> None:
    with contextlib.ExitStack() as opened:

        def keep(descriptor: int) -> int:
            opened.callback(os.close, descriptor)
            return descriptor

        image, upper = keep(os.open(plan.root.lowers[0], os.O_RDONLY)), keep(os.open(plan.root.upper, os.O_RDWR))
        exchange.drive(qmp, "image", image, read_only=True, before=cell.IMAGE)
        exchange.drive(qmp, "upper", upper, read_only=False, before=cell.UPPER)
        for nic, use in zip(made.nics, plan.attachments, strict=False):
            descriptor = os.open(use.path, os.O_RDWR) if use.path else tap.open_tap(use.device)
            exchange.interface(qmp, nic, keep(descriptor))


def _move(spare: Plan, plan: Plan, pid: int) -> None:
    """Give the machine the instance's limits, and an ordinary place among others: it was made at leisure."""
    for process in (life.monitor_of(Path(plan.directory)), pid):
        ordinary(process)
    group(plan).add(pid)
    group(spare).vanish()
    shutil.rmtree(spare.directory, ignore_errors=True)


def kept(memory_wanted: int, available: Callable[[], tuple[int, int]]) -> bool:
    """Tell whether there is memory for a spare, so that it takes nothing from those who work."""
    total, free = available()
    return free > total // 10 + memory_wanted
