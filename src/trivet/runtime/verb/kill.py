"""kill: send a signal to a container's program, or with --all to every process in it."""

from __future__ import annotations

import argparse
import os
import signal

from trivet.base.error import Conflict, InvalidArgument
from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")
    parser.add_argument("signal", nargs="?", default="TERM")
    parser.add_argument("--all", "-a", action="store_true", help="every process of the container")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    number = parse(arguments.signal)
    container = Container.find(arguments.root, arguments.id)
    if arguments.all:
        for pid in container.group.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        return 0
    process = container.process()
    try:
        if process is None:
            raise ProcessLookupError
        process.signal(number)
    except ProcessLookupError as error:
        # The first words are what containerd looks for.
        raise Conflict(f"container not running: {arguments.id} is stopped") from error
    return 0


def parse(text: str) -> int:
    """Read a signal's name, with or without SIG, or number. Raises `InvalidArgument`."""
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    if name in signal.Signals.__members__:
        return signal.Signals[name]
    if text.isdigit() and 0 < int(text) < signal.NSIG:
        return int(text)
    raise InvalidArgument(f"unknown signal {text!r}")
