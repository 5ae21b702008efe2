"""What an instance has become: an image, a tar, a list of changes; and what it may use from now on."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli import value
from trivet.cli.archive import output_, write_out
from trivet.cli.argument import FILE, REF, REFS, repeated
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.endpoint import pace
from trivet.cli.instance import each
from trivet.cli.output import FORMAT, JSON, Column, age, human_size, show, write_json
from trivet.cli.patience import patience
from trivet.cli.port import publish
from trivet.cli.request import restart_policy
from trivet.client.schema import UpdateRequest
from trivet.client.schema_image import CommitRequest

LETTERS = {"changed": "C", "added": "A", "deleted": "D"}


def commit(context: Context, args: Namespace) -> int:
    """Make an image of an instance."""
    wish = CommitRequest(
        name=args.name, changes=args.change, author=args.author, message=args.message, pause=not args.no_pause
    )
    with patience(f"making an image of {args.instance}"):
        made = context.client.instances.commit(args.instance, wish)
    if args.json:
        write_json({"id": made})
    else:
        print(made)
    return 0


def diff(context: Context, args: Namespace) -> int:
    """List what an instance has changed in its root."""
    found = context.client.instances.changes(args.instance)
    for change in found:
        if args.json:
            write_json(change)
        else:
            print(LETTERS[change.kind], change.path)
    return 0


def export(context: Context, args: Namespace) -> int:
    """Write an instance's root as a tar."""
    with output_(args.output) as output, context.client.instances.export(args.instance) as response:
        write_out(response, output, args)
    return 0


def update(context: Context, args: Namespace) -> int:
    """Change limits, restart policy and ports."""
    wish = UpdateRequest(
        memory=args.memory,
        memory_swap=args.memory_swap,
        memory_reservation=args.memory_reservation,
        cpus=args.cpus,
        cpu_shares=args.cpu_shares,
        cpuset=args.cpuset_cpus,
        cpuset_mems=args.cpuset_mems,
        pids_limit=args.pids_limit,
        restart=restart_policy(args.restart) if args.restart else None,
        publish=[port for ports in args.publish_add for port in ports],
        unpublish=[port for ports in args.publish_rm for port in ports],
        rates=args.network,
    )
    if wish == UpdateRequest():
        raise Misuse("nothing to change was named", hint="trivet update --help")
    return each(context, args, args.instances, lambda ref: context.client.instances.update(ref, wish))


def history(context: Context, args: Namespace) -> int:
    """List how an image came about, newest step first."""
    width = None if args.no_trunc else 60
    columns: list[Column[dict[str, object]]] = [
        Column("CREATED", lambda row: age(str(row["created"])) if row["created"] else ""),
        Column("SIZE", lambda row: human_size(int(str(row["size"])))),
        Column("STEP", lambda row: str(row["created_by"])[:width]),
        Column("COMMENT", lambda row: str(row["comment"])),
    ]
    show(context.client.images.get(args.image).history, columns, args, lambda row: str(row["digest"]))
    return 0


COMMANDS = {
    "commit": Command(
        commit,
        (
            repeated("-c", "--change", metavar="INSTRUCTION", help="a Dockerfile instruction, such as CMD"),
            option("-a", "--author", metavar="NAME", default="", help="who made it"),
            option("-m", "--message", metavar="TEXT", default="", help="comment for the history"),
            flag("--no-pause", help="don't let it stand still meanwhile"),
            *JSON,
            REF,
            option("name", metavar="NAME[:TAG]", nargs="?", default="", help="name to give the image"),
        ),
        examples=(("trivet commit web web:mended", ""),),
    ),
    "diff": Command(diff, (*JSON, REF), examples=(("trivet diff web", "A added, C changed, D deleted"),)),
    "export": Command(
        export,
        (
            option("-o", "--output", metavar="FILE", help="tar to write (default: standard output)", complete=FILE),
            flag("-q", "--quiet", help="no progress"),
            REF,
        ),
        examples=(("trivet export -o web.tar web", ""), ("trivet export web | trivet import - web:flat", "")),
    ),
    "update": Command(
        update,
        (
            option("-m", "--memory", metavar="SIZE", type=value.size, help="memory"),
            option("--memory-swap", metavar="SIZE", type=value.size_or_unlimited, help="with swap; -1: unlimited"),
            option("--memory-reservation", metavar="SIZE", type=value.size, help="memory kept under pressure"),
            option("--cpus", metavar="N", type=float, help="processors, such as 1.5"),
            option("-c", "--cpu-shares", metavar="N", type=int, help="weight among others (1024)"),
            option("--cpuset-cpus", metavar="LIST", help="which processors, such as 0-1"),
            option("--cpuset-mems", metavar="LIST", help="which memory nodes, such as 0-1"),
            option("--pids-limit", metavar="N", type=int, help="processes, -1 is unlimited"),
            option("--restart", metavar="POLICY", default="", help="no, always, unless-stopped or on-failure[:N]"),
            repeated(
                "--publish-add", metavar="[[ADDRESS:]HOST:]PORT[/udp]", type=publish, help="publish a port, or a range"
            ),
            repeated(
                "--publish-rm", metavar="[[ADDRESS:]HOST:]PORT[/udp]", type=publish, help="take a published port back"
            ),
            repeated(
                "--network",
                metavar="name=NAME,rate-in=RATE,rate-out=RATE",
                type=pace,
                help="how fast it may get and send on a network: 512kbit, 10mbit; 0: as fast as it can",
            ),
            *JSON,
            REFS,
        ),
        about="What isn't named stays as it is. Ports and rates change without a restart.",
        examples=(
            ("trivet update -m 1g --cpus 2 web", ""),
            ("trivet update --publish-rm 8080:80 --publish-add 8081:80 web", ""),
        ),
    ),
    "history": Command(
        history,
        (
            flag("--no-trunc", help="whole steps"),
            *FORMAT,
            option("image", metavar="IMAGE", help="name, id or beginning of an id"),
        ),
        examples=(("trivet history web:1", ""),),
    ),
}
