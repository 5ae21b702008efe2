"""Machines with an operating system of their own: the vm level for what boots from a disk.

plan.directory/
├── monitor.sock, pid, exit   the monitor's (docs/launch.md); `pid` is QEMU's
├── qmp.sock                  QEMU's control socket
├── agent.sock                the guest agent's port
├── screen.sock               the display, by VNC, once somebody asked for it (isolation/display.py)
├── share-N.sock              shared directories' servers (isolation/sharing.py)
├── seed.img                  what cloud-init reads
├── stick.img, initrd         what installers read (isolation/answer.py)
├── cell/                     where QEMU's root is made, in its mount namespace only (isolation/housing.py)
├── arriving                  there until a copy of a machine that ran knows who it is (isolation/arrival.py)
└── paused                    there while the machine is paused
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from trivet.base.error import Conflict, Internal, InvalidArgument, Unsupported
from trivet.hypervisor import memory
from trivet.hypervisor.qmp import Qmp, QmpRefused, QmpUnavailable
from trivet.isolation import (
    answer,
    arrival,
    computer,
    elastic,
    errand,
    extent,
    gauge,
    housing,
    moment,
    passthrough,
    provision,
    seed,
    sharing,
    slot,
    wire,
)
from trivet.isolation.boot import complaints, panicked
from trivet.isolation.driver import Ability, Footprint, ProcessRow, Saved, Stats, Status
from trivet.isolation.failure import explain
from trivet.isolation.local import NotRunning, group, how_ended
from trivet.isolation.machine import Host
from trivet.isolation.plan import Attachment, Level, Plan, Program
from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.log import tail
from trivet.launch.operation import Operation
from trivet.launch.spawn import LaunchError, spawn
from trivet.runtime import life

_POWER = (signal.SIGTERM, signal.SIGINT, signal.SIGPWR, signal.SIGQUIT)
_MARKER = "paused"
_GLANCE = 2.0
_STALLS = {
    "io-error": "no space left on the host's disk for {directory}; make room, then trivet unpause {name}",
    "watchdog": "its guest hangs, and its watchdog has stopped it; trivet unpause {name} lets it go on",
}
_TAIL = 5
_DUMP = 200  # lines that a kernel may say after its last word


class SystemDriver:
    """The driver of machines with a system of their own.

    Also Pausable, Saving, Introducing, Stalling, Elastic, Resizable and Pluggable. `cache` is the vm level's.
    """

    level = Level.VM

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def ability(self) -> Ability:
        """Tell what such a machine needs and offers here."""
        missing, hint = provision.lacks()
        return Ability(
            level=self.level,
            root="disk",
            network="tap",
            acceleration=provision.probed(self.cache),
            unshared=("mount", "pid", "uts", "ipc", "cgroup", "network", "kernel"),
            missing=missing,
            hint=hint,
        )

    def operations(self, plan: Plan) -> list[str]:
        """Describe, in order and one line each, what `start` would do; pure."""
        documents = [f"seed: {name}, {len(content)} bytes" for name, content in seed.documents(plan).items()]
        given = [f"given: a device of class {each}, bound to vfio-pci" for each in computer.hardware(plan).pci]
        return [*documents, *given, *(operation.describe() for operation in self._plan(plan, provision.imagined()))]

    def prepare(self, plan: Plan) -> None:
        """Make the run directory, the cgroup with its limits, and what cloud-init reads. Idempotent."""
        parts = computer.hardware(plan)
        housing.check(plan, parts)
        sharing.check(plan.name, plan.mounts)
        if plan.program.builtin:
            raise Conflict(
                f"cannot copy files of machine {plan.name} while it is off", hint=f"trivet vm start {plan.name}"
            )
        own = [each.path for kind in (parts.disks, parts.cdroms, parts.usb) for each in kind]
        for path in (*own, *(path for each in parts.disks for path in each.kept)):
            if not Path(path).exists():
                raise InvalidArgument(f"cannot start machine {plan.name}: its disk {path} is not there")
        directory = Path(plan.directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        group(plan).create(computer.resources(plan))
        housing.prepare(plan, parts)
        answer.prepare(plan)
        if parts.seed:
            seed.write(plan, directory / computer.SEED)

    def start(self, plan: Plan) -> Channel:
        """Start the monitor; QEMU waits for `Channel.go()`."""
        return self._launch(plan)

    def _launch(self, plan: Plan, begin: str = "", *, still: bool = False) -> Channel:
        host = provision.computer(self.cache, computer.hardware(plan))
        given = passthrough.choose(plan, computer.hardware(plan).pci)
        host = msgspec.structs.replace(host, begin=begin, still=still, given=given)
        for name in (computer.QMP, computer.AGENT, computer.SCREEN):
            Path(plan.directory, name).unlink(missing_ok=True)
        try:
            channel = spawn(self._plan(plan, host))
        except LaunchError as error:
            raise explain(error.operation, error.errno, error.text, f"machine {plan.name}") from error
        sharing.admit(plan)
        return channel

    def check_saving(self, plan: Plan) -> None:
        """Refuse one that a start could not put together as it is now."""
        if self.status(plan).word in ("running", "paused"):
            moment.check_saving(plan)

    def save(self, plan: Plan, place: Path, copy: Callable[[], None] | None = None, *, go_on: bool) -> float:
        """Save memory, devices and disks into a new directory; seconds the machine stood still."""
        self._running(plan)
        return moment.save(plan, place, go_on=go_on)

    def end(self, plan: Plan) -> None:
        """Do nothing: who is saved and doesn't go on has ended with that."""

    def saved(self, place: Path) -> AbstractContextManager[Saved]:
        """Load what was saved."""
        return moment.opened(place)

    def restore(self, plan: Plan, saved: Saved, was: Plan) -> Channel:
        """Begin as what was saved; the guest goes on at `Channel.go()`, a copy of it when it is introduced."""
        moment.check(plan, saved)
        copied = plan.id != was.id
        if copied:
            Path(plan.directory, arrival.MARK).touch()
        return self._launch(plan, memory.path_of(saved.state), still=copied)

    def check_copying(self, plan: Plan) -> None:
        """Refuse one that has no agent which would tell a copy who it is."""
        self._running(plan)
        arrival.check(plan)

    def arrive(self, plan: Plan) -> None:
        """Wait until QEMU has read what was saved."""
        self._arriving(plan, arrival.arrive)

    def introduce(self, plan: Plan) -> None:
        """Let a copy go on as who it is."""
        self._arriving(plan, arrival.introduce)

    def _arriving(self, plan: Plan, do: Callable[[Plan], object]) -> None:
        try:
            do(plan)
        except QmpUnavailable as error:
            words = _last_words(plan)
            raise Internal(f"machine {plan.name} did not go on{f': {words}' if words else ''}") from error

    def attach(self, plan: Plan) -> Channel:
        """Open a further connection to the monitor, which has the serial console."""
        try:
            return Channel.connect(Path(plan.directory, "monitor.sock"))
        except OSError as error:
            raise NotRunning(plan, self.status(plan).word) from error

    def exec(self, plan: Plan, program: Program) -> Channel:
        """Have the guest agent run a further program; it waits for `Channel.go()`."""
        self._running(plan)
        return errand.begin(plan, program)

    def signal(self, plan: Plan, number: int) -> None:
        """Press the power button (TERM and its like), or switch the machine off (KILL).

        Raises `Unsupported` for other signals: a machine has no program to send them to.
        """
        process = life.observe(Path(plan.directory)).process
        if process is None:
            raise NotRunning(plan, self.status(plan).word)
        if number == signal.SIGKILL:
            process.signal(number)
        elif number in _POWER:
            with self.control(plan) as control:
                control.power_down()
        else:
            name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
            raise Unsupported(
                f"machine {plan.name} cannot be sent {name}: TERM presses its power button, KILL its plug"
            )

    def status(self, plan: Plan) -> Status:
        """Read the running truth."""
        seen = life.observe(Path(plan.directory))
        if seen.process is not None:
            paused = seen.word == "running" and Path(plan.directory, _MARKER).exists()
            return Status(word="paused" if paused else seen.word, pid=seen.process.pid)
        ended = how_ended(seen.ending, plan)
        if ended and ended.code and not ended.error:
            ended = msgspec.structs.replace(ended, error=_last_words(plan, ended.code))
        return Status(word=seen.word, exit=ended)

    def stats(self, plan: Plan) -> Stats:
        """Measure the machine from outside."""
        self._running(plan, "running", "paused")
        used = group(plan).usage()
        return Stats(
            used=used,
            memory_limit=computer.memory(plan),
            pids=used.pids,
            traffic=gauge.traffic(plan),
        )

    def processes(self, plan: Plan) -> list[ProcessRow]:
        """List the processes inside, by their pids there, as the guest agent says."""
        with self.exec(plan, Program(argv=("/proc",), builtin="processes")) as channel:
            channel.attach(stdin=False)
            channel.go()
            text = b""
            while (frame := channel.receive(30)) is not None and frame.type is not Type.EXIT:
                text += frame.payload if frame.type is Type.STDOUT else b""
        now = time.time()
        return [gauge.row(line, now) for line in text.decode(errors="replace").splitlines() if line]

    def footprint(self, plan: Plan) -> Footprint:
        """Measure the memory, as the guest sees it."""
        self._running(plan)
        return elastic.of_machine(extent.socket(plan), self.status(plan).pid, group(plan))

    def allot(self, plan: Plan, memory: int) -> None:
        """Take or give memory with the balloon."""
        self._running(plan)
        extent.allot(plan, memory)

    def resize(self, plan: Plan) -> None:
        """Apply the plan's limits, as far as the running machine can have them."""
        self._running(plan)
        extent.resize(plan, group(plan))

    def plug(self, plan: Plan, use: Attachment) -> None:
        """Plug an interface in, and have the guest's agent, if it answers, set its addresses."""
        self._running(plan)
        with Qmp(extent.socket(plan), slot.PATIENCE) as control:
            slot.plug(control, use, plan.name)
        wire.address(plan, use)

    def unplug(self, plan: Plan, use: Attachment) -> None:
        """Have the guest let an interface go."""
        self._running(plan)
        with Qmp(extent.socket(plan), slot.PATIENCE) as control:
            slot.unplug(control, use.mac, use.network, plan.name)

    def pause(self, plan: Plan) -> None:
        """Stop the machine's virtual CPUs."""
        self._running(plan)
        with self.control(plan) as control:
            Path(plan.directory, _MARKER).touch()
            control.pause()

    def resume(self, plan: Plan) -> None:
        """Let them run again."""
        if self.status(plan).word != "paused":
            raise Conflict(f"machine {plan.name} is not paused")
        with self.control(plan) as control:
            control.resume()
            Path(plan.directory, _MARKER).unlink(missing_ok=True)

    def stalled(self, plan: Plan) -> str:
        """Tell why QEMU has stopped the machine: what its guest writes has no room here, or its watchdog did."""
        try:
            with Qmp(Path(plan.directory, computer.QMP), patience=_GLANCE) as control:
                reason = _STALLS.get(control.status(), "")
        except (QmpUnavailable, QmpRefused):  # it has just ended, or somebody else speaks with it
            return ""
        if reason:
            Path(plan.directory, _MARKER).touch()
        return reason.format(name=plan.name, directory=computer.hardware(plan).home)

    def release(self, plan: Plan) -> None:
        """Kill whatever is left and remove what `prepare` and `start` made. Idempotent, at any moment."""
        life.clear(Path(plan.directory), group(plan))
        shutil.rmtree(plan.directory, ignore_errors=True)

    def control(self, plan: Plan) -> Qmp:
        """Reach QEMU."""
        return Qmp(Path(plan.directory, computer.QMP))

    def _running(self, plan: Plan, *words: str) -> None:
        word = self.status(plan).word
        if word not in (words or ("running",)):
            raise NotRunning(plan, word)

    def _plan(self, plan: Plan, host: Host) -> list[Operation]:
        home = group(plan)
        return computer.launch(plan, host, home.joins, home.unified, home.reap)


def _last_words(plan: Plan, code: int = 0) -> str:
    """Find what QEMU complained about, or the guest's kernel: both speak on the terminal that is the serial console."""
    lines = _said(plan, _TAIL)
    said = complaints("\n".join(line for line in lines if line.startswith("qemu-system-")))
    if said:
        return f"the machine ended: {said[-1]}"
    panic = panicked("\n".join(_said(plan, _DUMP))) if code == 1 else ""
    return f"the guest's kernel panicked: {panic}" if panic else ""


def _said(plan: Plan, count: int) -> list[str]:
    whole = b"".join(record.content for record in tail(Path(plan.log.path), count))  # a line may come in pieces
    return [line.strip() for line in whole.decode(errors="replace").splitlines()]
