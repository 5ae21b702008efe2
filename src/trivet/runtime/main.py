"""`trivet-runtime`: an OCI runtime for the command line."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trivet.base.error import TrivetError
from trivet.oci.runtime import VERSION

VERBS = {
    "create": "set a container up",
    "start": "let the program of a created container begin",
    "run": "create and start",
    "state": "print a container's state",
    "kill": "send a signal",
    "delete": "remove a stopped container",
    "exec": "run a further program in a running container",
    "list": "list containers",
    "ps": "list the processes inside",
    "pause": "freeze a container",
    "resume": "thaw a container",
    "spec": "write an example config.json",
    "features": "say what this runtime can do",
}
FAILURE = 1


def parser(verb: str | None) -> argparse.ArgumentParser:
    """Build the parser; only the verb asked for is imported, since every start pays for it."""
    root = argparse.ArgumentParser(prog="trivet-runtime", description=__doc__)
    root.add_argument("--root", type=Path, default=Path("/run/trivet-runtime"), help="where state is kept")
    root.add_argument("--log", type=Path, help="append errors to this file")
    root.add_argument("--log-format", choices=("text", "json"), default="text")
    root.add_argument("--debug", action="store_true", help="show where an error came from")
    root.add_argument("--version", action="version", version=f"trivet-runtime 0.1.0\nspec: {VERSION}")
    verbs = root.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text)
        if name == verb:
            importlib.import_module(f"trivet.runtime.verb.{name}").add(sub)
    return root


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is the verb's, or 1 after an error."""
    words = sys.argv[1:] if words is None else list(words)
    verb = next((word for word in words if word in VERBS), None)
    arguments = parser(verb).parse_args(words)
    try:
        return int(importlib.import_module(f"trivet.runtime.verb.{arguments.verb}").run(arguments))
    except (TrivetError, OSError, ValueError, OverflowError) as error:
        if arguments.debug:
            raise
        return _complain(error, arguments)


def _complain(error: Exception, arguments: argparse.Namespace) -> int:
    message = str(error)
    sys.stderr.write(f"trivet-runtime: {message}\n")
    if hint := getattr(error, "hint", None):
        sys.stderr.write(f"hint: {hint}\n")
    if arguments.log:
        _log(arguments.log, arguments.log_format, message)
    return FAILURE


def _log(path: Path, form: str, message: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = f"time={json.dumps(now)} level=error msg={json.dumps(message)}"
    if form == "json":
        line = json.dumps({"level": "error", "msg": message, "time": now})
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
