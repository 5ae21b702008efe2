"""`vm device`: list, add and remove a machine's shared directories, USB sticks, watchdog and devices of the host."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from trivet.cli.command import Command, Misuse, option
from trivet.cli.context import Context
from trivet.cli.mount import volume
from trivet.cli.output import FORMAT, Column, show
from trivet.cli.vm.life import REF
from trivet.client.schema_machine import DeviceInfo, DeviceRequest, UsbRequest

ACTIONS = ("ls", "add", "rm")


def device(context: Context, args: Namespace) -> int:
    """Do what was asked for."""
    if args.action == "ls":
        return _list(context, args)
    if not args.device:
        raise Misuse(f"vm device {args.action} needs a device", hint="see `trivet vm device --help`")
    if args.action == "add":
        context.client.machines.add_device(args.machine, _read(args.device))
    else:
        context.client.machines.remove_device(args.machine, args.device)
    return 0


def stick(text: str) -> UsbRequest:
    """Read `FILE[:ro]`."""
    path, _, word = text.rpartition(":")
    if word not in ("ro", "rw"):
        path, word = text, "rw"
    return UsbRequest(path=str(Path(path).expanduser().absolute()), read_only=word == "ro")


def _read(text: str) -> DeviceRequest:
    """Read `KIND:WHAT`."""
    kind, _, what = text.partition(":")
    try:
        if kind == "share":
            wish = volume(what)
            if not wish.source:
                raise ArgumentTypeError(f"{what!r} is not SOURCE:TARGET[:ro]")
            return DeviceRequest(kind="share", source=wish.source, target=wish.target, read_only=wish.read_only)
        if kind == "usb" and what:
            made = stick(what)
            return DeviceRequest(kind="usb", source=made.path, read_only=made.read_only)
        if kind == "watchdog" and what:
            return DeviceRequest(kind="watchdog", source=what)
        if kind == "pci" and what:
            return DeviceRequest(kind="pci", source=what)
    except ArgumentTypeError as error:
        raise Misuse(str(error)) from error
    raise Misuse(f"{text!r} is no device", hint="share:SOURCE:TARGET[:ro], usb:FILE[:ro], watchdog:ACTION or pci:CLASS")


def _list(context: Context, args: Namespace) -> int:
    columns: list[Column[DeviceInfo]] = [
        Column("NAME", lambda row: row.name),
        Column("KIND", lambda row: row.kind),
        Column("SOURCE", lambda row: row.source),
        Column("TARGET", lambda row: row.target or "-"),
        Column("ACCESS", lambda row: "-" if row.kind in ("watchdog", "pci") else "ro" if row.read_only else "rw"),
    ]
    show(context.client.machines.get(args.machine).devices, columns, args, lambda row: row.name)
    return 0


COMMANDS = {
    "device": Command(
        device,
        (
            *FORMAT,
            option("action", metavar="ACTION", choices=ACTIONS, help="ls, add or rm"),
            REF,
            option(
                "device",
                metavar="DEVICE",
                nargs="?",
                default="",
                help="add: share:SOURCE:TARGET[:ro], a directory or a volume; usb:FILE[:ro], a raw image as a stick; "
                "watchdog:reset, poweroff or pause; pci:CLASS[:VENDOR[:DEVICE]], a device of the host; rm: its name",
            ),
        ),
        about="Sticks come and go while the machine runs, the others while it is off. A guest that cloud-init doesn't "
        "tell mounts a share by its name: mount -t virtiofs NAME DIRECTORY.",
        examples=(
            ("trivet vm device add web share:/srv/data:/data:ro", ""),
            ("trivet vm device add web usb:/srv/stick.img", "at once"),
            ("trivet vm device rm web usb1", ""),
        ),
    )
}
