"""Volumes."""

from __future__ import annotations

from argparse import Namespace

from trivet.base.error import NotFound
from trivet.cli import value
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.instance import each
from trivet.cli.option import FILTER, VOLUME, repeated
from trivet.cli.output import FORMAT, JSON, Column, age, human_size, show, write_array, write_json
from trivet.cli.prune import prune_command
from trivet.client.schema import Volume, VolumeRequest


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


def remove(context: Context, args: Namespace) -> int:
    """Remove volumes."""

    def action(name: str) -> None:
        try:
            context.client.volumes.remove(name, force=args.force)
        except NotFound:
            if not args.force:
                raise

    return each(context, args, args.volumes, action)


NAMES = option("volumes", metavar="VOLUME", nargs="+", help="name", complete=VOLUME)

COMMANDS = {
    "create": Command(
        create,
        (
            option("-d", "--driver", metavar="DRIVER", default="local", help="how it is stored (default: local)"),
            repeated("-o", "--opt", metavar="KEY=VALUE", type=value.pair, help="option of the driver"),
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
        (flag("-f", "--force", help="none of that name is fine"), *JSON, NAMES),
        examples=(("trivet volume rm data", ""),),
    ),
    "prune": prune_command(
        ("volumes",), "trivet volume prune", flag("-a", "--all", help="also named volumes no instance uses")
    ),
}
