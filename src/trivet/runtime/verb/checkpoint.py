"""checkpoint: save a running container's processes, and end it unless it is left running."""

from __future__ import annotations

import argparse

from trivet.runtime import checkpoint
from trivet.runtime.container import Container
from trivet.runtime.verb import saving


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    saving.add(parser)
    parser.add_argument("--leave-running", action="store_true", help="let the container go on")
    parser.add_argument("--pre-dump", action="store_true", help="save memory only, and let it go on")
    parser.add_argument("--parent-path", default="", help="an earlier pre-dump, relative to --image-path")
    parser.add_argument("--page-server", help="refused")
    parser.add_argument("--status-fd", help="refused")
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    leave = arguments.leave_running or arguments.pre_dump
    options = saving.read(arguments)
    checkpoint.dump(container, options, leave=leave, pre=arguments.pre_dump, parent=arguments.parent_path)
    if not leave:
        container.remove(arguments.journal.warn)
    return 0
