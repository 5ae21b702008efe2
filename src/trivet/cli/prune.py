"""Removing what nothing uses: `system prune`, and the `prune` of each noun."""

from __future__ import annotations

import sys
from argparse import Namespace

from trivet.cli import terminal, value
from trivet.cli.command import Command, Misuse, Option, flag
from trivet.cli.context import Context
from trivet.cli.option import FILTER
from trivet.cli.output import JSON, human_size, write_json
from trivet.client.schema import PruneRequest

WORDS = {
    "instances": "all instances that don't run",
    "images": "all images without a name",
    "volumes": "all anonymous volumes no instance uses",
    "networks": "all networks no instance uses",
    "build": "the build cache",
    "content": "stored content nothing refers to",
}


def prune_command(kinds: tuple[str, ...], line: str, *options: Option) -> Command:
    """Make the prune command of some kinds of object."""

    def run(context: Context, args: Namespace) -> int:
        wanted = (*kinds, "volumes") if getattr(args, "volumes", False) else kinds
        return prune(context, args, wanted)

    shared = (
        *options,
        FILTER,
        flag("--dry-run", help="only tell what would go"),
        flag("-y", "--force", "--yes", help="don't ask"),
        *JSON,
    )
    return Command(run, shared, examples=((line, ""), (f"{line} --dry-run", "")))


def prune(context: Context, args: Namespace, kinds: tuple[str, ...]) -> int:
    """Ask, remove, tell what went."""
    every = getattr(args, "all", False)
    request = PruneRequest(kinds=list(kinds), all=every, dry_run=args.dry_run, filters=value.collect(args.filter))
    if not args.dry_run and not args.force and not _agreed(kinds, every):
        return 1
    removed = context.client.system.prune(request)
    if args.json:
        write_json(removed)
        return 0
    for name in removed.untagged:
        print(f"untagged: {name}")
    for name in removed.deleted:
        print(f"{'would delete' if args.dry_run else 'deleted'}: {name}")
    print(f"{'to be freed' if args.dry_run else 'freed'}: {human_size(removed.freed)}")
    return 0


def _agreed(kinds: tuple[str, ...], every: bool) -> bool:
    if not terminal.is_terminal(0):
        raise Misuse("pruning needs a yes, and standard input is not a terminal", hint="add --yes")
    words = {**WORDS, "images": "all images no instance uses"} if every else WORDS
    print("This removes:", file=sys.stderr)
    for kind in kinds:
        print(f"  - {words[kind]}", file=sys.stderr)
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
