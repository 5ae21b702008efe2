"""state: print a container's state as JSON."""

from __future__ import annotations

import argparse
import sys

from trivet.runtime import brief
from trivet.runtime.container import Container


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    sys.stdout.write(brief.told(container.state(), container.kept.root, container.created))
    return 0
