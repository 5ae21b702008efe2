"""Volumes."""

from __future__ import annotations

import sys
from argparse import Namespace

from trivet.base.error import NotFound
from trivet.cli import value
from trivet.cli.archive import input_, output_, result_of, write_out
from trivet.cli.argument import FILE, FILTER, VOLUME, repeated
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.instance import each
from trivet.cli.output import FORMAT, JSON, Column, age, human_size, show, write_array, write_json
from trivet.cli.patience import patience
from trivet.cli.progress import Transfer, choose, follow
from trivet.cli.prune import prune_command
from trivet.client.schema_volume import Volume, VolumeRequest, VolumeSnapshot


def create(context: Context, args: Namespace) -> int:
    """Make a volume."""
    labels, options = dict(args.label), dict(args.opt)
    made = context.client.volumes.create(
        VolumeRequest(name=args.name, driver=args.driver, labels=labels, options=options)
    )
    if args.json:
        write_json(made)
    else:
        print(made.name)
    return 0


def list_(context: Context, args: Namespace) -> int:
    """List volumes."""
    rows = sorted(context.client.volumes.list(value.collect(args.filter)), key=lambda row: row.name)
    if args.quiet:
        args.format = "name"
    columns: list[Column[Volume]] = [
        Column("NAME", lambda row: row.name),
        Column("DRIVER", lambda row: row.driver),
        Column("CREATED", lambda row: age(row.created)),
        Column("SIZE", lambda row: human_size(row.size)),
        Column("USED BY", lambda row: ", ".join(row.users)),
    ]
    show(rows, columns, args, lambda row: row.name)
    return 0


def inspect(context: Context, args: Namespace) -> int:
    """Show volumes as a JSON array."""
    write_array([context.client.volumes.get(name) for name in args.volumes])
    return 0


def resize(context: Context, args: Namespace) -> int:
    """Let a volume that was made with a size hold more."""
    made = context.client.volumes.resize(args.volume, args.size)
    if args.json:
        write_json(made)
    else:
        print(made.name)
    return 0


def remove(context: Context, args: Namespace) -> int:
    """Remove volumes or snapshots of them."""

    def action(name: str) -> None:
        try:
            if "@" in name:
                context.client.volumes.remove_snapshot(*_pair(name))
            else:
                context.client.volumes.remove(name, force=args.force)
        except NotFound:
            if not args.force:
                raise

    return each(context, args, args.volumes, action)


def snapshot(context: Context, args: Namespace) -> int:
    """Take a snapshot."""
    name, _, wanted = args.volume.partition("@")
    result = follow(context.client.volumes.snapshot(name, wanted), quiet=args.quiet)
    if args.json:
        write_json(result)
    else:
        print(f"{result['volume']}@{result['name']}")
    return 0


def snapshots(context: Context, args: Namespace) -> int:
    """List snapshots."""
    columns: list[Column[VolumeSnapshot]] = [
        Column("NAME", lambda row: f"{row.volume}@{row.name}"),
        Column("CREATED", lambda row: age(row.created)),
        Column("SIZE", lambda row: human_size(row.size)),
        Column("ADDED", lambda row: human_size(row.added)),
        Column("PAUSE", lambda row: f"{row.pause * 1000:.0f} ms"),
    ]
    show(context.client.volumes.snapshots(args.volume), columns, args, lambda row: f"{row.volume}@{row.name}")
    return 0


def clone(context: Context, args: Namespace) -> int:
    """Copy a volume or a snapshot into a new volume."""
    name, _, taken = args.volume.partition("@")
    result = follow(context.client.volumes.clone(name, args.target, snapshot=taken), quiet=args.quiet)
    result_of(args, result, "name")
    return 0


def rollback(context: Context, args: Namespace) -> int:
    """Make a volume what a snapshot says."""
    result_of(args, follow(context.client.volumes.rollback(*_pair(args.snapshot)), quiet=args.quiet), "name")
    return 0


def rename(context: Context, args: Namespace) -> int:
    """Rename a volume."""
    context.client.volumes.rename(args.volume, args.name)
    return 0


def export(context: Context, args: Namespace) -> int:
    """Write a volume to a tar."""
    name, _, taken = args.volume.partition("@")
    with (
        output_(args.output) as output,
        patience(f"reading volume {args.volume}"),
        context.client.volumes.export(name, snapshot=taken) as response,
    ):
        write_out(response, output, args)
    return 0


def import_(context: Context, args: Namespace) -> int:
    """Make a volume of a tar."""
    with input_(None if args.archive == "-" else args.archive) as source:
        transfer = Transfer(choose(quiet=args.quiet), args.archive, "reading")
        result = follow(context.client.volumes.import_(args.volume, transfer.sender(source)), display=transfer)
    result_of(args, result, "name")
    return 0


def push(context: Context, args: Namespace) -> int:
    """Send a snapshot to a registry."""
    steps = context.client.volumes.push(*_pair(args.snapshot), args.reference)
    result_of(args, follow(steps, quiet=args.quiet), "digest")
    return 0


def pull(context: Context, args: Namespace) -> int:
    """Fetch a snapshot from a registry."""
    result = follow(context.client.volumes.pull(args.reference, args.volume), quiet=args.quiet)
    if args.json:
        write_json(result)
        return 0
    name = f"{result['name']}@{result['snapshot']}"
    print(name)
    if not result["restored"]:
        print(
            f"hint: volume {result['name']} is as it was; put it in its place: trivet volume rollback {name}",
            file=sys.stderr,
        )
    return 0


def _pair(text: str) -> tuple[str, str]:
    volume, _, name = text.partition("@")
    if not (volume and name):
        raise Misuse(f"{text!r} is no snapshot: write VOLUME@SNAPSHOT", hint="trivet volume snapshots lists them")
    return volume, name


SOURCE = option("volume", metavar="VOLUME[@SNAPSHOT]", help="the volume, or a snapshot of it", complete=VOLUME)
TAKEN = option("snapshot", metavar="VOLUME@SNAPSHOT", help="the snapshot", complete=VOLUME)
NEW = option("volume", metavar="VOLUME", help="name of the volume")
SILENT = flag("-q", "--quiet", help="no progress")
NAMES = option("volumes", metavar="VOLUME", nargs="+", help="name", complete=VOLUME)

COMMANDS = {
    "create": Command(
        create,
        (
            option("-d", "--driver", metavar="DRIVER", default="local", help="how it is stored (default: local)"),
            repeated(
                "-o", "--opt", metavar="KEY=VALUE", type=value.pair, help="size=, o=uid=...,gid=..., type=, device="
            ),
            repeated("--label", metavar="KEY[=VALUE]", type=value.label, help="attach a label"),
            *JSON,
            option("name", metavar="NAME", nargs="?", default="", help="name; one is made up otherwise"),
        ),
        examples=(("trivet volume create data", ""), ("trivet run -v data:/var/lib/postgresql postgres", "")),
    ),
    "ls": Command(
        list_, (flag("-q", "--quiet", help="only show names"), FILTER, *FORMAT), examples=(("trivet volume ls", ""),)
    ),
    "inspect": Command(inspect, (NAMES,), examples=(("trivet volume inspect data", ""),)),
    "rm": Command(
        remove,
        (
            flag("-f", "--force", help="none of that name is fine"),
            *JSON,
            option("volumes", metavar="VOLUME[@SNAPSHOT]", nargs="+", help="volume or snapshot", complete=VOLUME),
        ),
        examples=(("trivet volume rm data", ""), ("trivet volume rm data@before", "only this snapshot")),
    ),
    "resize": Command(
        resize,
        (
            *JSON,
            option("volume", metavar="VOLUME", help="name", complete=VOLUME),
            option("size", metavar="BYTES", help="what it is to hold, such as 20g"),
        ),
        about="Instances that use it go on, and see the space at once.",
        examples=(("trivet volume create -o size=10g data", ""), ("trivet volume resize data 20g", "")),
    ),
    "snapshot": Command(
        snapshot,
        (
            SILENT,
            *JSON,
            option(
                "volume", metavar="VOLUME[@NAME]", help="the volume; without a name it is the time", complete=VOLUME
            ),
        ),
        about="Instances that use the volume go on running; they stand still for the last moment only, so that all "
        "files are of one point in time. What earlier snapshots hold is not stored again.",
        examples=(("trivet volume snapshot data@before", ""), ("trivet volume snapshot data", "named by the time")),
    ),
    "snapshots": Command(
        snapshots,
        (*FORMAT, option("volume", metavar="VOLUME", nargs="?", default="", help="only its", complete=VOLUME)),
        examples=(("trivet volume snapshots", ""),),
    ),
    "clone": Command(
        clone,
        (SILENT, *JSON, SOURCE, option("target", metavar="NAME", help="name of the new volume")),
        examples=(("trivet volume clone data try", "as it is now"), ("trivet volume clone data@before try", "")),
    ),
    "rollback": Command(
        rollback,
        (SILENT, *JSON, TAKEN),
        about="No instance that uses the volume may run meanwhile. What the volume holds now is lost.",
        examples=(("trivet volume rollback data@before", ""),),
    ),
    "rename": Command(
        rename,
        (
            option("volume", metavar="VOLUME", help="its name", complete=VOLUME),
            option("name", metavar="NEW", help="its new name"),
        ),
        examples=(("trivet volume rename data data-2025", ""),),
    ),
    "export": Command(
        export,
        (
            option("-o", "--output", metavar="FILE", help="tar to write (default: standard output)", complete=FILE),
            SILENT,
            SOURCE,
        ),
        examples=(("trivet volume export -o data.tar data", ""), ("trivet volume export data@before | tar -t", "")),
    ),
    "import": Command(
        import_,
        (SILENT, *JSON, NEW, option("archive", metavar="FILE", help="tar, - for standard input", complete=FILE)),
        examples=(("trivet volume import data data.tar", ""),),
    ),
    "push": Command(
        push,
        (SILENT, *JSON, TAKEN, option("reference", metavar="NAME[:TAG]", help="where to")),
        about="Prints the digest the registry has now. What the registry has already is not sent again.",
        examples=(("trivet volume push data@before localhost:5000/data:before", ""),),
    ),
    "pull": Command(
        pull,
        (SILENT, *JSON, option("reference", metavar="NAME[:TAG]", help="where from"), NEW),
        about="A volume of that name gets one more snapshot, otherwise it is made.",
        examples=(("trivet volume pull localhost:5000/data:before data", ""),),
    ),
    "prune": prune_command(
        ("volumes",), "trivet volume prune", flag("-a", "--all", help="also named volumes no instance uses")
    ),
}
