"""`vm backup` and `vm restore`."""

from __future__ import annotations

import secrets
import time
from argparse import Namespace
from pathlib import Path

from trivet.base.error import TimedOut, TrivetError
from trivet.cli import value
from trivet.cli.archive import result_of
from trivet.cli.argument import DIRECTORY, INSTANCE
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, Column, age, human_size, show
from trivet.cli.patience import patience
from trivet.cli.progress import follow
from trivet.client.schema_machine import BackupPoint, RestoreRequest

ACTIONS = ("create", "ls", "verify")
_STEP = 1.0


def backup(context: Context, args: Namespace) -> int:
    """Do what was asked for."""
    if args.action == "create":
        if not args.directory:
            raise Misuse("vm backup create needs a machine and a directory")
        steps = context.client.machines.backup(args.what, _absolute(args.directory), full=args.full)
        args.json = args.format == "json"
        result_of(args, follow(steps, quiet=args.quiet), "id")
        return 0
    if args.directory:
        raise Misuse(f"vm backup {args.action} takes a directory only")
    return _list(context, args) if args.action == "ls" else _verify(context, args)


def _list(context: Context, args: Namespace) -> int:
    columns: list[Column[BackupPoint]] = [
        Column("NUMBER", lambda row: str(row.number)),
        Column("ID", lambda row: row.id),
        Column("MACHINE", lambda row: row.machine),
        Column("CREATED", lambda row: age(row.created)),
        Column("WHAT", lambda row: "all" if row.full else "changes"),
        Column("QUIET", lambda row: "yes" if row.quiet else "no"),
        Column("SIZE", lambda row: human_size(row.size)),
    ]
    show(context.client.machines.backups(_absolute(args.what)), columns, args, lambda row: row.id)
    return 0


def _verify(context: Context, args: Namespace) -> int:
    """Boot a backup without a network, wait until it says what is expected or its agent answers, and remove it."""
    name = f"verify-{secrets.token_hex(4)}"
    machines, instances = context.client.machines, context.client.instances
    with patience(f"restoring {args.what}"):
        machines.restore(RestoreRequest(directory=_absolute(args.what), name=name, point=args.point, isolated=True))
    try:
        instances.start(name)
        with patience(f"waiting for {args.expect!r} on its console, or its agent"):
            said = _wait(context, name, args.expect, args.timeout)
    finally:
        instances.remove(name, force=True)
    print(f"the backup boots: {said}")
    return 0


def _wait(context: Context, name: str, expected: str, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        log = b"".join(event.data for event in context.client.instances.logs(name)).decode(errors="replace")
        if expected in log:
            return f"its console says {expected!r}"
        if context.client.instances.get(name).status != "running":
            raise TrivetError(f"the backup does not boot: the machine ended; its console's last words: {log[-300:]!r}")
        if context.client.machines.get(name).agent:
            return "its guest agent answers"
        time.sleep(_STEP)
    raise TimedOut(f"the backup has not said {expected!r} within {seconds:.0f} s", hint="--expect, --timeout")


def restore(context: Context, args: Namespace) -> int:
    """Make a machine of a backup."""
    wish = RestoreRequest(directory=_absolute(args.directory), name=args.name, point=args.point, live=args.live)
    with patience(f"restoring {args.name}"):
        print(context.client.machines.restore(wish))
    if args.start:
        context.client.instances.start(args.name)
    return 0


def _absolute(name: str) -> str:
    return str(Path(name).absolute())


POINT = option("--point", metavar="ID|N", default="", help="which (default: the newest)")

COMMANDS = {
    "backup": Command(
        backup,
        (
            flag("--full", help="create: all of it, whatever changed"),
            POINT,
            option("--expect", metavar="TEXT", default="login:", help="verify: what its console says (login:)"),
            option("--timeout", metavar="TIME", type=value.duration, default=900.0, help="verify: how long (15m)"),
            flag("-q", "--quiet", help="no progress"),
            *FORMAT,
            option("action", metavar="ACTION", choices=ACTIONS, help="create, ls or verify"),
            option("what", metavar="MACHINE|DIRECTORY", help="create: the machine; else where", complete=INSTANCE),
            option(
                "directory", metavar="DIRECTORY", nargs="?", default="", help="create: to where", complete=DIRECTORY
            ),
        ),
        about="The first backup in a directory is whole, further ones hold the blocks that changed. All disks are of "
        "one moment, at which the guest agent, where there is one, holds the file systems still. `verify` boots one "
        "as a machine without a network, and removes it again.",
        examples=(
            ("trivet vm backup create web /backup/web", ""),
            ("trivet vm backup verify /backup/web", ""),
        ),
    ),
    "restore": Command(
        restore,
        (
            POINT,
            flag("--start", help="switch it on"),
            flag("--live", help="don't wait: it can run at once, and is restored while it does"),
            option("directory", metavar="DIRECTORY", help="of backups, on the engine's host", complete=DIRECTORY),
            option("name", metavar="NAME", help="name of the new machine"),
        ),
        about="Ports get free numbers, addresses are new: the old machine may still be there.",
        examples=(("trivet vm restore /backup/web web2 --start", ""),),
    ),
}
