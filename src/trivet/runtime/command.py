"""An OCI runtime for the command line: its verbs, and what they have in common."""

from __future__ import annotations

import argparse
import gc
import importlib
from collections.abc import Sequence
from pathlib import Path

from trivet.base.error import TrivetError, Unsupported
from trivet.base.version import VERSION
from trivet.oci import runtime as oci
from trivet.runtime import rootless
from trivet.runtime.journal import Journal

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
    "update": "change a container's limits",
    "events": "print what happens in a container, and what it uses",
    "spec": "write an example config.json",
    "features": "say what this runtime can do",
    "checkpoint": "save a running container's processes",
    "restore": "bring a container back from a checkpoint",
}
FAILURE = 1
_VALUED = ("--root", "--log", "--log-format", "--rootless", "--criu")
_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)

argparse._ = str  # type: ignore[attr-defined]  # as gettext does without a catalog, without looking for one each time


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal; that is asked when there is help to print, as argparse makes one per option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=78)

    def format_help(self) -> str:
        """Format it."""
        import shutil

        self._width = shutil.get_terminal_size().columns - 2
        return super().format_help()


def parser(verb: str | None) -> argparse.ArgumentParser:
    """Build the parser, with the verb asked for only, since every start pays for it."""
    root = argparse.ArgumentParser(
        prog="trivet-runtime",
        description="An OCI runtime.",
        allow_abbrev=False,
        formatter_class=Formatter,
    )
    root.add_argument("--root", type=Path, default=rootless.home(), help="where state is kept")
    root.add_argument("--log", type=Path, help="append errors and warnings to this file")
    root.add_argument("--log-format", choices=("text", "json"), default="text")
    root.add_argument("--debug", action="store_true", help="show where an error came from")
    root.add_argument("--systemd-cgroup", action="store_true", help="let systemd make the control groups")
    root.add_argument(
        "--rootless", choices=("true", "false", "auto"), default="auto", help="do without control groups if need be"
    )
    root.add_argument("--criu", metavar="PROGRAM", help="the program that checkpoints (default: criu)")
    root.add_argument("--version", "-v", action="version", version=f"trivet-runtime {VERSION}\nspec: {oci.VERSION}")
    verbs = root.add_subparsers(dest="verb", metavar="VERB", required=True, prog=root.prog)
    for name, text in VERBS.items() if verb is None else [(verb, VERBS[verb])]:
        sub = verbs.add_parser(name, help=text, description=text, allow_abbrev=False, formatter_class=Formatter)
        if name == verb:
            importlib.import_module(f"trivet.runtime.verb.{name}").add(sub)
    return root


def main(words: Sequence[str]) -> int:
    """Run one verb; the exit code is the verb's, or 1 after an error."""
    arguments = parser(_verb(words)).parse_args(words)
    gc.enable()  # main.py
    arguments.root = arguments.root.absolute()
    arguments.journal = Journal(arguments.log, arguments.log_format)
    try:
        _check(arguments)
        return int(importlib.import_module(f"trivet.runtime.verb.{arguments.verb}").run(arguments))
    except (TrivetError, OSError, ValueError, OverflowError) as error:
        if arguments.debug:
            raise
        arguments.journal.fail(error)
        return FAILURE


def _verb(words: Sequence[str]) -> str | None:
    """Find the verb: the first word that is no option, nor an option's value."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        place += 2 if words[place] in _VALUED else 1
    return words[place] if place < len(words) and words[place] in VERBS else None


def _check(arguments: argparse.Namespace) -> None:
    if arguments.systemd_cgroup and arguments.verb in ("create", "run") and not _SYSTEMD.is_dir():
        raise Unsupported("--systemd-cgroup: systemd is not what this machine runs", hint="leave --systemd-cgroup out")
