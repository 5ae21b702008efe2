"""What the instances of an application write, each line with whose it is."""

from __future__ import annotations

import sys
import threading
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trivet.base.error import TrivetError
from trivet.cli import terminal
from trivet.cli.command import Command, flag, option
from trivet.cli.compose import plan
from trivet.cli.context import Context
from trivet.cli.control import Neutraliser
from trivet.cli.log import WHICH
from trivet.cli.value import natural
from trivet.client.client import Client
from trivet.client.schema import Instance

if TYPE_CHECKING:
    from trivet.cli.compose.apply import Application

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Printer:
    """Writes whole lines, from several threads."""

    def __init__(self, names: Sequence[str], *, prefix: bool = True, colour: bool = True) -> None:
        self._width = max(map(len, names), default=0)
        self._prefix, self._lock = prefix, threading.Lock()
        self._colour = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(sorted(names))}
        self._terminal = colour and terminal.is_terminal(1)

    def line(self, name: str, text: str) -> None:
        """Write one line of an instance."""
        front = f"{name:<{self._width}} | " if self._prefix else ""
        if front and self._terminal:
            front = f"\x1b[{self._colour.get(name, 37)}m{front}\x1b[0m"
        with self._lock:
            sys.stdout.write(f"{front}{text}\n")
            sys.stdout.flush()


def logs(context: Context, args: Namespace) -> int:
    """Show what was written, side by side."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args, services=False)
    there = [
        one
        for one in plan.present(context.client, project.name)
        if not plan.is_one_off(one)
        and (not args.services or one.labels.get(plan.SERVICE) in args.services)
        and args.index in (0, plan.number_of(one))
    ]
    printer = Printer([one.name for one in there], prefix=not args.no_log_prefix, colour=not args.no_color)
    threads = [_show(context.client, one, printer, args) for one in there]
    for thread in threads:
        while thread.is_alive():  # a join without end hears no Ctrl-C
            thread.join(0.2)
    return 0


def _show(client: Client, instance: Instance, printer: Printer, args: Namespace) -> threading.Thread:
    thread = threading.Thread(target=_copy, args=(client, instance, printer, args), daemon=True)
    thread.start()
    return thread


def _copy(client: Client, instance: Instance, printer: Printer, args: Namespace) -> None:
    neutral, rest = Neutraliser(), b""
    try:
        for output in client.instances.logs(
            instance.id,
            follow=args.follow,
            tail=args.tail,
            since=args.since or "",
            until=args.until or "",
            timestamps=args.timestamps,
        ):
            *lines, rest = (rest + output.data).split(b"\n")
            for line in lines:
                printer.line(instance.name, neutral.feed(line.rstrip(b"\r")).decode(errors="replace"))
    except TrivetError:
        pass  # it was removed meanwhile
    if rest:
        printer.line(instance.name, neutral.feed(rest).decode(errors="replace"))


def stay(
    application: Application, shown: Sequence[str], names: Sequence[str], look: Namespace, *, ends: str, chosen: str
) -> int:
    """Show what an application writes until it ends; Ctrl-C stops it, twice kills it. Returns the exit code.

    `ends` says at which instance's end all are stopped: "any", one that is a "failure", or "" none.
    """
    there = {one.name: one for name in names for one in application.instances(name)}
    printer = Printer(list(there), prefix=not look.no_log_prefix, colour=not look.no_color)
    args = Namespace(follow=True, tail=None, since="", until="", timestamps=look.timestamps)
    seen = [one for one in there.values() if one.labels.get(plan.SERVICE) in shown]
    threads = [_show(application.client, one, printer, args) for one in seen]
    first = threading.Event()
    codes: dict[str, int] = {}

    def wait(one: Instance) -> None:
        try:
            codes[one.name] = application.client.instances.wait(one.id).code
            printer.line(one.name, f"exited with code {codes[one.name]}")
        except TrivetError:
            codes[one.name] = 0
        if ends != "failure" or codes[one.name]:
            first.set()

    waiting = [threading.Thread(target=wait, args=(one,), daemon=True) for one in there.values()]
    for thread in waiting:
        thread.start()
    try:
        while any(thread.is_alive() for thread in waiting) and not ((ends or chosen) and first.is_set()):
            waiting[0].join(0.2) if waiting[0].is_alive() else first.wait(0.2)
    except KeyboardInterrupt:
        application.tell(application.project.name, "is stopped; Ctrl-C again kills it")
        _stop(application, names)
        return 130
    if ends or chosen:
        _stop(application, names)
    for thread in (*waiting, *threads):
        thread.join(5)
    mine = [one.name for one in there.values() if one.labels.get(plan.SERVICE) == chosen]
    return codes.get(mine[0], 0) if mine else max(codes.values(), default=0) if ends else 0


def _stop(application: Application, names: Sequence[str]) -> None:
    def one(name: str) -> None:
        for instance in application.instances(name):
            if instance.status in ("running", "paused", "restarting"):
                application.stop(name, instance.id)

    try:
        application.each_service(names, one, reverse=True)
    except KeyboardInterrupt:
        for name in names:
            for instance in application.instances(name):
                if instance.status == "running":
                    application.client.instances.kill(instance.id)


LOOK = (
    flag("--no-log-prefix", help="don't write whose a line is"),
    flag("--no-color", help="everything in one colour"),
)
COMMANDS = {
    "logs": Command(
        logs,
        (
            *WHICH,
            *LOOK,
            option("--index", metavar="N", type=natural, default=0, help="which of several instances"),
            option("services", metavar="SERVICE", nargs="*", help="only these"),
        ),
        examples=(("trivet compose logs -f --tail 20 web", ""),),
    ),
}
