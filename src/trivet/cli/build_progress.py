"""A build's progress as people know it from BuildKit: numbered lines, or a block of steps with their last output."""

from __future__ import annotations

import time
from collections import deque
from typing import TextIO

from trivet.cli import terminal
from trivet.cli.control import Neutraliser, visible
from trivet.cli.progress import REDRAW, Display, Meter, Silent, is_live
from trivet.client.schema_progress import Progress

TAIL = 6  # lines of output below a step that runs
MOST_SHOWN = 40  # steps in the block; those that run always


def choose_build(output: TextIO, *, quiet: bool, style: str) -> Display:
    """Pick the display that suits where standard error goes."""
    if quiet:
        return Silent()
    return LiveBuild(output) if is_live(output, style) else PlainBuild(output)


class Vertex:
    """One part of a build: a step, an image that is fetched, the context."""

    def __init__(self, number: int, step: Progress, now: float) -> None:
        self.number = number
        self.begun = now
        self.warns = step.id.partition(" ")[0] == "warning"  # the rest of the id tells one from another
        self.name = "warning:" if self.warns else visible(step.id)
        self.title, self.outcome = _split(step.status)
        self.ended = 0.0
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.meter = Meter(step, now)
        self._line = ""
        self._filter = Neutraliser()

    def update(self, step: Progress, now: float) -> None:
        """Take in a newer line."""
        self.meter.update(step, now)
        if step.status:
            title, self.outcome = _split(step.status)
            self.title = title or self.title
        if self.outcome:
            self.ended = now

    def lines(self, text: str) -> list[str]:
        """Take in output; give the lines that are whole now."""
        clean = self._filter.feed(text.encode()).decode(errors="replace")
        *whole, self._line = (self._line + clean.replace("\r\n", "\n")).split("\n")
        whole = [line.rpartition("\r")[2] for line in whole]
        self.tail.extend(whole)
        return whole

    def rest(self) -> list[str]:
        """Give a last line that was never ended."""
        line, self._line = self._line, ""
        return [line] if line else []

    def seconds(self, now: float) -> float:
        """How long it has taken."""
        return (self.ended or now) - self.begun


def _split(status: str) -> tuple[str, str]:
    title, mark, outcome = status.rpartition(" · ")
    return (title, outcome) if mark else (status, "")


class PlainBuild:
    """`#3 [build 2/4] RUN make`, `#3 0.412 output`, `#3 DONE 1.2s`."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._vertices: dict[str, Vertex] = {}

    def show(self, step: Progress) -> None:
        """Print what is new."""
        now = time.monotonic()
        known = self._vertices.get(step.id)
        vertex = known or Vertex(len(self._vertices) + 1, step, now)
        self._vertices[step.id] = vertex
        before = (vertex.title, vertex.outcome) if known else ("", "")
        if known:
            vertex.update(step, now)
        if step.stream:
            for line in vertex.lines(step.stream):
                self._say(vertex, f"{vertex.seconds(now):.3f} {line}")
        elif (vertex.title, vertex.outcome) != before:
            self._status(step, vertex, now, title=vertex.title != before[0])
        self._output.flush()

    def close(self) -> None:
        """Print output that broke off in the middle of a line."""
        for vertex in self._vertices.values():
            self._rest(vertex, time.monotonic())
        self._output.flush()

    def _status(self, step: Progress, vertex: Vertex, now: float, *, title: bool) -> None:
        if title:
            name = f"{vertex.name} {visible(vertex.title)}".lstrip()
            self._say(vertex, vertex.meter.text(now) if step.total else name)
        if vertex.outcome:
            self._rest(vertex, now)
            self._say(vertex, _ending(vertex, now))

    def _rest(self, vertex: Vertex, now: float) -> None:
        for line in vertex.rest():
            self._say(vertex, f"{vertex.seconds(now):.3f} {line}")

    def _say(self, vertex: Vertex, text: str) -> None:
        self._output.write(f"#{vertex.number} {text}".rstrip() + "\n")


def _ending(vertex: Vertex, now: float) -> str:
    words = {"cached": "CACHED", "failed": "ERROR"}
    return words.get(vertex.outcome, f"DONE {vertex.seconds(now):.1f}s")


class LiveBuild:
    """`[+] Building 2.1s (3/5)` and the steps below it, drawn over itself."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._vertices: dict[str, Vertex] = {}
        self._begun = time.monotonic()
        self._drawn = 0
        self._when = 0.0

    def show(self, step: Progress) -> None:
        """Take in a line, redraw when it is time."""
        now = time.monotonic()
        if step.id in self._vertices:
            self._vertices[step.id].update(step, now)
        else:
            self._vertices[step.id] = Vertex(len(self._vertices) + 1, step, now)
        if step.stream:
            self._vertices[step.id].lines(step.stream)
        if now - self._when >= REDRAW:
            self._draw(now, last=False)

    def close(self) -> None:
        """Draw the block a last time and leave the cursor below it."""
        self._draw(time.monotonic(), last=True)

    def _draw(self, now: float, *, last: bool) -> None:
        self._when = now
        rows, columns = terminal.size()
        lines = self._lines(now, columns or 80, last)
        shown = lines[:1] + lines[1:][-max((rows or 24) - 3, 1) :]
        if self._drawn:
            self._output.write(f"\x1b[{self._drawn}F\x1b[J")
        self._output.write("".join(f"{line}\n" for line in shown))
        self._output.flush()
        self._drawn = len(shown)

    def _lines(self, now: float, columns: int, last: bool) -> list[str]:
        warnings = [vertex for vertex in self._vertices.values() if vertex.warns]
        vertices = [vertex for vertex in self._vertices.values() if not vertex.warns]
        running = [vertex for vertex in vertices if not vertex.outcome]
        done = len(vertices) - len(running)
        word = "Building" if running and not last else "Built"
        lines = [f"[+] {word} {now - self._begun:.1f}s ({done}/{len(vertices)})"]
        for vertex in (*[each for each in vertices if each.outcome][-MOST_SHOWN:], *running):
            lines.append(_row(vertex, now, columns))
            if not vertex.outcome and not last:
                lines += [f" => => # {visible(line)}"[: columns - 1] for line in vertex.tail]
        return lines + [f" {vertex.name} {visible(vertex.title)}"[: columns - 1] for vertex in warnings]


def _row(vertex: Vertex, now: float, columns: int) -> str:
    mark = {"cached": "CACHED ", "failed": "ERROR "}.get(vertex.outcome, "")
    counted = vertex.meter.step.total and not vertex.outcome
    text = vertex.meter.text(now, 12) if counted else f"{vertex.name} {visible(vertex.title)}"
    clock = f"{vertex.seconds(now):.1f}s"
    room = max(columns - len(clock) - 2, 10)
    return f" => {mark}{text}"[:room].ljust(room) + f" {clock}"
