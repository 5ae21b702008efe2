"""The contract between the engine and an isolation level.

The life of an instance, as a driver sees it:

    prepare ──▶ start ──▶ (go) ──▶ running ──▶ exited ──▶ release
                  │                  │  exec, attach, signal, stats, processes
                  └── the program waits, set up to the last step, until the caller sends GO

Drivers keep nothing in memory: a `Plan` goes in, and what runs is found again under
`plan.directory`, also by another process after a crash. All methods block (milliseconds for process
and container, seconds for a VM) and may be called from any thread; the engine calls them from a
pool. What not every level can do is a small protocol of its own, below; asking a level for one it
lacks raises `Unsupported` naming the level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, cast, runtime_checkable

import msgspec

from trivet.isolation.plan import Attachment, Level, Plan, Program
from trivet.kernel.cgroup_record import Usage
from trivet.kernel.procfs import Traffic
from trivet.launch.channel import Channel
from trivet.launch.enter import Entry
from trivet.launch.operation import Operation


class Ability(msgspec.Struct, frozen=True, kw_only=True):
    """What a level needs and offers on this machine; `missing` is empty when it can run.

    `root` and `network` tell the engine in which form to hand down root file system and interfaces.
    `acceleration` is "native", "kvm" or "emulation". `unshared` names what is the instance's own.
    """

    level: Level
    root: Literal["mount", "drive", "disk"]
    network: Literal["host", "netns", "tap"]
    acceleration: str
    unshared: tuple[str, ...]
    missing: tuple[str, ...] = ()
    hint: str = ""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a program ended: `code` is 128+n after signal n; `time` is Unix time in nanoseconds."""

    code: int
    signal: int = 0
    time: int = 0
    out_of_memory: bool = False
    error: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The running truth about an instance, read from its monitor.

    created: waits for GO. running: `pid` is the host pid of the program (of QEMU for a VM).
    exited: `exit` says how. gone: nothing is there (never started, or released, or rebooted since).
    lost: the monitor died without a word; `release` cleans up what it left.
    """

    word: Literal["created", "running", "paused", "exited", "gone", "lost"]
    pid: int = 0
    exit: Exit | None = None


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """How long some of a guest's tasks, or all of them, waited for something: percent of the last ten seconds."""

    kind: Literal["cpu", "memory", "io"]
    some: float
    full: float


class FileSystem(msgspec.Struct, frozen=True, kw_only=True):
    """A file system that a guest sees at `path`; sizes in bytes."""

    path: str
    size: int
    used: int


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """What a guest says of itself: its kernel's memory in bytes, what it waits for, its file systems."""

    memory: int
    available: int
    pressure: tuple[Pressure, ...] = ()
    systems: tuple[FileSystem, ...] = ()


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Resource use since the start, as its control group counts it, but for `pids` and `memory_limit` of a machine.

    `inside` is the view of a kernel of its own.
    """

    used: Usage = Usage()
    memory_limit: int = 0
    pids: int = 0
    traffic: tuple[Traffic, ...] = ()
    inside: Inside | None = None


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """An instance's memory in bytes, and how long it waited for a processor, in nanoseconds.

    `held` is what it could fill without asking, `used` what it can't do without, `resident` what of the host's memory
    it takes now; `allotted` is its bound, 0 for none. A `starved` one waits for memory.
    """

    held: int = 0
    used: int = 0
    resident: int = 0
    allotted: int = 0
    starved: bool = False
    waited: int = 0


class ProcessRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process of an instance, as `top` shows it; times as in `kernel.procfs.Row`."""

    pid: int
    ppid: int
    user: str
    command: str
    cpu: float
    used: float
    started: float


class Driver(Protocol):
    """What each level must do."""

    level: Level

    def ability(self) -> Ability:
        """Tell what this level needs and offers here; probes are cached, nothing is changed."""

    def operations(self, plan: Plan) -> list[str]:
        """Describe, in order and one line each, what `start` would do; pure."""

    def prepare(self, plan: Plan) -> None:
        """Create what must exist before the start (run directory, cgroup). Idempotent."""

    def start(self, plan: Plan) -> Channel:
        """Start the monitor and set the program up; it waits for `Channel.go()`.

        Raises the level's own error when set-up fails; nothing is left behind then but what
        `release` removes.
        """

    def attach(self, plan: Plan) -> Channel:
        """Open a further connection to the instance's monitor. Raises `Conflict` when it is not running."""

    def exec(self, plan: Plan, program: Program) -> Channel:
        """Set a further program up in a running instance; it waits for `Channel.go()`."""

    def signal(self, plan: Plan, number: int) -> None:
        """Send a signal to the program. Raises `Conflict` when it is not running."""

    def status(self, plan: Plan) -> Status:
        """Read the running truth. Never raises for an instance that is not there."""

    def stats(self, plan: Plan) -> Stats:
        """Measure resource use. Raises `Conflict` when it is not running."""

    def processes(self, plan: Plan) -> list[ProcessRow]:
        """List the processes inside. Raises `Conflict` when it is not running."""

    def release(self, plan: Plan) -> None:
        """Kill whatever is left and remove what `prepare` and `start` made. Idempotent, at any moment."""


@runtime_checkable
class Entering(Protocol):
    """A level whose monitors add programs by themselves, when they are asked to (`launch/enter.py`)."""

    def entry(self, plan: Plan, program: Program) -> Entry:
        """Compute what to ask the instance's monitor for. Raises `Conflict` for an instance that is frozen."""


@runtime_checkable
class Pausable(Protocol):
    """A level whose instances can be frozen."""

    def pause(self, plan: Plan) -> None:
        """Freeze every process of the instance."""

    def resume(self, plan: Plan) -> None:
        """Thaw it."""


@runtime_checkable
class Forking(Protocol):
    """A level whose instances may begin as a copy of something that runs already."""

    def origin(self, plan: Plan) -> str:
        """Tell how the instance began: "forked", or "booted" and why; "" when it hasn't."""

    def templates(self) -> tuple[int, int]:
        """Count what instances are copied from, and the bytes it takes on disk."""

    def prune_templates(self, *, dry_run: bool) -> tuple[list[str], int]:
        """Remove it; instances that run go on. Names, and bytes freed."""

    def leave(self) -> None:
        """Let go of what waits to become an instance, as this engine ends."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """Something that ran, to be gone on from: descriptors of its memory and state, what it fits to, and its size.

    Or the `place` where it is, for who needs no descriptors.
    """

    memory: int
    state: int
    key: str
    size: int = 0
    cpus: int = 0
    place: str = ""


@runtime_checkable
class Saving(Protocol):
    """A level that can save a running instance, memory and all, and let it, or copies of it, go on from there."""

    def check_saving(self, plan: Plan) -> None:
        """Raise `Unsupported` for an instance that can't be saved."""

    def save(self, plan: Plan, place: Path, copy: Callable[[], None], *, go_on: bool) -> float:
        """Save memory and writable root (file `drive`) into a new directory; seconds the instance stood still.

        A root that is a directory is for `copy` to save, once the new directory is there and the instance stands still.
        Unless it shall `go_on` the instance stands still, or has ended, from that moment on: the caller ends it. When
        it fails the instance goes on.
        """

    def end(self, plan: Plan) -> None:
        """End an instance that was saved and doesn't go on, before it does anything more. Idempotent."""

    def saved(self, place: Path) -> AbstractContextManager[Saved]:
        """Load what was saved. Raises `Corrupt`."""

    def restore(self, plan: Plan, saved: Saved, was: Plan) -> Channel:
        """Begin as what was saved of `was`, told in what the plan differs; the program goes on at `Channel.go()`."""


@runtime_checkable
class Introducing(Protocol):
    """A level where what was saved takes a while to load, and copies stand still then until they learn who they are."""

    def arrive(self, plan: Plan) -> None:
        """Wait until what was saved is there. Raises `Internal` when it ended over that."""

    def check_copying(self, plan: Plan) -> None:
        """Raise for an instance whose copies could not learn it."""

    def introduce(self, plan: Plan) -> None:
        """Let a copy go on under its own name, with its own addresses."""


@runtime_checkable
class Stalling(Protocol):
    """A level that stops an instance when the host can't give it what it needs, instead of letting it fail."""

    def stalled(self, plan: Plan) -> str:
        """Tell why a running instance stands still; "" when it doesn't. It is `paused` from then on."""


@runtime_checkable
class Readable(Protocol):
    """A level whose instances' files the host can't read by itself."""

    def read(self, plan: Plan, write: Callable[[bytes], object], *, written: bool = False) -> None:
        """Write the root of an instance that doesn't run as a tar, or as a layer what it has `written`."""


@runtime_checkable
class Pluggable(Protocol):
    """A level whose instances get and lose interfaces of their own while they run."""

    def plug(self, plan: Plan, use: Attachment) -> None:
        """Give a running instance an interface that is there on the host."""

    def unplug(self, plan: Plan, use: Attachment) -> None:
        """Take one away, before it goes on the host. Raises `TimedOut` when the instance doesn't let it go."""


@runtime_checkable
class Guided(Protocol):
    """A level whose guests are told by an agent of the engine's what else changes with their networks."""

    def direct(self, plan: Plan, routes: Sequence[Operation]) -> None:
        """Let the default routes of a running instance be these."""

    def rewrite(self, plan: Plan, was: Mapping[str, bytes]) -> None:
        """Give it those of the plan's files that `was` has not, unless it has changed them itself."""


@runtime_checkable
class Resizable(Protocol):
    """A level whose limits can change while the instance runs."""

    def resize(self, plan: Plan) -> None:
        """Apply the plan's limits to the running instance."""


@runtime_checkable
class Elastic(Protocol):
    """A level whose instances can be given memory and have it taken while they run, within their limits."""

    def footprint(self, plan: Plan) -> Footprint:
        """Measure the memory. Raises `Conflict` when it is not running."""

    def allot(self, plan: Plan, memory: int) -> None:
        """Let the instance have so many bytes for now; its limit, or more, lifts the bound. What is in use stays."""


@cache
def _offers(driver: type[object], face: type[object]) -> bool:
    """Tell it from the class, once: isinstance looks at every method of a protocol, and starts ask each time."""
    return issubclass(driver, face)


def forking(driver: Driver) -> Forking | None:
    """Take a driver for one that forks, if it is one."""
    return cast(Forking, driver) if _offers(type(driver), Forking) else None


def pluggable(driver: Driver) -> Pluggable | None:
    """Take a driver for one that plugs, if it is one."""
    return cast(Pluggable, driver) if _offers(type(driver), Pluggable) else None


def guided(driver: Driver) -> Guided | None:
    """Take a driver for one that guides, if it is one."""
    return cast(Guided, driver) if _offers(type(driver), Guided) else None


def stalling(driver: Driver) -> Stalling | None:
    """Take a driver for one that stalls, if it is one."""
    return cast(Stalling, driver) if _offers(type(driver), Stalling) else None


def elastic(driver: Driver) -> Elastic | None:
    """Take a driver for an elastic one, if it is one."""
    return cast(Elastic, driver) if _offers(type(driver), Elastic) else None
