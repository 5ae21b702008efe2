"""resume: thaw a paused container."""

from __future__ import annotations

import argparse

from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    container.expect("paused")
    container.group.freeze(False)
    return 0
