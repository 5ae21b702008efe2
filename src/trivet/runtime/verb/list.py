"""list: print all containers of a --root."""

from __future__ import annotations

import argparse
import pwd
import sys

import msgspec

from trivet.runtime.container import Container

HEADINGS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--quiet", "-q", action="store_true", help="ids only")
    parser.add_argument("--format", "-f", choices=("table", "json"), default="table")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    containers = Container.all(arguments.root)
    if arguments.quiet:
        text = "".join(f"{container.kept.id}\n" for container in containers)
    elif arguments.format == "json":
        text = msgspec.json.encode([_row(container) for container in containers]).decode() + "\n"
    else:
        text = table([HEADINGS, *(tuple(map(str, _row(container).values())) for container in containers)])
    sys.stdout.write(text)
    return 0


def table(rows: list[tuple[str, ...]]) -> str:
    """Lay rows out in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _row(container: Container) -> dict[str, str | int]:
    state = container.state()
    return {
        "id": state.id,
        "pid": state.pid,
        "status": state.status,
        "bundle": state.bundle,
        "created": container.created,
        "owner": pwd.getpwuid(container.directory.stat().st_uid).pw_name,
    }
