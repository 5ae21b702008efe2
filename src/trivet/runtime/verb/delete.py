"""delete: remove a stopped container; with --force kill it first."""

from __future__ import annotations

import argparse

from trivet.runtime.container import Container, NoSuchContainer


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id")
    parser.add_argument("--force", "-f", action="store_true", help="kill it first; a missing container is fine")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    try:
        container = Container.find(arguments.root, arguments.id)
    except NoSuchContainer:
        if arguments.force:
            return 0
        raise
    if not arguments.force:
        container.expect("stopped", "created")
    container.remove(arguments.journal.warn)
    return 0
