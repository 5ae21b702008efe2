"""How a template grows: a machine boots until its agent says hello, and is stopped there."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

import msgspec

from trivet.base.error import Internal
from trivet.hypervisor import memory
from trivet.hypervisor.device.serial import Port
from trivet.hypervisor.machine import Machine, Memory, command_line
from trivet.hypervisor.qmp import Qmp

_REST = 0.25
"""Seconds for what a kernel puts off until it has booted, so that not every fork does it again."""
_END = 10.0


class TemplateFailed(Internal):
    """A machine that couldn't become a template."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"cannot make a template of a machine: {cause}")


def grow(shape: Machine, patience: float) -> tuple[int, int]:
    """Boot a machine of this shape; descriptors of its memory and of its state, sealed.

    Raises `TemplateFailed` when it is silent for `patience` seconds or ends, and what QMP raises.
    """
    with contextlib.ExitStack() as undo:
        made = [memory.make("trivet-memory", shape.memory), memory.make("trivet-state")]
        for descriptor in made:
            undo.callback(os.close, descriptor)
        with contextlib.ExitStack() as meanwhile:
            agent, guest = (meanwhile.enter_context(end) for end in socket.socketpair())
            control, monitor = (meanwhile.enter_context(end) for end in socket.socketpair())
            file = Memory(path=f"/proc/self/fd/{made[0]}", shared=True)
            machine = msgspec.structs.replace(
                shape, memory_file=file, agent=Port(name=shape.agent.name if shape.agent else "", fd=guest.fileno())
            )
            qemu = _start(machine, monitor.fileno(), (guest.fileno(), made[0]))
            meanwhile.callback(_end, qemu)
            guest.close()
            monitor.close()
            _await_hello(agent, patience, qemu)
            time.sleep(_REST)
            with Qmp(Path("template"), connection=control) as qmp:
                qmp.save(made[1])
        for descriptor in made:
            memory.seal(descriptor)
        undo.pop_all()
        return made[0], made[1]


def _start(machine: Machine, monitor: int, inherited: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start QEMU so that it ends with us: a machine that is stopped wouldn't notice that nobody is there."""
    control = ("-chardev", f"socket,id=qmp,fd={monitor}", "-mon", "chardev=qmp,mode=control")
    try:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command_line(machine), *control],
            pass_fds=(monitor, *inherited),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise TemplateFailed(f"{error.filename}: {error.strerror}") from error


def _await_hello(agent: socket.socket, patience: float, qemu: subprocess.Popen[bytes]) -> None:
    agent.settimeout(patience)
    try:
        if agent.recv(1):
            return
    except TimeoutError:
        raise TemplateFailed(f"it did not answer within {patience:.0f} s of its start") from None
    except OSError:
        pass
    _, words = qemu.communicate(timeout=_END)
    said = words.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise TemplateFailed(f"it ended: {said[-1]}")


def _end(qemu: subprocess.Popen[bytes]) -> None:
    qemu.kill()
    qemu.communicate()
