"""A further program in a machine of its own, by way of its guest agent, behind the same frames as on the other levels.

The agent starts programs, and reads and writes files, but passes no streams: the program's output goes to files below
/run in the guest, which are read while they grow, and its input is collected first. A terminal it can't have.
"""

from __future__ import annotations

import secrets
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

from trivet.base.clock import now_ns
from trivet.base.error import Corrupt, TrivetError
from trivet.hypervisor.qga import Qga, Reader
from trivet.isolation.computer import AGENT
from trivet.isolation.errand_command import Command, command
from trivet.isolation.plan import Plan, Program
from trivet.launch.channel import Channel, Frame
from trivet.launch.frame import ATTACH_STDERR, ATTACH_STDOUT, MAXIMUM, Type

_STEP, _LONGEST_STEP = 0.05, 1.0
_PING = 6.0
_INPUT = 1 << 30
_BLOCK = 4 << 20
_RUN = 'h=$H; unset H; exec <"$h/in" >"$h/out" 2>"$h/err"; '


def begin(plan: Plan, program: Program) -> Channel:
    """Have a program ready to run; it waits for `Channel.go()`. Raises `Unsupported`, `AgentAbsent`."""
    wanted = command(plan, program)
    agent_of(plan, _PING).ask("guest-ping")
    agent = agent_of(plan)
    ours, theirs = socket.socketpair()
    errand = _Errand(agent, wanted, stdin=program.stdin, channel=Channel(theirs))
    threading.Thread(target=errand.run, name="errand", daemon=True).start()
    return Channel(ours)


def agent_of(plan: Plan, patience: float = 20.0) -> Qga:
    """Reach the guest agent of a machine; `patience` is for each of its answers, in seconds."""
    return Qga(Path(plan.directory, AGENT), plan.name, patience)


class _Errand:
    """One program, from GO to EXIT; it lives in a thread of its own."""

    def __init__(self, agent: Qga, wanted: Command, *, stdin: bool, channel: Channel) -> None:
        self._agent = agent
        self._wanted = wanted
        self._stdin = stdin
        self._channel = channel
        self._home = f"/run/trivet-{secrets.token_hex(8)}"
        self._flags = 0
        self._held = bytearray()
        self._pid = 0

    def run(self) -> None:
        """Answer the client's frames until the program has ended or the client is gone."""
        with self._channel, suppress(OSError):
            try:
                if self._await(Type.GO):
                    self._carry_out()
            except TrivetError as error:
                self._complain(error.message)
            finally:
                with suppress(TrivetError):
                    self._shell('rm -rf -- "$H"', ())

    def _carry_out(self) -> None:
        self._channel.send(Type.STARTED, struct.pack("<I", 0))
        self._shell('umask 077; mkdir -- "$H" && : >"$H/in" && : >"$H/out" && : >"$H/err"', (), wait=True)
        if self._stdin and not self._collect():
            return
        self._pid = self._shell(_RUN + self._wanted.text, self._wanted.arguments)
        self._follow()

    def _collect(self) -> bool:
        """Take the input to a file in the guest; False when the client went away meanwhile."""
        size = 0
        while (frame := self._channel.receive()) is not None:
            if frame.type is not Type.STDIN:
                continue
            if frame.payload:
                self._held += frame.payload
                size += len(frame.payload)
                if size > _INPUT:
                    raise Corrupt("more input than a guest agent is given")
            if self._held and (len(self._held) >= _BLOCK or not frame.payload):
                self._agent.write(f"{self._home}/in", bytes(self._held), more=True)
                self._held.clear()
            if not frame.payload:
                return True
        return False

    def _follow(self) -> None:
        readers = [
            (Type.STDOUT, self._agent.read(f"{self._home}/out")),
            (Type.STDERR, self._agent.read(f"{self._home}/err")),
        ]
        pause, changed = _STEP, bytearray()
        while True:
            status = self._agent.ask("guest-exec-status", pid=self._pid)  # before reading: what is written is read
            said = sum(self._pass_on(kind, reader, changed) for kind, reader in readers)
            if status.get("exited"):
                break
            pause = _STEP if said else min(2 * pause, _LONGEST_STEP)
            if not self._obey(pause):
                return
        if self._wanted.change and not status.get("exitcode"):
            self._send(Type.STDOUT, self._wanted.change(bytes(changed)))
        number = int(status.get("signal", 0))
        code = 128 + number if number else int(status.get("exitcode", 0))
        self._end(code, number)

    def _pass_on(self, kind: Type, reader: Reader, changed: bytearray) -> int:
        total = 0
        while data := reader.read():
            total += len(data)
            if kind is Type.STDOUT and self._wanted.change:
                changed += data
                if len(changed) > _BLOCK:
                    raise Corrupt("the guest's answer is too long")
            else:
                self._send(kind, data)
        return total

    def _obey(self, patience: float) -> bool:
        """Wait, and heed signals meanwhile; False when the client is gone, who takes the program along."""
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            try:
                frame = self._channel.receive(left)
            except TimeoutError:
                return True
            if frame is None or frame.type is Type.CLOSE:
                self._kill(9)
                return False
            if frame.type is Type.SIGNAL:
                self._kill(struct.unpack("<I", frame.payload[:4])[0])
        return True

    def _kill(self, number: int) -> None:
        with suppress(TrivetError):
            self._shell('kill -"$1" "$2"', (str(number), str(self._pid)))

    def _await(self, kind: Type) -> bool:
        while (frame := self._channel.receive()) is not None:
            self._note(frame)
            if frame.type is kind:
                return True
        return False

    def _note(self, frame: Frame) -> None:
        if frame.type is Type.ATTACH:
            self._flags = struct.unpack("<I", frame.payload[:4])[0]

    def _shell(self, text: str, arguments: tuple[str, ...], *, wait: bool = False) -> int:
        """Start a shell in the guest; its pid there. It knows where the program's files are as $H."""
        answer = self._agent.ask(
            "guest-exec",
            path="/bin/sh",
            arg=["-c", text, "sh", *arguments],
            env=[*self._wanted.env, f"H={self._home}"],
        )
        pid = int(answer["pid"])
        while wait and not self._agent.ask("guest-exec-status", pid=pid).get("exited"):
            time.sleep(_STEP)
        return pid

    def _send(self, kind: Type, data: bytes) -> None:
        if self._flags & (ATTACH_STDOUT if kind is Type.STDOUT else ATTACH_STDERR):
            for start in range(0, len(data), MAXIMUM):
                self._channel.send(kind, data[start : start + MAXIMUM])

    def _complain(self, text: str) -> None:
        self._send(Type.STDERR, f"trivet: {text}\n".encode())
        self._end(126, 0)

    def _end(self, code: int, number: int) -> None:
        self._channel.send(Type.EXIT, struct.pack("<IIQI", code, number, now_ns(), 0))
