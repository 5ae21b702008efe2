"""Disk images: files of machines' disks become images, and images files."""

from __future__ import annotations

import os
import stat
from argparse import Namespace
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from trivet.cli.archive import input_, output_, result_of
from trivet.cli.argument import FILE, IMAGE
from trivet.cli.attach import write_all
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.progress import Transfer, choose, follow
from trivet.client.archive import tar_writer
from trivet.client.connection import Body, Response, Writer

FORMATS = ("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "ova")
SUFFIXES = {f".{name}": name for name in FORMATS}
MAGIC = {b"QFI\xfb": "qcow2", b"KDMV": "vmdk", b"vhdxfile": "vhdx", b"conectix": "vhd"}


def format_of(args: Namespace) -> str:
    """Tell which format a file to be imported has, by what was said or by its name; "" is no disk image.

    Never by its content, which a guest may have written. Raises `Misuse` where a name says too little.
    """
    if args.format:
        return "" if args.format == "tar" else str(args.format)
    suffix = Path(args.archive).suffix.lower()
    if suffix == ".ovf":
        return "ova"
    if suffix in (".img", ".iso"):
        raise Misuse(f"{args.archive}: {suffix} does not say what is in it", hint="--format raw, qcow2, ... says it")
    form = SUFFIXES.get(suffix, "")
    if form == "raw":
        _doubt(args.archive)
    return form


def _doubt(name: str) -> None:
    """Ask about a file that is called raw and begins like something else: taken as raw it would be of no use."""
    with Path(name).open("rb") as file:
        begin = file.read(8)
    for magic, other in MAGIC.items():
        if begin.startswith(magic):
            raise Misuse(f"{name} is called raw, but begins like {other}", hint=f"--format raw or --format {other}")


def import_disk(context: Context, args: Namespace, form: str) -> int:
    """Make an image of a disk image file."""
    if args.change or args.message:
        raise Misuse("--change and --message are for root file systems: a disk image has no configuration to change")
    with ExitStack() as stack:
        transfer = Transfer(choose(quiet=args.quiet), args.archive, "reading")
        if args.archive.lower().endswith(".ovf"):
            body: Body = partial(_beside, Path(args.archive))
        else:
            body = transfer.sender(stack.enter_context(input_(None if args.archive == "-" else args.archive)))
        steps = context.client.images.import_disk(
            body,
            args.reference,
            format=form,
            platform=args.platform,
            firmware=args.firmware,
            name=Path(args.archive).name,
        )
        result = follow(steps, display=transfer)
    result_of(args, result, "id")
    return 0


def _beside(description: Path, writer: Writer) -> None:
    """Pack an OVF description and those files beside it that it mentions, as an OVA has them."""
    text = description.read_text(errors="replace")
    names = [description.name, description.with_suffix(".mf").name]
    names += [
        each.name for each in sorted(description.parent.iterdir()) if each.name in text and each.name not in names
    ]
    with tar_writer(writer) as archive:
        for each in map(description.with_name, names):
            if each.is_file() and not each.is_symlink():
                archive.add(each, each.name)


def export(context: Context, args: Namespace) -> int:
    """Write a disk image to a file."""
    form = args.format or SUFFIXES.get(Path(args.output or "").suffix.lower(), "")
    if not form:
        raise Misuse("the file's name does not say its format", hint=f"--format {', '.join(FORMATS)}")
    with (
        output_(args.output) as output,
        context.client.images.export_disk(args.image, format=form, compress=args.compress) as response,
    ):
        _write(response, output, args)
    return 0


def _write(response: Response, output: int, args: Namespace) -> None:
    """Copy an answer to a descriptor; in a file zeros become holes."""
    transfer = Transfer(choose(quiet=args.quiet), args.output or "standard output", "writing")
    sparse, end = stat.S_ISREG(os.fstat(output).st_mode) and args.output is not None, 0
    for chunk in response.chunks():
        end += len(chunk)
        if sparse and chunk.count(0) == len(chunk):
            os.lseek(output, len(chunk), os.SEEK_CUR)
        else:
            write_all(output, chunk)
        transfer.count(len(chunk))
    if sparse:
        os.ftruncate(output, end)
    transfer.close()


COMMANDS = {
    "export": Command(
        export,
        (
            option("--format", choices=FORMATS, default="", help="format of the file (default: what its name says)"),
            flag("-c", "--compress", help="compressed: qcow2, vmdk"),
            flag("-q", "--quiet", help="no progress"),
            option("image", metavar="IMAGE", help="a disk image", complete=IMAGE),
            option("output", metavar="FILE", nargs="?", help="default: standard output", complete=FILE),
        ),
        about="The file has the same content, block by block, as the one the image was made from.",
        examples=(("trivet image export debian-disk:12 debian.qcow2", ""),),
    ),
}
