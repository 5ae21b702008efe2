"""`exec`, `attach` and `start`: being connected to a program that is there already."""

from __future__ import annotations

import argparse
import os
from argparse import Namespace

from trivet.base.error import Conflict
from trivet.cli import terminal
from trivet.cli.argument import REF, REFS
from trivet.cli.attach import Settings, converse
from trivet.cli.command import REFUSED, Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.instance import each
from trivet.cli.option import KEYS, PROGRAM, PROXY
from trivet.cli.output import JSON
from trivet.cli.request import environment
from trivet.cli.run import signal_sender
from trivet.client.schema import ExecRequest


def exec_(context: Context, args: Namespace) -> int:
    """Run a further program inside."""
    if not args.command:
        raise Misuse("COMMAND is missing", hint="see `trivet exec --help`")
    if args.tty and args.interactive and not args.detach:
        terminal.require_terminal()
    rows, columns = terminal.size() if args.tty else (0, 0)
    request = ExecRequest(
        command=args.command,
        env=environment(args, os.environ),
        cwd=args.workdir,
        user=args.user,
        terminal=args.tty,
        stdin=args.interactive,
        privileged=args.privileged,
        detach=args.detach,
        rows=rows,
        columns=columns,
    )
    if args.detach:
        print(context.client.instances.exec_detached(args.instance, request))
        return 0
    with context.client.instances.exec(args.instance, request) as stream:
        keys, forward = args.detach_keys, None if args.tty else stream.signal
        return converse(stream, Settings(terminal=args.tty, stdin=args.interactive, detach_keys=keys, forward=forward))


def attach(context: Context, args: Namespace) -> int:
    """Connect to a running instance."""
    instance = context.client.instances.get(args.instance)
    if instance.status != "running":
        hint = f"see its output with `trivet logs {args.instance}`"
        raise Conflict(f"cannot attach to instance {args.instance}: it is {instance.status}", hint=hint)
    stdin = instance.request.stdin and not args.no_stdin
    if instance.request.terminal and stdin:
        terminal.require_terminal()
    return _stay(context, args, start=False, stdin=stdin, tty=instance.request.terminal)


def start(context: Context, args: Namespace) -> int:
    """Start instances; with `-a` or `-i` stay with the one."""
    if not (args.attach or args.interactive):
        return each(context, args, args.instances, context.client.instances.start)
    if len(args.instances) != 1:
        raise Misuse("--attach takes one instance at a time")
    args.instance = args.instances[0]
    instance = context.client.instances.get(args.instance)
    stdin = args.interactive and instance.request.stdin
    if instance.request.terminal and stdin:
        terminal.require_terminal()
    return _stay(context, args, start=True, stdin=stdin, tty=instance.request.terminal)


def _stay(context: Context, args: Namespace, *, start: bool, stdin: bool, tty: bool) -> int:
    forward = signal_sender(context, args.instance) if args.sig_proxy else None
    settings = Settings(terminal=tty, stdin=stdin, detach_keys=args.detach_keys, forward=forward)
    with context.client.instances.attach(args.instance, start=start, stdin=stdin) as stream:
        return converse(stream, settings)


COMMANDS = {
    "exec": Command(
        exec_,
        (
            flag("-d", "--detach", help="leave it running, print the session's id"),
            *PROGRAM,
            flag("--privileged", help="give it every capability"),
            KEYS,
            REF,
            option("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="program and its arguments"),
        ),
        about="The exit code is the program's own, as with `run`.",
        examples=(("trivet exec -it web sh", ""), ("trivet exec -u postgres db psql -c 'select 1'", "")),
        failed=REFUSED,
        misused=REFUSED,
    ),
    "attach": Command(
        attach,
        (flag("--no-stdin", help="only watch"), KEYS, PROXY, REF),
        about="Several may be attached at once. The exit code is the program's own.",
        examples=(("trivet attach web", "ctrl-p ctrl-q leaves it running"),),
    ),
    "start": Command(
        start,
        (
            flag("-a", "--attach", help="stay with it; the exit code is the program's own"),
            flag("-i", "--interactive", help="pass standard input on, and stay"),
            KEYS,
            PROXY,
            *JSON,
            REFS,
        ),
        examples=(("trivet start web db", ""), ("trivet start -a job", "")),
        failed=REFUSED,
        misused=REFUSED,
    ),
}
