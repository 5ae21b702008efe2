"""create: set a container up; its program waits for `start`."""

from __future__ import annotations

import argparse
from pathlib import Path

from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")
    parser.add_argument("--bundle", "-b", type=Path, default=Path(), help="directory of config.json (default: here)")
    parser.add_argument("--pid-file", type=Path, help="write the program's pid there")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container, channel = Container.create(arguments.root, arguments.id, arguments.bundle, stdin=False)
    channel.close()
    write_pid(arguments.pid_file, container.status()[1])
    return 0


def write_pid(path: Path | None, pid: int) -> None:
    """Write the pid file, if one was asked for, in one piece."""
    if path is not None:
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(str(pid))
        temporary.rename(path)
