"""The vm level: the image's file system as the root of a QEMU guest with a kernel of its own.

plan.directory/
├── monitor.sock, pid, exit   the monitor's (docs/launch.md); `pid` is QEMU's
├── console.log               the guest's serial console
├── qmp.sock                  QEMU's control socket
├── share/                    where bind mounts are gathered, in QEMU's mount namespace only
├── share.sock, share.log     virtiofsd's
├── origin                    whether it was forked or booted, and why
└── paused                    there while the machine is paused
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from trivet.base.error import Conflict, InvalidArgument, TrivetError
from trivet.hypervisor import memory
from trivet.hypervisor.machine import Acceleration
from trivet.hypervisor.qmp import Qmp, QmpRefused, QmpUnavailable
from trivet.isolation import (
    boot,
    cell,
    change,
    elastic,
    fork,
    gauge,
    guest,
    machine,
    nursery,
    plugged,
    provision,
    reading,
    resize,
    saving,
    vitals,
)
from trivet.isolation.driver import Ability, Footprint, ProcessRow, Saved, Stats, Status
from trivet.isolation.failure import explain
from trivet.isolation.local import NotRunning, group, how_ended
from trivet.isolation.nursery import Nursery
from trivet.isolation.plan import Attachment, Level, Plan, Program
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.operation import Operation, encode
from trivet.launch.spawn import launch_error
from trivet.runtime import life

CACHE = Path("/var/cache/trivet")
UNSHARED = ("mount", "pid", "uts", "ipc", "cgroup", "network", "kernel")

_ANSWER = 30.0
_MOST = 8 << 20
"""Bytes that are listened to: a guest might never end."""
_QUICK = 5.0
_GLANCE, _STALLED = 2.0, "io-error"
_WITHOUT_A_WORD = "machine ended"
_LISTING = Program(argv=("/proc",), builtin="processes")


class VmDriver:
    """The driver of the vm level; also Pausable, Forking, Saving, Readable. `cache` keeps kernel, initramfs, probes."""

    level = Level.VM

    def __init__(self, cache: Path = CACHE, spares: int = 0) -> None:
        self.cache = cache
        self._nursery = Nursery(cache, spares)

    def ability(self) -> Ability:
        """Tell what this level needs and offers here; the first time, the guest kernel is fetched and tried."""
        (missing, hint), found = provision.lacks(), Acceleration.EMULATION
        if not missing:
            try:
                found = provision.acceleration(self.cache)
            except TrivetError as error:
                missing, hint = (error.message,), error.hint or ""
        return Ability(
            level=self.level,
            root="drive",
            network="tap",
            acceleration=found,
            unshared=UNSHARED,
            missing=missing,
            hint=hint,
        )

    def operations(self, plan: Plan) -> list[str]:
        """Describe, in order and one line each, what `start` would do on the host and then in the guest; pure."""
        outside = [operation.describe() for operation in nursery.operations(plan, provision.imagined())]
        return [*outside, *(f"guest: {operation.describe()}" for operation in guest.launch(plan, forked=True))]

    def prepare(self, plan: Plan) -> None:
        """Make the run directory and the cgroup with its limits. Idempotent."""
        if plan.root.form != "drive":
            raise InvalidArgument(f"instance {plan.name} at level vm needs its root as a drive, not as a mount")
        machine.machine(plan, provision.imagined())
        directory = Path(plan.directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("share", cell.PLACE):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        group(plan).create(machine.resources(plan))

    def start(self, plan: Plan) -> Channel:
        """Take a spare machine, fork one, or boot one, and set the program up in it; it waits for `Channel.go()`.

        A machine that hangs while it boots is replaced once.
        """
        return self._nursery.start(plan)

    def attach(self, plan: Plan) -> Channel:
        """Open a further connection to the instance's monitor."""
        try:
            channel = Channel.connect(Path(plan.directory, "monitor.sock"))
        except OSError as error:
            raise NotRunning(plan, self.status(plan).word) from error
        try:
            channel.greet(_ANSWER)
        except OSError as error:
            channel.close()
            raise NotRunning(plan, self.status(plan).word) from error
        return channel

    def exec(self, plan: Plan, program: Program) -> Channel:
        """Set a further program up in the running guest; it waits for `Channel.go()`."""
        self._running(plan)
        return self._enter(plan, guest.enter(plan, program))

    def _enter(self, plan: Plan, steps: list[Operation]) -> Channel:
        channel = self.attach(plan)
        try:
            channel.send(Type.EXEC, encode(steps))
            self._await_ready(plan, channel, steps)
        except BaseException:
            channel.close()
            raise
        return channel

    def signal(self, plan: Plan, number: int) -> None:
        """Send a signal to the program; a machine that is paused heeds it when it is resumed, but is killed at once."""
        self._running(plan, "created", "running", "paused")
        with self.attach(plan) as channel:
            channel.attach(stdin=False, stdout=False, stderr=False)
            channel.signal(number)

    def status(self, plan: Plan) -> Status:
        """Read the running truth."""
        seen = life.observe(Path(plan.directory))
        if seen.process is not None:
            paused = seen.word == "running" and _marker(plan).exists()
            return Status(word="paused" if paused else seen.word, pid=seen.process.pid)
        ended = how_ended(seen.ending, plan)
        if ended and ended.error == _WITHOUT_A_WORD:
            ended = msgspec.structs.replace(ended, error=boot.why(boot.console(plan), boot.machine_log(plan)))
        return Status(word=seen.word, exit=ended)

    def stats(self, plan: Plan) -> Stats:
        """Measure resource use: of the machine from outside, and as its guest sees it."""
        inside, processes = None, 0
        if self._running(plan, "running", "paused") == "running":
            said = self.listing(plan, guest.enter(plan, vitals.ASKED))
            inside, processes = vitals.parse(said.decode(errors="replace"))
        used = group(plan).usage()
        return Stats(
            used=used,
            memory_limit=machine.memory(plan),
            pids=processes,
            traffic=gauge.traffic(plan),
            inside=inside,
        )

    def processes(self, plan: Plan) -> list[ProcessRow]:
        """List the processes inside, by their pids there."""
        self._running(plan)
        text, now = self.listing(plan, guest.enter(plan, _LISTING)), time.time()
        return [gauge.row(line, now) for line in text.decode(errors="replace").splitlines()]

    def listing(self, plan: Plan, steps: list[Operation]) -> bytes:
        """Have the agent do something beside the program, and read what it says."""
        with self._enter(plan, steps) as channel:
            channel.attach(stdin=False)
            channel.go()
            return _output(channel)

    def footprint(self, plan: Plan) -> Footprint:
        """Measure the memory, as the guest sees it."""
        self._running(plan)
        return elastic.of_machine(Path(plan.directory, machine.QMP), self.status(plan).pid, group(plan))

    def allot(self, plan: Plan, memory: int) -> None:
        """Take or give with the balloon, and bound what the program may use before it waits.

        The balloon is told first either way: it takes a while to fill, and gives way to who is quicker.
        """
        self._running(plan)
        socket, limit = Path(plan.directory, machine.QMP), machine.memory(plan)
        high = elastic.program_bound(memory, limit, elastic.leave(socket, min(memory, limit)))
        self.listing(plan, guest.write(f"{guest.GROUP}/memory.high", high))

    def resize(self, plan: Plan) -> None:
        """Apply the plan's limits; what the machine hasn't is plugged in."""
        self._running(plan)
        resize.apply(plan, _Hands(self, plan), group(plan))

    def origin(self, plan: Plan) -> str:
        """Tell whether the machine was forked from a template, or booted and why."""
        return fork.noted(plan)

    def templates(self) -> tuple[int, int]:
        """Count the templates, and the bytes they take on disk."""
        return self._nursery.templates.usage()

    def prune_templates(self, *, dry_run: bool) -> tuple[list[str], int]:
        """Remove them, and the spare machines."""
        if not dry_run:
            self._nursery.pool.drop()
        return self._nursery.templates.prune(dry_run=dry_run)

    def spares(self) -> tuple[str, ...]:
        """Name the run directories of machines that wait to become an instance's."""
        return self._nursery.pool.waiting()

    def leave(self) -> None:
        """End the spare machines: the engine ends."""
        self._nursery.pool.close()

    def plug(self, plan: Plan, use: Attachment) -> None:
        """Plug an interface in, and have the guest set it up; its routes are `direct`ed."""
        self._running(plan)
        plugged.plug(plan, use, _Hands(self, plan))

    def unplug(self, plan: Plan, use: Attachment) -> None:
        """Have the guest let an interface go."""
        self._running(plan)
        plugged.unplug(plan, use, _Hands(self, plan))

    def direct(self, plan: Plan, routes: Sequence[Operation]) -> None:
        """Let the guest's default routes be these."""
        if routes:
            _Hands(self, plan).inside(guest.beside(routes))

    def rewrite(self, plan: Plan, was: Mapping[str, bytes]) -> None:
        """Give the guest those of the plan's files that are other ones now, unless it has changed them itself."""
        self._running(plan)
        plugged.rewrite(plan, was, _Hands(self, plan))

    def pause(self, plan: Plan) -> None:
        """Stop the machine's virtual CPUs."""
        self._running(plan)
        with Qmp(Path(plan.directory, machine.QMP)) as qmp:
            _marker(plan).touch()
            qmp.pause()

    def resume(self, plan: Plan) -> None:
        """Let them run again."""
        if self.status(plan).word != "paused":
            raise Conflict(f"instance {plan.name} is not paused")
        with Qmp(Path(plan.directory, machine.QMP)) as qmp:
            qmp.resume()
            _marker(plan).unlink(missing_ok=True)

    def stalled(self, plan: Plan) -> str:
        """Tell whether QEMU has stopped the machine: what is written to its drive has no room on the host's disk."""
        try:
            with Qmp(Path(plan.directory, machine.QMP), patience=_GLANCE) as qmp:
                if qmp.status() != _STALLED:
                    return ""
        except (QmpUnavailable, QmpRefused):  # it has just ended, or somebody else speaks with it
            return ""
        _marker(plan).touch()
        return f"no space left on the host's disk for {plan.root.upper}; make room, then trivet unpause {plan.name}"

    def check_saving(self, plan: Plan) -> None:
        """Raise `Unsupported` for an instance that can't be saved."""
        saving.check(plan)

    def save(self, plan: Plan, place: Path, copy: Callable[[], None] | None = None, *, go_on: bool) -> float:
        """Save memory, devices and drive into a new directory; seconds the machine stood still."""
        self._running(plan)
        shape = resize.noted(plan)
        saving.check_whole(plan, shape)
        plugged.check_saving(plan)
        key = saving.key_of(resize.fitted(plan, shape), provision.acquire(self.cache, plan, template=True))
        return saving.save(plan, self.status(plan).pid, saving.Key(key, shape), place, go_on=go_on)

    def end(self, plan: Plan) -> None:
        """Do nothing: who is saved and doesn't go on has ended with that."""

    def saved(self, place: Path) -> AbstractContextManager[Saved]:
        """Load what was saved."""
        return saving.opened(place)

    def restore(self, plan: Plan, saved: Saved, was: Plan) -> Channel:
        """Begin as what was saved; no packet leaves a copy before it knows who it is."""
        host = provision.acquire(self.cache, plan, template=True)
        whole = resize.fitted(plan, resize.Shape(saved.size, saved.cpus))
        if len(change.taps(plan)) != len(change.taps(was)) or saving.key_of(whole, host) != saved.key:
            raise saving.SavedByAnother(plan)
        with self._nursery.turns:
            nursery.clear(plan)
            with saving.contents(plan, saved) as contents:
                files = [memory.path_of(each) for each in (contents, saved.state)]
                writable = contents != saved.memory
                told = change.changes(plan, was)
                origin = machine.Origin(memory=files[0], state=files[1], writable=writable, changes=told)
                fork.note(plan, fork.RESTORED)
                ready = msgspec.structs.replace(host, origin=origin)
                channel = self._nursery.launch(whole, ready)
        try:
            with Qmp(Path(plan.directory, machine.QMP)) as qmp:
                for nic in machine.machine(whole, ready).nics:
                    qmp.execute("set_link", name=nic.name, up=True)
        except BaseException:
            channel.close()
            raise
        return channel

    def read(self, plan: Plan, write: Callable[[bytes], object], *, written: bool = False) -> None:
        """Write the root of an instance that doesn't run as a tar, or as a layer what it has `written`."""
        reader = reading.alone(plan)
        try:
            self.prepare(reader)
            channel = self._nursery.instead(reader, tuple(guest.reading(written=written)))
            with channel:
                reading.pass_on(plan, channel, write)
        finally:
            self.release(reader)

    def release(self, plan: Plan) -> None:
        """Kill whatever is left and remove what `prepare` and `start` made. Idempotent, at any moment."""
        life.clear(Path(plan.directory), group(plan))
        shutil.rmtree(plan.directory, ignore_errors=True)

    # --- running ------------------------------------------------------------------------------------

    def _running(self, plan: Plan, *words: str) -> str:
        word = self.status(plan).word
        if word not in (words or ("running",)):
            raise NotRunning(plan, word)
        return word

    def _await_ready(self, plan: Plan, channel: Channel, steps: list[Operation]) -> None:
        try:
            frame = channel.receive(_ANSWER)
        except TimeoutError:
            raise boot.AgentSilent(plan.name, _ANSWER) from None
        if frame is None or frame.type is Type.EXIT:
            raise NotRunning(plan, self.status(plan).word)
        if frame.type is Type.FAILED:
            error = launch_error(steps, frame.payload)
            raise explain(error.operation, error.errno, error.text, f"instance {plan.name}") from error


class _Hands(msgspec.Struct, frozen=True):
    """A running machine, as who resizes it needs it."""

    driver: VmDriver
    plan: Plan

    def used(self) -> int:
        return self.driver.footprint(self.plan).used

    def inside(self, steps: list[Operation]) -> bytes:
        return self.driver.listing(self.plan, steps)


def _marker(plan: Plan) -> Path:
    return Path(plan.directory, "paused")


def _output(channel: Channel) -> bytes:
    """Read what a builtin in the guest says, as far as it can be one."""
    said = b""
    while len(said) < _MOST and (frame := channel.receive(_QUICK)) is not None and frame.type is not Type.EXIT:
        if frame.type is Type.STDOUT:
            said += frame.payload
    return said
