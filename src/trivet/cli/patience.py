"""A line on the terminal while something takes longer than a second."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trivet.cli.control import visible

PATIENCE = 1.0  # seconds that need no explanation
BEAT = 0.2


@contextmanager
def patience(text: str) -> Iterator[None]:
    """Show `text` and the seconds while the block takes long; nothing unless standard error is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    clock = threading.Thread(target=_tick, args=(visible(text), done), daemon=True)
    clock.start()
    try:
        yield
    finally:
        done.set()
        clock.join()


def _tick(text: str, done: threading.Event) -> None:
    began = time.monotonic()
    if done.wait(PATIENCE):
        return
    while not done.wait(BEAT):
        sys.stderr.write(f"\r{text} · {time.monotonic() - began:.0f} s\x1b[K")
        sys.stderr.flush()
    sys.stderr.write("\r\x1b[K")
    sys.stderr.flush()
