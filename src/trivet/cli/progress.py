"""Progress of long operations: a live block on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import msgspec

from trivet.cli import terminal
from trivet.cli.control import Neutraliser, visible
from trivet.cli.output import human_size
from trivet.client.connection import Writer
from trivet.client.schema_progress import Progress

if TYPE_CHECKING:
    from trivet.client.archive import Reader  # tarfile takes its time

REDRAW = 0.08  # seconds between two pictures
REPORT = 5.0  # seconds between two plain lines about the same part
PATIENCE = 1.0  # seconds that need no explanation
BAR = 24
PIECE = 256 << 10


class Display(Protocol):
    """Somebody who shows progress."""

    def show(self, step: Progress) -> None:
        """Take in one line of progress."""

    def close(self) -> None:
        """Show the last picture."""


def follow(
    steps: Iterator[Progress], *, quiet: bool = False, style: str = "auto", display: Display | None = None
) -> dict[str, Any]:
    """Show an operation's progress until its end; returns its result. `style` is auto, tty or plain."""
    display = display or choose(quiet=quiet, style=style)
    result: dict[str, Any] = {}
    try:
        for step in steps:
            if step.result is not None:
                result = step.result
            else:
                display.show(step)
    finally:
        display.close()
    return result


def choose(*, quiet: bool, style: str = "auto", output: TextIO | None = None) -> Display:
    """Pick the display that suits where standard error goes."""
    output = output or sys.stderr
    if quiet:
        return Silent()
    return Live(output) if is_live(output, style) else Plain(output)


def is_live(output: TextIO, style: str) -> bool:
    """Tell whether to draw over what was drawn; `style` is auto, tty or plain."""
    return style == "tty" or (style == "auto" and output.isatty() and os.environ.get("TERM") != "dumb")


class Silent:
    """Shows nothing."""

    def show(self, step: Progress) -> None:
        """Look away."""

    def close(self) -> None:
        """Have shown nothing."""


class Transfer:
    """Counts the bytes of a copy and shows them once it has taken a second; locked, for a sender thread."""

    def __init__(self, display: Display, name: str, status: str) -> None:
        self._display = display
        self._step = Progress(id=name, status=status)
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def count(self, amount: int) -> None:
        """Add bytes."""
        self._step = msgspec.structs.replace(self._step, current=self._step.current + amount)
        if time.monotonic() - self._began > PATIENCE:
            self.show(self._step)

    def show(self, step: Progress) -> None:
        """Show a line of somebody else's progress too."""
        with self._lock:
            self._display.show(step)

    def close(self) -> None:
        """Show the last picture."""
        with self._lock:
            self._display.close()

    def sender(self, source: Reader) -> Callable[[Writer], None]:
        """Make a request body of what `source` holds."""

        def produce(writer: Writer) -> None:
            while data := source.read(PIECE):
                writer.write(data)
                self.count(len(data))

        return produce

    def counting(self, writer: Writer) -> Writer:
        """Make a writer that counts what passes."""
        return _Counting(writer, self)


class _Counting:
    def __init__(self, writer: Writer, transfer: Transfer) -> None:
        self._writer = writer
        self._transfer = transfer

    def write(self, data: bytes, /) -> int:
        self._transfer.count(len(data))
        return self._writer.write(data)


class Meter:
    """One part of an operation: what it does, how far it is, how fast."""

    def __init__(self, step: Progress, now: float) -> None:
        self.step = step
        self._since = now
        self._first = step.current
        self._status = step.status

    def update(self, step: Progress, now: float) -> None:
        """Take in a newer line; another status or a smaller count starts the clock again."""
        if step.status != self._status or step.current < self._first:
            self._since, self._first, self._status = now, step.current, step.status
        self.step = step

    def speed(self, now: float) -> float:
        """Bytes per second since this status began, 0 when too early to say."""
        elapsed = now - self._since
        return (self.step.current - self._first) / elapsed if elapsed > 0.2 else 0.0

    def fitted(self, now: float, width: int) -> str:
        """Write the line with a bar, which gives way where there is no room for all of it."""
        text = self.text(now, BAR)
        return text if len(text) <= width else self.text(now, max(BAR - len(text) + width, 0))[:width]

    def text(self, now: float, bar: int = 0) -> str:
        """Write the part's line: name, status, bar, bytes, speed, time left."""
        step = self.step
        words = [visible(word) for word in (step.id, step.status) if word]
        if not step.current and not step.total:
            return " ".join(words)
        if bar and step.total:
            full = round(bar * min(step.current / step.total, 1))
            words.append("━" * full + "╌" * (bar - full))
        words.append(human_size(step.current) + (f" of {human_size(step.total)}" if step.total else ""))
        speed = self.speed(now)
        if speed > 0 and step.current < (step.total or step.current + 1):
            words.append(f"{human_size(speed)}/s")
            if step.total:
                words.append(f"{_clock((step.total - step.current) / speed)} left")
        return " ".join(words)


class Plain:
    """A line whenever a part's status changes, and every few seconds while bytes flow."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._meters: dict[str, Meter] = {}
        self._told: dict[str, tuple[str, float]] = {}
        self._filter = Neutraliser()

    def show(self, step: Progress) -> None:
        """Print what is new."""
        now = time.monotonic()
        if step.stream:
            self._output.write(self._filter.feed(step.stream.encode()).decode(errors="replace"))
        if step.status:
            meter = _meter(self._meters, step, now)
            status, when = self._told.get(step.id, ("", 0.0))
            if status != step.status or now - when > REPORT:
                self._told[step.id] = (step.status, now)
                self._output.write(meter.text(now) + "\n")
        self._output.flush()

    def close(self) -> None:
        """Leave the lines as they are."""
        self._output.flush()


class Live:
    """A block of lines, one per part, drawn over itself; raw output scrolls above it."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._meters: dict[str, Meter] = {}
        self._drawn = 0
        self._when = 0.0
        self._filter = Neutraliser()
        self._open = False  # raw output ended in the middle of a line

    def show(self, step: Progress) -> None:
        """Take in a line, redraw when it is time."""
        now = time.monotonic()
        if step.stream:
            self._scroll(self._filter.feed(step.stream.encode()).decode(errors="replace"))
        if step.status:
            _meter(self._meters, step, now)
        if now - self._when >= REDRAW and not self._open:
            self._draw(now)

    def close(self) -> None:
        """Draw the block a last time and leave the cursor below it."""
        if self._open:
            self._output.write("\n")
        self._draw(time.monotonic())

    def _scroll(self, text: str) -> None:
        self._erase()
        self._output.write(text)
        self._output.flush()
        self._open = not text.endswith("\n")

    def _draw(self, now: float) -> None:
        self._when = now
        columns, rows = _screen()
        meters = list(self._meters.values())[-max(rows - 2, 1) :]
        self._erase()
        for meter in meters:
            self._output.write(meter.fitted(now, columns - 1) + "\n")
        self._drawn = len(meters)
        self._output.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._output.write(f"\x1b[{self._drawn}F\x1b[J")  # up to the block's first line, clear downwards
            self._drawn = 0


def _meter(meters: dict[str, Meter], step: Progress, now: float) -> Meter:
    if step.id in meters:
        meters[step.id].update(step, now)
    else:
        meters[step.id] = Meter(step, now)
    return meters[step.id]


def _screen() -> tuple[int, int]:
    rows, columns = terminal.size()
    return columns or 80, rows or 24


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
