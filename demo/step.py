"""What the demo shows while it works: the commands a user would type, and that time passes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from bench.table import BOLD, FAINT, styled

COMMAND = Path(sys.executable).with_name("trivet")
LOGS = Path("build/demo")
PICTURES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SILENT = 1.0  # seconds nobody minds waiting without a word
REPEAT = 15.0  # seconds between two lines where there is no terminal
ERASE = "\r\x1b[K"


class Failure(Exception):
    """The demo can't go on; one sentence says why."""


def width() -> int:
    """Return how many columns there are."""
    return shutil.get_terminal_size((100, 24)).columns


def headline(text: str) -> None:
    """Begin a part of the demo."""
    print(f"\n{styled(text, BOLD)}", flush=True)


def note(text: str) -> None:
    """Say what came out of it, over whatever shows that time passes."""
    print(f"{ERASE if sys.stdout.isatty() else ''}  {shortened(text, width() - 3)}", flush=True)


def shortened(text: str, limit: int) -> str:
    """Cut a long line so that its end, which tells how long it took, stays."""
    if len(text) <= limit:
        return text
    _, dot, duration = text.rpartition(" · ")
    ending = f"…{dot}{duration}" if dot else "…"
    return text[: limit - len(ending)] + ending


def show(*words: str, ending: str = "") -> None:
    """Print a command line as one would type it, over several lines if it is long; an option stays with its value."""
    lines: list[list[str]] = [[]]
    for word in map(shlex.quote, words):
        if len(" ".join([*lines[-1], word])) > width() - 6:
            lines.append([lines[-1].pop()] if lines[-1][-1].startswith("-") else [])
        lines[-1].append(word)
    print(styled("$", FAINT), " \\\n    ".join(map(" ".join, lines)) + ending, flush=True)


def trivet(*words: str) -> str:
    """Run `trivet` and return what it printed. Raises `Failure`."""
    show("trivet", *words)
    with Waiting(f"trivet {words[0]}"):
        done = subprocess.run([COMMAND, *words], capture_output=True, text=True)
    if done.returncode:
        raise Failure(done.stderr.strip() or f"trivet {words[0]} ended with status {done.returncode}")
    for line in done.stderr.splitlines():
        note(line)
    return done.stdout


def trivet_aloud(*words: str, wanted: str) -> None:
    """Run a long `trivet` command and show those lines of its progress that begin with `wanted`.

    A line that only says how the one before it ended takes its place. All of them are in a file. Raises `Failure`.
    """
    show("trivet", *words)
    began, log, latest = time.monotonic(), LOGS / f"{words[0]}.log", ""
    command = subprocess.Popen([COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with Waiting(f"trivet {words[0]}") as waiting, log.open("w") as file, command:
        assert command.stdout
        for line in command.stdout:
            file.write(line)
            if line.startswith(wanted):
                if latest and not line.startswith(latest):
                    note(latest)
                waiting.text = latest = line.rstrip()
    if command.returncode:
        last = "".join(f"  {line}\n" for line in log.read_text().splitlines()[-10:])
        raise Failure(f"trivet {words[0]} ended with status {command.returncode}; its last words ({log}):\n{last}")
    note(latest)
    note(styled(f"{time.monotonic() - began:.1f} s", FAINT))


class Waiting:
    """Shows that time passes for as long as the body takes, once that is over a second. `text` may change."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._spin if sys.stdout.isatty() else self._tell, daemon=True)

    def __enter__(self) -> Waiting:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _line(self) -> str:
        return f"{self.text[: width() - 14]} · {time.monotonic() - self._began:.0f} s"

    def _spin(self) -> None:
        if self._over.wait(SILENT):
            return
        for turn in range(1_000_000):
            print(f"{ERASE}  {PICTURES[turn % len(PICTURES)]} {self._line()}", end="", flush=True)
            if self._over.wait(0.1):
                break
        print(ERASE, end="", flush=True)

    def _tell(self) -> None:
        pause = SILENT
        while not self._over.wait(pause):
            print(f"  … {self._line()}", flush=True)
            pause = REPEAT
