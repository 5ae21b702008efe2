"""`vm disk`: list, add, resize, limit and remove a machine's disks."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli import value
from trivet.cli.command import Command, Misuse, option
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, Column, human_size, show
from trivet.cli.vm.create import disk as read_disk
from trivet.cli.vm.life import REF
from trivet.client.schema_machine import DiskInfo, DiskLimits

ACTIONS = ("ls", "add", "resize", "limit", "rm")


def disk(context: Context, args: Namespace) -> int:
    """Do what was asked for."""
    machines = context.client.machines
    if args.action == "ls":
        return _list(context, args)
    if not args.disk:
        raise Misuse(f"vm disk {args.action} needs a disk", hint="see `trivet vm disk --help`")
    if args.action == "add":
        machines.add_disk(args.machine, read_disk(args.disk))
    elif args.action == "rm":
        machines.remove_disk(args.machine, args.disk)
    elif args.action == "limit":
        name, _, limits = args.disk.partition(",")
        wish = read_disk(f"{name}:1m" + (f",{limits}" if limits else ""))
        machines.limit_disk(args.machine, wish.name, DiskLimits(iops=wish.iops, rate=wish.rate))
    else:
        name, colon, size = args.disk.partition(":")
        if not colon:
            raise Misuse(f"{args.disk!r} says no size", hint="write root:20g")
        machines.resize_disk(args.machine, name, value.size(size))
    return 0


def _list(context: Context, args: Namespace) -> int:
    columns: list[Column[DiskInfo]] = [
        Column("NAME", lambda row: row.name),
        Column("SIZE", lambda row: human_size(row.size)),
        Column("TAKES", lambda row: human_size(row.used) + (" (being restored)" if row.filling else "")),
        Column("IOPS", lambda row: str(row.iops or "-")),
        Column("RATE", lambda row: human_size(row.rate) if row.rate else "-"),
    ]
    show(context.client.machines.get(args.machine).disks, columns, args, lambda row: row.name)
    return 0


COMMANDS = {
    "disk": Command(
        disk,
        (
            *FORMAT,
            option("action", metavar="ACTION", choices=ACTIONS, help="ls, add, resize, limit or rm"),
            REF,
            option(
                "disk",
                metavar="DISK",
                nargs="?",
                default="",
                help="add: NAME:SIZE[,iops=N][,rate=SIZE]; resize: NAME:SIZE; limit: NAME[,iops=N][,rate=SIZE], "
                "what is left out is unlimited; rm: NAME, with its data",
            ),
        ),
        about="The guest finds a disk by its name as serial number: /dev/disk/by-id/virtio-NAME. One that was there "
        "when the machine was switched on can only be removed while it is off.",
        examples=(
            ("trivet vm disk add web data:10g,rate=50m", ""),
            ("trivet vm disk limit web root,iops=200,rate=10m", "at once"),
            ("trivet vm disk resize web root:40g", "the guest still has to let its file system grow"),
        ),
    )
}
