"""What the demo shows while it works: the commands a user would type, and that time passes."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.table import BOLD, FAINT, styled

COMMAND = Path(sys.executable).with_name("trivet")
PICTURES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SILENT = 1.0  # seconds nobody minds waiting without a word
REPEAT = 15.0  # seconds between two lines where there is no terminal


class Failure(Exception):
    """The demo can't go on; one sentence says why."""


def headline(text: str) -> None:
    """Begin a part of the demo."""
    print(f"\n{styled(text, BOLD)}", flush=True)


def note(text: str) -> None:
    """Say what came out of it."""
    print(f"  {text}", flush=True)


def show(*words: str, ending: str = "") -> None:
    """Print a command line as one would type it."""
    print(f"{styled('$', FAINT)} {shlex.join(words)}{ending}", flush=True)


def trivet(*words: str, quiet: bool = False) -> str:
    """Run `trivet` and return what it printed; `quiet` doesn't show the command line. Raises `Failure`."""
    if not quiet:
        show("trivet", *words)
    with waiting(f"trivet {words[0]}"):
        done = subprocess.run([COMMAND, *words], capture_output=True, text=True)
    if done.returncode:
        raise Failure(done.stderr.strip() or f"trivet {words[0]} ended with status {done.returncode}")
    if done.stderr and not quiet:
        print(done.stderr, end="", flush=True)
    return done.stdout


def trivet_aloud(*words: str) -> None:
    """Run a `trivet` command that shows its own progress. Raises `Failure`."""
    show("trivet", *words)
    began = time.monotonic()
    status = subprocess.run([COMMAND, *words]).returncode
    if status:
        raise Failure(f"trivet {words[0]} ended with status {status}, see above")
    note(styled(f"{time.monotonic() - began:.1f} s", FAINT))


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show that time passes for as long as the body takes, once that is over a second."""
    over = threading.Event()
    show = _spin if sys.stdout.isatty() else _tell
    thread = threading.Thread(target=show, args=(text, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _spin(text: str, over: threading.Event) -> None:
    began = time.monotonic()
    if over.wait(SILENT):
        return
    for turn in range(1_000_000):
        print(f"\r  {PICTURES[turn % len(PICTURES)]} {text} · {time.monotonic() - began:.0f} s", end="", flush=True)
        if over.wait(0.1):
            break
    print("\r\x1b[K", end="", flush=True)


def _tell(text: str, over: threading.Event) -> None:
    began = time.monotonic()
    pause = SILENT
    while not over.wait(pause):
        print(f"  … {text} · {time.monotonic() - began:.0f} s", flush=True)
        pause = REPEAT
