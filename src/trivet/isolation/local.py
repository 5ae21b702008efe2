"""What the process and the container level share: both are this kernel's own processes.

plan.directory/
├── monitor.sock, pid, exit   the monitor's (docs/launch.md)
├── root/                     where the root file system is mounted, in the instance's mount namespace only;
│                             with users of its own at COMMON, as they may not come here
├── user                      the user namespace
└── exec/ID/                  the same three files for each program that exec added
"""

from __future__ import annotations

import logging
import os
import secrets
from functools import cache, lru_cache
from pathlib import Path
from typing import TypedDict

import msgspec

from trivet.base import tree
from trivet.base.error import Conflict
from trivet.isolation import elastic, memory, specification
from trivet.isolation.driver import Exit, Footprint, ProcessRow, Stats, Status
from trivet.isolation.failure import exit_code, explain, explained
from trivet.isolation.owner import inside, let_go, making, own
from trivet.isolation.plan import Level, Plan, Program, Root
from trivet.kernel import cgroup, cgroup_memory, lobby, overlay, procfs
from trivet.kernel.mount import drop
from trivet.launch.channel import Channel
from trivet.launch.enter import PROGRAM, Entry, add
from trivet.launch.launcher import MOUNTS_FD, move_up
from trivet.launch.monitor import Ending, Failure, read_process
from trivet.launch.monitor import Process as Running
from trivet.launch.operation import Bind, Exec, Monitor, Mount, Operation
from trivet.launch.spawn import spawn
from trivet.oci import runtime as oci
from trivet.oci.runtime import Linux, Process, Spec
from trivet.runtime import enter, life
from trivet.runtime import plan as runtime
from trivet.runtime.resource import resources
from trivet.runtime.setting import Setting

COMMON = "/tmp"  # everybody may go there, on every machine


log = logging.getLogger(__name__)


class NotRunning(Conflict):
    """Something that needs a running instance was asked of one that isn't."""

    def __init__(self, plan: Plan, word: str) -> None:
        super().__init__(f"instance {plan.name} is not running (it is {word})")


class Lack(TypedDict):
    """The part of an `Ability` that says why a level can't run."""

    missing: tuple[str, ...]
    hint: str


class Local:
    """The driver of a level on this kernel; a level says what its specification is and what exec joins."""

    level: Level

    def lacks(self) -> Lack:
        """Tell what is missing on this machine, and what to do about it."""
        return _lack()

    def specification(self, plan: Plan) -> Spec:
        """Describe the instance in the runtime's words."""
        raise NotImplementedError

    def limits(self, plan: Plan) -> oci.Resources:
        """Describe what of the machine the instance may use, as `specification` does."""
        raise NotImplementedError

    def added(self, plan: Plan, program: Program) -> tuple[Process, Linux]:
        """Describe a program that exec adds."""
        raise NotImplementedError

    def joined(self, plan: Plan) -> frozenset[str]:
        """Name the namespaces that the instance doesn't share with the host."""
        raise NotImplementedError

    def operations(self, plan: Plan) -> list[str]:
        """Describe, in order and one line each, what `start` would do; pure."""
        return [operation.describe() for operation in self._plan(plan)]

    def prepare(self, plan: Plan) -> None:
        """Make the run directory and the cgroup with its limits. Idempotent."""
        tree.make(plan.directory)
        tree.make(f"{plan.directory}/root")
        if owner := own(plan):
            let_go(owner)
        if _keeps_memory(plan):
            memory.keep(plan)
        group(plan).create(resources(self.limits(plan)))

    def start(self, plan: Plan) -> Channel:
        """Start the monitor and set the program up; it waits for `Channel.go()`."""
        _believe(plan.root)
        with explained(f"instance {plan.name}"):
            return spawn(self._plan(plan), mounts=_lobby() if plan.owner else None)

    def attach(self, plan: Plan) -> Channel:
        """Open a further connection to the instance's monitor."""
        try:
            return Channel.connect(Path(plan.directory, "monitor.sock"))
        except OSError as error:
            raise NotRunning(plan, self.status(plan).word) from error

    def exec(self, plan: Plan, program: Program) -> Channel:
        """Set a further program up in a running instance; it waits for `Channel.go()`."""
        with explained(f"instance {plan.name}"):
            channel = add(Path(plan.directory), self.entry(plan, program))
        return channel or self._spawned(plan, program)

    def entry(self, plan: Plan, program: Program) -> Entry:
        """Compute what the instance's monitor is asked for, to add a program. Raises `NotRunning` for a frozen one."""
        if group(plan).frozen():
            self._running(plan, "running")
        if program.builtin:
            return Entry.of(self._added(plan, program, PROGRAM, None))
        alike = _entry(self, plan, msgspec.structs.replace(program, argv=_ANY, env=()))
        return Entry(alike.first, alike.encoded, Exec(program.argv, program.env))

    def _spawned(self, plan: Plan, program: Program) -> Channel:
        """Add a program without the instance's monitor, which is of an earlier release, or gone."""
        target = self._target(plan)
        directory = Path(plan.directory, "exec", secrets.token_hex(8))
        life.sweep(directory.parent)
        directory.mkdir(mode=0o700, parents=True)
        steps = self._added(plan, program, target.pid, Monitor(str(directory), linger=1))
        with explained(f"instance {plan.name}"):
            channel = spawn(steps)
        if not target.lives():  # the pid could have been taken over while it was joined
            channel.close()
            raise NotRunning(plan, self.status(plan).word)
        return channel

    def _added(self, plan: Plan, program: Program, pid: int, monitor: Monitor | None) -> list[Operation]:
        home, kinds = group(plan), self.joined(plan)
        process, linux = self.added(plan, program)
        setting = Setting(
            root="/",
            monitor=monitor,
            joins=home.joins,
            unified=home.unified,
            user=program.user,
            groups=program.groups,
            stdin=program.stdin,
            builtin=program.builtin,
            owner=plan.owner.first if plan.owner else 0,
        )
        return enter.operations(process, linux, setting, pid, kinds, own_terminals=kinds != {"mount"})

    def signal(self, plan: Plan, number: int) -> None:
        """Send a signal to the program."""
        process = life.observe(Path(plan.directory)).process
        try:
            if process is None:
                raise ProcessLookupError
            process.signal(number)
        except ProcessLookupError as error:
            raise NotRunning(plan, self.status(plan).word) from error

    def status(self, plan: Plan) -> Status:
        """Read the running truth."""
        seen = life.observe(Path(plan.directory))
        if seen.process is not None:
            paused = seen.word == "running" and group(plan).frozen()
            return Status(word="paused" if paused else seen.word, pid=seen.process.pid)
        return Status(word=seen.word, exit=how_ended(seen.ending, plan))

    def stats(self, plan: Plan) -> Stats:
        """Measure resource use."""
        pid = self._running(plan).pid
        used = group(plan).usage()
        own_network = "network" in self.joined(plan)
        return Stats(
            used=used,
            memory_limit=used.memory_limit,
            pids=used.pids,
            traffic=procfs.traffic(pid) if own_network else (),
        )

    def processes(self, plan: Plan) -> list[ProcessRow]:
        """List the processes inside, by their pids on the host and their users' ids inside."""
        self._running(plan)
        rows = (procfs.row(pid) for pid in group(plan).processes())
        return [
            ProcessRow(
                pid=row.pid,
                ppid=row.ppid,
                user=inside(plan.owner, row.user),
                command=row.command,
                cpu=row.cpu,
                used=row.used,
                started=row.started,
            )
            for row in rows
            if row is not None
        ]

    def pause(self, plan: Plan) -> None:
        """Freeze every process of the instance."""
        self._running(plan, "running")
        group(plan).freeze(True)

    def resume(self, plan: Plan) -> None:
        """Thaw it."""
        if self.status(plan).word != "paused":
            raise Conflict(f"instance {plan.name} is not paused")
        group(plan).freeze(False)

    def resize(self, plan: Plan) -> None:
        """Apply the plan's limits to the running instance."""
        self._running(plan)
        group(plan).apply(resources(specification.resources(plan.limits, (), reset=True)))
        cgroup_memory.lift(group(plan))

    def footprint(self, plan: Plan) -> Footprint:
        """Measure the memory."""
        self._running(plan)
        return elastic.of_group(group(plan))

    def allot(self, plan: Plan, memory: int) -> None:
        """Bound the group's memory for now."""
        self._running(plan)
        elastic.bound_group(plan, group(plan), memory)

    def release(self, plan: Plan) -> None:
        """Kill whatever is left and remove what `prepare` and `start` made. Idempotent, at any moment."""
        directory = Path(plan.directory)
        life.clear(directory, group(plan))
        if plan.owner and not plan.owner.borrowed:
            let_go(plan.owner)
        if _keeps_memory(plan):
            memory.drop(plan)
        tree.delete(directory)

    def _plan(self, plan: Plan) -> list[Operation]:
        home = group(plan)
        place = COMMON if plan.owner else f"{plan.directory}/root"
        setting = Setting(
            root=place,
            mount=(show_root(plan.root, place),),
            monitor=Monitor(
                plan.directory, log=plan.log.path, log_size=plan.log.size, log_files=plan.log.files, reap=home.reap
            ),
            joins=home.joins,
            unified=home.unified,
            hierarchies=home.layout.hierarchies,
            group=plan.cgroup,
            network=specification.network(plan.attachments),
            user=plan.program.user,
            groups=plan.program.groups,
            stdin=plan.program.stdin,
            init=plan.init and "pid" in self.joined(plan),
            builtin=plan.program.builtin,
            owners=plan.owner.path if plan.owner else "",
            owner=plan.owner.first if plan.owner else 0,
            mounts=MOUNTS_FD if plan.owner and _lobby() is not None else 0,
        )
        first, *steps = runtime.launch(self.specification(plan), setting)
        owner = own(plan)
        return [first, *([making(owner)] if owner else []), *steps]

    def _target(self, plan: Plan) -> Running:
        """Find the program that another one is to join; its monitor is only asked when something is odd."""
        process = read_process(Path(plan.directory))
        if process and process.lives() and not group(plan).frozen():
            return process
        return self._running(plan, "running")

    def _running(self, plan: Plan, *words: str) -> Running:
        word, process = self._observe(plan)
        if process is None or word not in (words or ("running", "paused")):
            raise NotRunning(plan, word)
        return process

    def _observe(self, plan: Plan) -> tuple[str, Running | None]:
        seen = life.observe(Path(plan.directory))
        paused = seen.word == "running" and group(plan).frozen()
        return ("paused" if paused else seen.word), seen.process


_ANY = ("",)


@lru_cache(32)
def _entry(driver: Local, plan: Plan, program: Program) -> Entry:
    """Compute what is the same for all programs that an instance is given alike, up to the last step's words."""
    return Entry.of(driver._added(plan, program, PROGRAM, None))


def remove(directory: Path, cgroup: str) -> None:
    """Do what `release` does for an instance of which no more is known than where it was."""
    life.clear(directory, cgroup_of(cgroup))
    for name in ("user", "network"):
        drop(directory / name)
    tree.delete(directory)


@cache
def _lack() -> Lack:
    missing = []
    if os.geteuid() != 0:
        missing.append("root privileges")
    if not layout().hierarchies:
        missing.append("mounted control groups")
    if "overlay" not in Path("/proc/filesystems").read_text():
        missing.append("the overlay file system")
    return Lack(missing=tuple(missing), hint="run the engine as root" if os.geteuid() != 0 else "")


@cache
def _lobby() -> int | None:
    """Make the mount namespace that those with users of their own come from: what else they see is opened for them."""
    try:
        return move_up(lobby.make(COMMON, ("/proc", "/sys", "/dev")))
    except OSError as error:  # they come from the host's, then
        log.warning("cannot make a mount namespace to start from: %s", error)
        return None


@cache
def layout() -> cgroup.Layout:
    """Read once how this machine mounts its control groups."""
    return cgroup.detect()


def group(plan: Plan) -> cgroup.Group:
    """Give the instance's group."""
    return cgroup_of(plan.cgroup)


def cgroup_of(path: str) -> cgroup.Group:
    """Give the group at a path below every controller."""
    return cgroup.Group(layout(), path)


def how_ended(ending: Ending | Failure | None, plan: Plan) -> Exit | None:
    """Translate what a monitor wrote down."""
    match ending:
        case Ending():
            return Exit(
                code=ending.code,
                signal=ending.signal,
                time=ending.time,
                out_of_memory=ending.out_of_memory,
                error=ending.text,
            )
        case Failure():
            step = Exec(plan.program.argv, plan.program.env)  # what fails after GO is the last step
            error = explain(step, ending.errno, ending.text, f"instance {plan.name}")
            return Exit(code=exit_code(error), error=error.message)
    return None


def _keeps_memory(plan: Plan) -> bool:
    """Tell whether the instance's shared memory is kept for others, by itself."""
    return plan.memory.startswith(f"{plan.directory}/")


def _believe(root: Root) -> None:
    """Let an overlay be mounted again that never syncs: the kernel leaves a mark in it, and refuses then.

    The mark is for machines that crashed (Documentation/filesystems/overlayfs.rst, "Volatile mount"); what is removed
    at its end promises nothing beyond one.
    """
    if root.volatile and root.upper:
        tree.delete(Path(root.work, "work", "incompat"))


def show_root(root: Root, target: str) -> Operation:
    """Show the root at a place: an overlay, or a lone directory by a bind mount."""
    if root.copied or not root.lowers or (len(root.lowers) == 1 and not root.upper):
        return Bind(root.upper or root.lowers[0], target, recursive=0, host=1, make=0)
    layers = [f"lowerdir+={lower}" for lower in root.lowers]
    writable = [f"upperdir={root.upper}", f"workdir={root.work}"] if root.upper else []
    more = ("volatile", *overlay.OPTIONS) if root.volatile and root.upper else overlay.OPTIONS
    return Mount("overlay", "overlay", target, options=(*layers, *writable, *more), host=1, make=0)
