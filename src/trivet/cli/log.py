"""`logs`: what an instance wrote, made safe for a terminal."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli import terminal, value
from trivet.cli.argument import REF
from trivet.cli.attach import replay, write_all
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.control import Neutraliser
from trivet.cli.output import JSON, write_json
from trivet.client.stream import Output


def logs(context: Context, args: Namespace) -> int:
    """Replay the log."""
    events = context.client.instances.logs(
        args.instance,
        follow=args.follow,
        tail=args.tail,
        since=args.since or "",
        until=args.until or "",
        timestamps=args.timestamps,
    )
    if args.json:
        for event in events:
            stream = "stderr" if event.error else "stdout"
            write_json({"stream": stream, "data": event.data.decode(errors="replace")})
        return 0
    filters = {
        error: Neutraliser() for error in (False, True) if not args.raw and terminal.is_terminal(2 if error else 1)
    }

    def change(event: Output) -> bytes:
        return filters[event.error].feed(event.data) if event.error in filters else event.data

    replay(events, change)
    for error, rest in filters.items():
        write_all(2 if error else 1, rest.finish())
    return 0


WHICH = (
    flag("-f", "--follow", help="go on as more is written"),
    option("-n", "--tail", metavar="N", type=value.count_or_all, help="only the last N lines (default: all)"),
    option("--since", metavar="TIME", type=value.moment, help="from a time, or a duration ago: 10m"),
    option("--until", metavar="TIME", type=value.moment, help="up to a time, or a duration ago"),
    flag("-t", "--timestamps", help="write the time in front of each line"),
)
COMMANDS = {
    "logs": Command(
        logs,
        (
            *WHICH,
            flag("--raw", help="pass control characters on to the terminal"),
            *JSON,
            REF,
        ),
        about=(
            "What the program wrote to standard output and standard error goes to the same here. On a terminal\n"
            "control characters other than colours are shown as symbols; --raw passes them on."
        ),
        examples=(("trivet logs -f --tail 20 web", ""), ("trivet logs --since 10m -t db", "")),
    ),
}
