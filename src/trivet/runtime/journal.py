"""Where a command says what went wrong, and what it left out: its --log, or standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


class Journal:
    """The lines that callers of a runtime read: text or JSON objects with level, msg and time."""

    def __init__(self, path: Path | None, form: str, *, verbose: bool = False) -> None:
        self._path = path
        self._form = form
        self.verbose = verbose

    def warn(self, message: str) -> None:
        """Say what won't be as it was asked for."""
        message = _plain(message)
        if self._path is None:
            sys.stderr.write(f"trivet-runtime: warning: {message}\n")
        else:
            self._append("warning", message)

    def fail(self, error: Exception) -> None:
        """Say why it failed, to people and, if there is one, to the log."""
        message = _plain(f"{error}")
        sys.stderr.write(f"trivet-runtime: {message}\n")
        if hint := getattr(error, "hint", None):
            sys.stderr.write(f"hint: {hint}\n")
        self._append("error", message)

    def _append(self, level: str, message: str) -> None:
        if self._path is None:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f"time={json.dumps(now)} level={level} msg={json.dumps(message)}"
        if self._form == "json":
            line = json.dumps({"level": level, "msg": message, "time": now})
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
            file.write(line + "\n")


def _plain(text: str) -> str:
    """Spell out what a hostile configuration would have the terminal do: escape sequences, line ends."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
