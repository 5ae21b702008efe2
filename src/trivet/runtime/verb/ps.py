"""ps: list the processes inside a container."""

from __future__ import annotations

import argparse
import sys
import time

import msgspec

from trivet.kernel import procfs
from trivet.runtime.container import Container
from trivet.runtime.verb.list import table

HEADINGS = ("UID", "PID", "PPID", "C", "STIME", "CMD")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--format", "-f", choices=("table", "json"), default="table")
    parser.add_argument("id")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="ignored: columns are always those of ps -ef")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    pids = container.group.processes()
    if arguments.format == "json":
        sys.stdout.write(msgspec.json.encode(pids).decode() + "\n")
        return 0
    rows = [row for pid in pids if (row := procfs.row(pid)) is not None]
    sys.stdout.write(table([HEADINGS, *(_words(row) for row in rows)]))
    return 0


def _words(row: procfs.Row) -> tuple[str, ...]:
    started = time.strftime("%H:%M", time.localtime(row.started))
    return row.user, str(row.pid), str(row.ppid), str(round(row.cpu)), started, row.command
