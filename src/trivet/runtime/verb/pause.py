"""pause: freeze every process of a container."""

from __future__ import annotations

import argparse

from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    container.expect("running")
    container.group.freeze(True)
    return 0
