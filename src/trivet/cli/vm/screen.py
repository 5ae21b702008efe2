"""`vm console`, `screenshot`, `send-key`, `type`."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from trivet.base.error import Conflict
from trivet.cli import terminal
from trivet.cli.argument import FILE
from trivet.cli.attach import Settings, converse, write_all
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.option import KEYS
from trivet.cli.vm.life import REF


def console(context: Context, args: Namespace) -> int:
    """Connect to the serial console."""
    found = context.client.machines.get(args.machine)
    if found.status != "running":
        hint = f"trivet logs {args.machine} shows what was said there"
        raise Conflict(f"cannot connect to the console of machine {args.machine}: it is {found.status}", hint=hint)
    keyboard = not args.no_stdin
    if keyboard and terminal.is_terminal(0):
        terminal.require_terminal()
        context.note("connected; ctrl-p ctrl-q leaves, a key may be needed for the guest to say something")
    settings = Settings(terminal=True, stdin=keyboard, detach_keys=args.detach_keys)
    with context.client.instances.attach(args.machine, stdin=keyboard) as stream:
        return converse(stream, settings)


def screenshot(context: Context, args: Namespace) -> int:
    """Write a picture of the screen to a file, or to standard output."""
    picture = context.client.machines.screenshot(args.machine)
    if args.file == "-":
        if terminal.is_terminal(1):
            raise Misuse("a picture is not for a terminal", hint=f"trivet vm screenshot {args.machine} FILE.png")
        write_all(1, picture)
    else:
        partial = Path(f"{args.file}.{os.getpid()}.partial")
        partial.write_bytes(picture)
        partial.replace(args.file)
    return 0


def send_key(context: Context, args: Namespace) -> int:
    """Press chords."""
    context.client.machines.press(args.machine, *args.keys)
    return 0


def type_(context: Context, args: Namespace) -> int:
    """Type a text."""
    context.client.machines.press(args.machine, text=args.text + ("\n" if args.enter else ""))
    return 0


COMMANDS = {
    "console": Command(
        console,
        (flag("--no-stdin", help="only watch"), KEYS, REF),
        about="Several may be connected at once. What was said before, also after power-off: trivet logs.",
        examples=(("trivet vm console web", "ctrl-p ctrl-q leaves it"),),
    ),
    "screenshot": Command(
        screenshot,
        (REF, option("file", metavar="FILE", help="PNG to write, - for standard output", complete=FILE)),
        examples=(("trivet vm screenshot web web.png", ""),),
    ),
    "send-key": Command(
        send_key,
        (REF, option("keys", metavar="KEYS", nargs="+", help="keys pressed together: ctrl-alt-delete, f2, a")),
        examples=(("trivet vm send-key web ctrl-alt-f2", ""), ("trivet vm send-key web down down enter", "")),
    ),
    "type": Command(
        type_,
        (
            flag("-e", "--enter", help="press enter afterwards"),
            REF,
            option("text", metavar="TEXT", help="characters of a US keyboard"),
        ),
        examples=(("trivet vm type -e web root", ""),),
    ),
}
