"""`--on-error shell`: the terminal's end of a shell in the step that failed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from trivet.cli import terminal
from trivet.cli.attach import Settings, converse
from trivet.cli.progress import Display
from trivet.client.errand import Line
from trivet.client.problem import EngineGone
from trivet.client.schema_progress import Progress
from trivet.client.stream import Stream

SHELL = "[shell]"  # the progress line that announces it
PATIENCE = 10.0  # seconds between that line and the question


class Shell:
    """Takes the engine's question in an errand's thread, and talks in the main one, where signals arrive."""

    def __init__(self) -> None:
        self._lines: queue.Queue[Line] = queue.Queue()
        self._over = threading.Event()

    def answer(self, name: str, line: Line) -> None:
        """Keep the connection until the conversation is over."""
        self._lines.put(line)
        self._over.wait()

    def watch(self, steps: Iterator[Progress], display: Display) -> Iterator[Progress]:
        """Pass progress on, but for the line that announces the shell."""
        for step in steps:
            if step.id == SHELL:
                display.show(step)
                display.close()
                self._converse()
            else:
                yield step

    def _converse(self) -> None:
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            return
        rows, columns = terminal.size()
        line.reply(rows=rows or 24, columns=columns or 80)
        try:
            converse(Stream(line.socket, line.incoming.rest()), Settings(terminal=True, stdin=True))
        except EngineGone:
            pass  # the build's own answer says what happened
        finally:
            self._over.set()
