"""Removing what nothing uses: `system prune`, and the `prune` of each noun."""

from __future__ import annotations

import sys
from argparse import Namespace

from trivet.cli import terminal
from trivet.cli.command import Command, Misuse, Option, flag
from trivet.cli.context import Context
from trivet.cli.output import JSON, human_size, write_json
from trivet.cli.patience import patience
from trivet.client.schema_removal import PruneRequest

WORDS = {
    "instances": ("all instances that don't run", ""),
    "images": ("all images without a name", "all images no instance uses"),
    "volumes": ("all anonymous volumes no instance uses", "ALL volumes no instance uses, with their data"),
    "build": ("the build cache", ""),
    "templates": ("all templates that machines are forked from", ""),
    "networks": ("all networks no instance uses", ""),
    "layer blobs": ("what layers came as, where they are unpacked and their registry can be asked again", ""),
}


LAYER_BLOBS = flag("--layer-blobs", help="also what pulled layers came as, where they are unpacked")


def prune_command(kinds: tuple[str, ...], line: str, *options: Option) -> Command:
    """Make the prune command of some kinds of object."""

    def run(context: Context, args: Namespace) -> int:
        every = getattr(args, "all", False)
        wishes = dict.fromkeys(kinds, every)
        if getattr(args, "volumes", False):
            wishes["volumes"] = False  # named volumes go only by their own command
        if getattr(args, "layer_blobs", False):
            wishes["layer blobs"] = every
        return prune(context, args, wishes)

    shared = (
        *options,
        flag("--dry-run", help="only tell what would go"),
        flag("-f", "-y", "--force", "--yes", help="don't ask"),
        *JSON,
    )
    return Command(run, shared, examples=((line, ""), (f"{line} --dry-run", "")))


def prune(context: Context, args: Namespace, wishes: dict[str, bool]) -> int:
    """Ask, remove, tell what went. `wishes` maps kinds of object to whether all unused ones go."""
    if not args.dry_run and not args.force and not _agreed(wishes):
        return 1
    with patience(f"pruning {', '.join(wishes)}"):
        # in one request: what is only needed by both of two kinds goes with the second
        request = PruneRequest(
            kinds=list(wishes),
            all=any(wishes.values()),
            anonymous=not wishes.get("volumes", True),
            dry_run=args.dry_run,
        )
        total = context.client.system.prune(request)
    if args.json:
        write_json(total)
        return 0
    for name in total.untagged:
        print(f"untagged: {name}")
    for name in total.deleted:
        print(f"{'would delete' if args.dry_run else 'deleted'}: {name}")
    print(f"{'to be freed' if args.dry_run else 'freed'}: {human_size(total.freed)}")
    return 0


def _agreed(wishes: dict[str, bool]) -> bool:
    if not terminal.is_terminal(0):
        raise Misuse("pruning needs a yes, and standard input is not a terminal", hint="add --yes")
    print("This removes:", file=sys.stderr)
    for kind, every in wishes.items():
        unnamed, all_of_them = WORDS[kind]
        print(f"  - {all_of_them if every and all_of_them else unnamed}", file=sys.stderr)
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
