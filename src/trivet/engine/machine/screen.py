"""A machine's screen, keyboard and mouse, by QMP."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from trivet.base.error import InvalidArgument
from trivet.hypervisor.qmp import Qmp
from trivet.isolation import computer, display
from trivet.isolation.plan import Plan

_PACE = 0.03  # seconds between keys: a BIOS keyboard buffer holds sixteen
_START = 3.0
_LIMIT = 4096
_LARGEST = 256 << 20
BUTTONS = ("left", "middle", "right", "wheel-up", "wheel-down")
RANGE = 0x7FFF
"""Places on the screen go from 0 to this, across and down."""


def control(plan: Plan, patience: float = 10.0) -> Qmp:
    """Reach a machine's QEMU, which may have been started only just now."""
    path, deadline = Path(plan.directory, computer.QMP), time.monotonic() + _START
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(_PACE)
    return Qmp(path, patience=patience)


def picture(plan: Plan) -> bytes:
    """Take a picture of the screen, as PNG."""
    with tempfile.TemporaryFile() as file, control(plan) as qmp:
        writable = os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            number = qmp.add(writable)
        finally:
            os.close(writable)
        try:
            qmp.execute("screendump", filename=f"/dev/fdset/{number}", format="png")
        finally:
            qmp.execute("remove-fd", **{"fdset-id": number})
        return file.read(_LARGEST)


def connect(plan: Plan) -> socket.socket:
    """Connect to the screen."""
    with control(plan) as qmp:
        return display.connect(qmp)


def press(plan: Plan, chords: Iterable[list[str]]) -> None:
    """Press keys, one chord after the other."""
    wanted = list(chords)
    if len(wanted) > _LIMIT:
        raise InvalidArgument(f"more than {_LIMIT} keys at once")
    with control(plan, patience=30 + len(wanted) * 2 * _PACE) as qmp:
        for keys in wanted:
            qmp.execute("send-key", keys=[{"type": "qcode", "data": key} for key in keys], **{"hold-time": 10})
            time.sleep(_PACE)


def point(plan: Plan, x: int, y: int, button: str = "", down: bool | None = None) -> None:
    """Move the pointer, and press or release a button there (None: both).

    Raises `InvalidArgument` for a place that isn't on the screen.
    """
    if not (0 <= x <= RANGE and 0 <= y <= RANGE) or (button and button not in BUTTONS):
        raise InvalidArgument(f"no such place or button: {x}, {y}, {button or 'none'}")
    moves = [{"type": "abs", "data": {"axis": axis, "value": value}} for axis, value in (("x", x), ("y", y))]
    clicks = [True, False] if down is None else [down]
    with control(plan) as qmp:
        qmp.execute("input-send-event", events=moves)
        for each in clicks if button else ():
            qmp.execute("input-send-event", events=[{"type": "btn", "data": {"button": button, "down": each}}])
