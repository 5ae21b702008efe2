"""Images: listing, fetching, moving them in and out, names."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from trivet.base.error import NotFound
from trivet.cli import disk, value
from trivet.cli.archive import input_, output_, result_of, write_out
from trivet.cli.argument import FILE, FILTER, IMAGE, repeated
from trivet.cli.command import Command, flag, option, under
from trivet.cli.context import Context
from trivet.cli.instance import each
from trivet.cli.output import FORMAT, JSON, QUIET, Column, age, human_size, short, show, write_array, write_json
from trivet.cli.progress import Transfer, choose, follow
from trivet.cli.prune import LAYER_BLOBS, prune_command
from trivet.client.schema_image import Image


def images(context: Context, args: Namespace) -> int:
    """List images, one row per name."""
    rows = context.client.images.list(value.collect(args.filter))
    rows.sort(key=lambda row: row.created, reverse=True)
    if args.quiet:
        for row in rows:
            print(short(row.id, args))
        return 0
    if args.format == "json":
        for row in rows:
            write_json(row)
        return 0
    named = [(name, row) for row in rows for name in (row.names or ["<none>"])]
    columns: list[Column[tuple[str, Image]]] = [
        Column("NAME", lambda pair: pair[0]),
        Column("ID", lambda pair: short(pair[1].id, args)),
        Column("PLATFORM", lambda pair: pair[1].platform + " (disk)" * (pair[1].kind == "disk")),
        Column("CREATED", lambda pair: age(pair[1].created)),
        Column("SIZE", lambda pair: human_size(pair[1].size)),
    ]
    show(named, columns, args, lambda pair: pair[0])
    return 0


def pull(context: Context, args: Namespace) -> int:
    """Fetch an image."""
    result = follow(
        context.client.images.pull(
            args.reference, platform=args.platform, all_platforms=args.all_platforms, referrers=args.referrers
        ),
        quiet=args.quiet,
    )
    result_of(args, result, "name")
    return 0


def push(context: Context, args: Namespace) -> int:
    """Send an image."""
    result = follow(context.client.images.push(args.reference, all_platforms=args.all_platforms), quiet=args.quiet)
    result_of(args, result, "digest")
    return 0


def load(context: Context, args: Namespace) -> int:
    """Read images from a tar."""
    with input_(args.input) as source:
        transfer = Transfer(choose(quiet=args.quiet), args.input or "standard input", "reading")
        result = follow(context.client.images.load(transfer.sender(source)), display=transfer)
    if args.json:
        write_json(result)
    for name in () if args.json else result.get("names", ()):
        print(name)
    return 0


def import_(context: Context, args: Namespace) -> int:
    """Make an image of the tar of a root file system, or of a disk image."""
    if form := disk.format_of(args):
        return disk.import_disk(context, args, form)
    with input_(None if args.archive == "-" else args.archive) as source:
        transfer = Transfer(choose(quiet=args.quiet), args.archive, "reading")
        steps = context.client.images.import_(
            transfer.sender(source), args.reference, changes=args.change, message=args.message
        )
        result = follow(steps, display=transfer)
    result_of(args, result, "id")
    return 0


def save(context: Context, args: Namespace) -> int:
    """Write images to a tar."""
    with (
        output_(args.output) as output,
        context.client.images.save(args.images, format=args.format, all_platforms=args.all_platforms) as response,
    ):
        write_out(response, output, args)
    return 0


def tag(context: Context, args: Namespace) -> int:
    """Give a further name."""
    context.client.images.tag(args.image, args.target)
    return 0


def why(context: Context, args: Namespace) -> int:
    """Tell what keeps a blob in the store."""
    chain = context.client.images.why(args.digest)
    if args.json:
        write_json(chain)
    elif chain:
        print("\n".join([chain[0], *(f"  kept by {link}" for link in chain[1:])]))
    else:
        print(f"nothing keeps {args.digest}: the next `trivet system prune` deletes it")
    return 0


def remove(context: Context, args: Namespace) -> int:
    """Take names away, and images with their last name."""

    def action(ref: str) -> None:
        try:
            removed = context.client.images.remove(ref, force=args.force)
        except NotFound:
            if args.force:
                return
            raise
        if args.json:
            write_json(removed)
        for line in () if args.json else _removed_lines(removed.untagged, removed.deleted):
            print(line)

    return each(context, args, args.images, action, say=False)


def inspect(context: Context, args: Namespace) -> int:
    """Show images as a JSON array."""
    write_array([context.client.images.get(ref) for ref in args.images])
    return 0


def _removed_lines(untagged: list[str], deleted: list[str]) -> Iterator[str]:
    yield from (f"untagged: {name}" for name in untagged)
    yield from (f"deleted: {digest}" for digest in deleted)


REF = option("images", metavar="IMAGE", nargs="+", help="name, id or beginning of an id", complete=IMAGE)
SILENT = flag("-q", "--quiet", help="no progress")

COMMANDS = {
    "ls": Command(
        images,
        (FILTER, *QUIET, *FORMAT),
        examples=(("trivet images", ""), ("trivet images --format name", "for scripts")),
    ),
    "pull": Command(
        pull,
        (
            option("--platform", metavar="OS/ARCH", default="", help="platform to choose from an index"),
            flag("--all-platforms", help="get all that the index lists, to push or save it"),
            flag("--referrers", help="get the SBOM and provenance that refer to it, too"),
            SILENT,
            *JSON,
            option(
                "reference",
                metavar="REFERENCE",
                help="NAME[:TAG], NAME@DIGEST, or a source such as bootstrap:debian/bookworm",
            ),
        ),
        examples=(
            ("trivet pull localhost:5000/web:1", "from a registry"),
            ("trivet pull bootstrap:debian/bookworm", "made from the machine's own package mirror"),
        ),
    ),
    "push": Command(
        push,
        (
            flag("--all-platforms", help="all that its index lists, or nothing (default: what is here)"),
            SILENT,
            *JSON,
            option("reference", metavar="NAME[:TAG]", help="the image, by the name that says where to", complete=IMAGE),
        ),
        about="Prints the digest the registry has now. Layers the registry has already are not sent again.",
        examples=(("trivet tag web:1 localhost:5000/web:1", ""), ("trivet push localhost:5000/web:1", "")),
    ),
    "load": Command(
        load,
        (
            option("-i", "--input", metavar="FILE", help="tar to read (default: standard input)", complete=FILE),
            SILENT,
            *JSON,
        ),
        about="Reads what `save` or other engines wrote: docker-archive or OCI layout, compressed or not.",
        examples=(("trivet load -i web.tar", ""), ("docker save web | trivet load", "")),
    ),
    "save": Command(
        save,
        (
            option("-o", "--output", metavar="FILE", help="tar to write (default: standard output)", complete=FILE),
            option("--format", choices=("docker", "oci"), default="docker", help="layout of the tar (default: docker)"),
            flag("--all-platforms", help="all that each index lists"),
            SILENT,
            REF,
        ),
        examples=(("trivet save -o web.tar web:1", ""), ("trivet save web:1 | docker load", "")),
    ),
    "import": Command(
        import_,
        (
            repeated(
                "-c", "--change", metavar="INSTRUCTION", help='a Dockerfile instruction, such as "CMD [\\"sh\\"]"'
            ),
            option("-m", "--message", metavar="TEXT", default="", help="comment for the history"),
            SILENT,
            *JSON,
            *under(
                "disk images",
                option("--format", choices=("tar", *disk.FORMATS), default="", help="of FILE (default: its name says)"),
                option("--platform", metavar="OS/ARCH", default="", help="what it is for (default: this machine)"),
                option("--firmware", choices=("bios", "uefi"), default="", help="what starts it"),
            ),
            option(
                "archive",
                metavar="FILE",
                complete=FILE,
                help="tar of a root file system, or a disk; - for standard input",
            ),
            option("reference", metavar="NAME[:TAG]", nargs="?", default="", help="name to give it"),
        ),
        about="A file called .qcow2, .raw, .vmdk, .vhd, .vhdx or .vdi is the disk of a machine,\n"
        "one called .ova or .ovf has several perhaps: NAME:TAG, NAME-disk2:TAG, ...",
        examples=(("trivet import rootfs.tar.zst base:1", ""), ("trivet image import disk.qcow2 debian-disk:12", "")),
    ),
    "tag": Command(
        tag,
        (
            option("image", metavar="IMAGE", help="name, id or beginning of an id", complete=IMAGE),
            option("target", metavar="NAME[:TAG]", help="the further name"),
        ),
        examples=(("trivet tag web:1 localhost:5000/web:1", ""),),
    ),
    "why": Command(
        why,
        (*JSON, option("digest", metavar="DIGEST", help="of a blob, as `inspect` shows it, or its beginning")),
        examples=(("trivet why sha256:57592bcb3b921397c0ee2f2f6c6bd6497e70c331c7e88f8b0676e77f04f8fbdf", ""),),
    ),
    "rm": Command(
        remove,
        (flag("-f", "--force", help="also when stopped instances use it; none of that name is fine"), *JSON, REF),
        examples=(("trivet rmi web:1", ""),),
    ),
    "prune": prune_command(
        ("images",), "trivet image prune", flag("-a", "--all", help="also named ones no instance uses"), LAYER_BLOBS
    ),
    "inspect": Command(inspect, (REF,), examples=(("trivet image inspect web:1", ""),)),
}
