"""A machine's screen by VNC: QEMU, which can open nothing by itself, is handed what it listens on, or a connection."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress
from pathlib import Path

from trivet.hypervisor.qmp import Qmp
from trivet.isolation import computer
from trivet.isolation.plan import Plan

_BACKLOG = 8
_GIVEN = "screen"


def offer(plan: Plan, qmp: Qmp) -> Path:
    """Have QEMU listen for VNC on a socket in the machine's directory, only root's; idempotent, its path."""
    path = Path(plan.directory, computer.SCREEN)
    if _answers(path):
        return path
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)  # before anybody can connect; a umask would be all threads'
        listener.listen(_BACKLOG)
        qmp.give(_GIVEN, listener.fileno())
        qmp.execute("display-update", type="vnc", addresses=[{"type": "fd", "str": _GIVEN}])
    return path


def connect(qmp: Qmp) -> socket.socket:
    """Connect to the screen, for one viewer."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            name = f"viewer-{secrets.token_hex(4)}"
            qmp.give(name, theirs.fileno())
            qmp.execute("add_client", protocol="vnc", fdname=name, skipauth=True)
        except BaseException:
            ours.close()
            raise
    return ours


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(OSError):
        probe.connect(str(path))
        return True
    return False
