"""`network why`: which rule lets a packet pass, or drops it."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace

from trivet.cli.argument import INSTANCE
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.output import JSON, write_json
from trivet.client.schema_path import Way


def target(text: str) -> tuple[str, int]:
    """Read NAME:PORT, ADDRESS:PORT or [ADDRESS]:PORT."""
    name, colon, port = text.rpartition(":")
    if not colon or not name or not port.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not WHERE:PORT")
    return name.removeprefix("[").removesuffix("]"), int(port)


def why(context: Context, args: Namespace) -> int:
    """Tell which rule lets a packet pass, or drops it."""
    name, port = args.target
    found = context.client.networks.why(args.source, name, port, args.protocol, ipv6=args.ipv6)
    if args.json:
        write_json(found)
    else:
        print(_text(found, f"{args.source} → {name}:{port}/{args.protocol}"))
    return 0 if found.passes else 1


def _text(found: Way, what: str) -> str:
    lines = [f"{what} {'passes' if found.passes else 'does not pass'}: {found.verdict}"]
    width = max((len(step.chain) for step in found.steps), default=0)
    lines += [f"  {step.chain:{width}}  {step.rule}\n  {'':{width}}  └ {step.reason}" for step in found.steps]
    lines += [f"  ! {warning}" for warning in found.warnings]
    return "\n".join(lines)


COMMANDS = {
    "why": Command(
        why,
        (
            flag("-6", "--ipv6", help="over IPv6"),
            *JSON,
            option("source", metavar="FROM", help="an instance, host or world", complete=INSTANCE),
            option("target", metavar="WHERE:PORT", type=target, help="an instance, host, world or an address"),
            option(
                "protocol",
                metavar="PROTOCOL",
                nargs="?",
                choices=("tcp", "udp"),
                default="tcp",
                help="tcp or udp (tcp)",
            ),
        ),
        about="Exits with 1 when the packet doesn't pass. Whether a program listens there is another question.",
        examples=(
            ("trivet network why web db:5432", ""),
            ("trivet network why world host:8080", "a published port"),
            ("trivet network why web world:53 udp", ""),
        ),
    ),
}
