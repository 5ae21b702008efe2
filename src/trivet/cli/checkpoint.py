"""Snapshots of instances, with what they have in memory, and clones."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli import value
from trivet.cli.argument import INSTANCE, REF
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.instance import each
from trivet.cli.output import FORMAT, JSON, Column, age, human_size, show, write_json
from trivet.cli.patience import patience
from trivet.client.schema_checkpoint import Checkpoint, CloneRequest


def take(context: Context, args: Namespace) -> int:
    """Take a snapshot of an instance that goes on."""
    with patience(f"taking a snapshot of {args.instance}"):
        made = context.client.checkpoints.take(args.instance, args.name or "")
    return _say(args, made, f"{made.name} ({_kept(made)})")


def checkpoint(context: Context, args: Namespace) -> int:
    """Save an instance and end it."""
    with patience(f"saving {args.instance}"):
        made = context.client.checkpoints.take(args.instance, args.name or "", end=not args.leave_running)
    return _say(args, made, made.name)


def revert(context: Context, args: Namespace) -> int:
    """Go back to a snapshot."""
    with patience(f"reverting {args.instance}"):
        made = context.client.checkpoints.revert(args.instance, args.name or "")
    return _say(args, made, made.name)


def restore(context: Context, args: Namespace) -> int:
    """Let a saved instance go on."""
    with patience(f"restoring {args.instance}"):
        made = context.client.checkpoints.revert(args.instance, args.name or "", idle=True)
    return _say(args, made, made.name)


def _say(args: Namespace, made: Checkpoint, text: str) -> int:
    if args.json:
        write_json(made)
    else:
        print(text)
    return 0


def _kept(made: Checkpoint) -> str:
    if not made.memory:
        return "without memory: it does not run"
    return f"with memory: it stood still for {1000 * made.pause:.0f} ms"


def list_(context: Context, args: Namespace) -> int:
    """List snapshots as the trees they are."""
    rows = context.client.checkpoints.list(args.instance or "")
    ordered = [row for name in dict.fromkeys(row.instance for row in rows) for row in _tree(rows, name)]
    depths = _depths(rows)
    columns: list[Column[Checkpoint]] = [
        Column("INSTANCE", lambda row: row.instance),
        Column("SNAPSHOT", lambda row: "  " * depths[row.instance, row.name] + _marked(row)),
        Column("MEMORY", lambda row: "yes" if row.memory else "no"),
        Column("CREATED", lambda row: age(row.created)),
        Column("PAUSE", lambda row: f"{1000 * row.pause:.0f} ms" if row.memory else ""),
        Column("SIZE", lambda row: human_size(row.size)),
    ]
    show(ordered, columns, args, lambda row: row.name)
    return 0


def _marked(row: Checkpoint) -> str:
    return f"{row.name} *" if row.current else row.name


def _tree(rows: list[Checkpoint], instance: str, parent: str = "") -> list[Checkpoint]:
    """Order the snapshots of an instance: each before those taken after it."""
    found = [row for row in rows if (row.instance, row.parent) == (instance, parent)]
    return [each for row in found for each in (row, *_tree(rows, instance, row.name))]


def _depths(rows: list[Checkpoint]) -> dict[tuple[str, str], int]:
    depths: dict[tuple[str, str], int] = {}
    for row in rows:  # oldest first, so parents come before
        depths[row.instance, row.name] = depths.get((row.instance, row.parent), -1) + 1
    return depths


def remove(context: Context, args: Namespace) -> int:
    """Remove snapshots."""
    return each(context, args, args.names, lambda name: context.client.checkpoints.remove(args.instance, name))


def clone(context: Context, args: Namespace) -> int:
    """Multiply an instance."""
    wish = CloneRequest(count=args.count, name=args.name, publish=args.publish, memory=args.memory)
    with patience(f"cloning {args.instance}"):
        made = context.client.checkpoints.clone(args.instance, wish)
    if args.json:
        write_json(made)
    else:
        print("\n".join(made.names))
    return 0


def relevel(context: Context, args: Namespace) -> int:
    """Change the level of an instance."""
    before = context.client.instances.get(args.instance)
    with patience(f"changing the level of {args.instance}"):
        made = context.client.checkpoints.relevel(args.instance, args.isolation)
    gap = f", it did not run for {made.gap:.1f} s" if made.gap else ""
    if args.json:
        write_json(made)
    else:
        print(f"{before.name}: {before.isolation} → {made.level}{gap}")
    return 0


LEVELS = ("process", "container", "vm")
NAME = option("name", metavar="SNAPSHOT", nargs="?", help="its name (default: the next number)")
WHICH = option("name", metavar="SNAPSHOT", nargs="?", help="which (default: the newest)")
ABOUT = (
    "A machine or a container that runs is saved with what it has in memory (a container by CRIU, package criu, 4.2 or "
    "later). Where nothing runs, what was written is saved."
)

COMMANDS = {
    "snapshot": Command(
        take,
        (*JSON, REF, NAME),
        about=ABOUT,
        examples=(("trivet snapshot db before-upgrade", ""), ("trivet snapshot create db", "")),
    ),
    "ls": Command(
        list_,
        (*FORMAT, option("instance", metavar="INSTANCE", nargs="?", help="only of this one", complete=INSTANCE)),
        about="A star marks the snapshot that the instance goes on from.",
        examples=(("trivet snapshot ls db", ""),),
    ),
    "revert": Command(
        revert,
        (*JSON, REF, WHICH),
        about="What it has written and had in memory since then is lost, unless another snapshot has it.",
        examples=(("trivet snapshot revert db before-upgrade", ""),),
    ),
    "rm": Command(
        remove,
        (*JSON, REF, option("names", metavar="SNAPSHOT", nargs="+", help="its name")),
        examples=(("trivet snapshot rm db before-upgrade", ""),),
    ),
    "checkpoint": Command(
        checkpoint,
        (flag("-R", "--leave-running", help="let it go on, as `snapshot` does"), *JSON, REF, NAME),
        about="The instance is saved with what it has in memory, and ends at that moment. Not at level process.",
        examples=(("trivet checkpoint db", "`trivet restore db` lets it go on, also after the host was restarted"),),
    ),
    "restore": Command(restore, (*JSON, REF, WHICH), examples=(("trivet restore db", ""),)),
    "relevel": Command(
        relevel,
        (
            option("--isolation", metavar="LEVEL", choices=LEVELS, required=True, help="the new level"),
            *JSON,
            REF,
        ),
        about="It keeps name, files, volumes, addresses, ports and log; its program is started anew.",
        examples=(("trivet relevel web --isolation vm", ""),),
    ),
    "clone": Command(
        clone,
        (
            option("--count", metavar="N", type=value.natural, default=1, help="how many (default: 1)"),
            option("--name", metavar="PATTERN", default="", help="name, {} is the number (default: INSTANCE-{})"),
            flag("-P", "--publish", help="publish its ports on free host ports (default: not at all)"),
            flag("--memory", help="of a machine with a system of its own, too: it goes on instead of booting"),
            *JSON,
            REF,
        ),
        about="Each clone has a disk, addresses and ids of its own. One that runs goes on where the original is, "
        "with what that has in memory: level vm. A machine with a system of its own boots from its copied disks; with "
        "--memory it goes on, too, and its guest agent is told who it is now.",
        examples=(("trivet clone db --count 3", "db-1, db-2, db-3"), ("trivet clone db --name test-{}", "")),
    ),
}
