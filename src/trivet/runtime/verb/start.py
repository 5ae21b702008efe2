"""start: let the program of a created container begin."""

from __future__ import annotations

import argparse

from trivet.runtime import program
from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    program.start(Container.find(arguments.root, arguments.id))
    return 0
