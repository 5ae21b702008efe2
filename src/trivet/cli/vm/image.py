"""`vm images`: what a catalogue has."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from trivet.cli.command import Command, Misuse, flag
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, Column, human_size, show
from trivet.cli.vm.create import CATALOGUE
from trivet.client.schema_machine import CatalogueImage


def images(context: Context, args: Namespace) -> int:
    """List the disk images of a catalogue."""
    if not args.catalogue:
        raise Misuse("images of which catalogue?", hint="--catalogue URL; images that are here: trivet images")
    keyring = str(Path(args.keyring).absolute()) if args.keyring else ""
    found = context.client.machines.catalogue(args.catalogue, keyring)
    columns: list[Column[CatalogueImage]] = [
        Column("NAME", lambda each: each.names[0]),
        Column("TITLE", lambda each: each.title),
        Column("VERSION", lambda each: each.version),
        Column("SIZE", lambda each: human_size(each.size)),
        Column("ALSO", lambda each: ", ".join(each.names[1:4])),
    ]
    if args.quiet:
        args.format = "name"
    show(found, columns, args, lambda each: each.names[0])
    return 0


COMMANDS = {
    "images": Command(
        images,
        (*CATALOGUE, flag("-q", "--quiet", help="only show names"), *FORMAT),
        about="Newest versions, for this machine's architecture. trivet vm create NAME --image stream:NAME takes one.",
        examples=(("trivet vm images --catalogue https://cloud-images.example/releases", ""),),
    )
}
