"""`run` and `create`: make an instance, start it, stay with it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from trivet.base.error import AlreadyExists, NotFound, TrivetError
from trivet.cli import terminal
from trivet.cli.argument import repeated
from trivet.cli.attach import Settings, converse
from trivet.cli.command import REFUSED, Command, Misuse, flag, under
from trivet.cli.context import Context
from trivet.cli.option import KEYS, PROXY, SHARED
from trivet.cli.output import write_json
from trivet.cli.patience import patience
from trivet.cli.request import request_of
from trivet.client.schema import Created, InstanceRequest
from trivet.client.stream import Stream


def run(context: Context, args: Namespace) -> int:
    """Create, start, and attach unless `-d`."""
    _check(args)
    request = request_of(args, os.environ)
    if args.dry_run:
        return _show_plan(context, args, request)
    if args.detach:
        _print_id(
            args,
            _made(
                context, args, request, lambda wish: _Begun(context.client.instances.create(wish, start=True))
            ).created,
        )
        return 0
    begun = _made(
        context, args, request, lambda wish: _Begun(*context.client.instances.run(wish, stdin=args.interactive))
    )
    assert begun.stream is not None
    with begun.stream as stream:
        return converse(stream, _settings(context, args, begun.created.id))


class _Begun(NamedTuple):
    """An instance that was made, and the connection to its program if it was started with one."""

    created: Created
    stream: Stream | None = None


Make = Callable[[InstanceRequest], _Begun]


def create(context: Context, args: Namespace) -> int:
    """Create without starting."""
    request = request_of(args, os.environ)
    if args.dry_run:
        return _show_plan(context, args, request)
    _print_id(args, _made(context, args, request, lambda wish: _Begun(context.client.instances.create(wish))).created)
    return 0


def _check(args: Namespace) -> None:
    if args.tty and args.interactive and not args.detach and not args.dry_run:
        terminal.require_terminal()
    if args.detach and args.attach:
        raise Misuse("--detach and --attach exclude each other")


def _settings(context: Context, args: Namespace, ref: str) -> Settings:
    streams = args.attach or ["stdin", "stdout", "stderr"]
    return Settings(
        terminal=args.tty,
        stdin=args.interactive and "stdin" in streams,
        stdout="stdout" in streams,
        stderr="stderr" in streams,
        detach_keys=args.detach_keys,
        forward=signal_sender(context, ref) if args.sig_proxy else None,
    )


def signal_sender(context: Context, ref: str) -> Callable[[int], None]:
    """Send signals over a connection of their own: the stream may be stuffed with input nobody reads."""

    def send(number: int) -> None:
        try:
            context.client.instances.kill(ref, signal=str(number))
        except TrivetError:
            pass  # it has ended, or has not begun

    return send


def _made(context: Context, args: Namespace, request: InstanceRequest, make: Make) -> _Begun:
    with _id_file(args.cidfile) as write_id:
        begun = _made_with_image(context, args, request, make)
        write_id.append(begun.created.id)
    for warning in begun.created.warnings:
        context.warn(warning)
    return begun


def _made_with_image(context: Context, args: Namespace, request: InstanceRequest, make: Make) -> _Begun:
    """Pull here rather than in the engine's create, so that progress is seen."""
    policy = request.pull
    if policy == "always":
        _pull(context, args)
        return _made_from_present(request, make)
    try:
        return _made_from_present(request, make)
    except NotFound:
        if policy == "never" or _is_present(context, request.image):
            raise
    _pull(context, args)
    return _made_from_present(request, make)


def _made_from_present(request: InstanceRequest, make: Make) -> _Begun:
    with patience(f"making an instance of {request.image}"):
        return make(msgspec.structs.replace(request, pull="never"))


def _is_present(context: Context, image: str) -> bool:
    try:
        context.client.images.get(image)
    except NotFound:
        return False
    return True


def _pull(context: Context, args: Namespace) -> None:
    from trivet.cli.progress import follow  # most runs need no pull

    follow(context.client.images.pull(args.image, platform=args.platform), quiet=args.quiet)


@contextmanager
def _id_file(name: str | None) -> Iterator[list[str]]:
    """Hold the place for the id, so that no instance is made whose id can't be written down."""
    ids: list[str] = []
    if name is None:
        yield ids
        return
    path = Path(name)
    try:
        output = path.open("x")
    except FileExistsError as error:
        hint = "remove it, or name another file"
        raise AlreadyExists(f"--cidfile: {name} exists already", hint=hint) from error
    with output:
        try:
            yield ids
            output.write("".join(ids))
        except BaseException:
            path.unlink()
            raise


def _print_id(args: Namespace, created: Created) -> None:
    if args.json:
        write_json({"id": created.id})
    else:
        print(created.id, flush=True)


def _show_plan(context: Context, args: Namespace, request: InstanceRequest) -> int:
    created = context.client.instances.create(msgspec.structs.replace(request, pull="never"), dry_run=True)
    if args.json:
        write_json({"plan": created.plan, "operations": created.operations, "warnings": created.warnings})
        return 0
    print("# plan")
    print(msgspec.json.format(msgspec.json.encode(created.plan), indent=2).decode())
    print("\n# operations")
    for operation in created.operations:
        print(operation)
    for warning in created.warnings:
        context.warn(warning)
    return 0


ATTACH = repeated("-a", "--attach", choices=("stdin", "stdout", "stderr"), help="connect only these (default: all)")

COMMANDS = {
    "run": Command(
        run,
        (
            *under(
                "run",
                flag("-d", "--detach", help="leave it running, print its id"),
                flag("--rm", help="remove it, with its anonymous volumes, when it has ended"),
                ATTACH,
                KEYS,
                PROXY,
            ),
            *SHARED,
        ),
        about=(
            "The same image runs as a process, a container or a virtual machine: see --isolation.\n"
            "Without -d the exit code is the program's own; 125: trivet refused or failed, 126: the program\n"
            "can't be executed, 127: it wasn't found, 128+n: it died of signal n."
        ),
        examples=(
            ("trivet run --rm debian:bookworm uname -r", "the host's kernel"),
            ("trivet run --rm --isolation vm debian:bookworm uname -r", "a kernel of its own"),
            ("trivet run -it --rm debian:bookworm bash", ""),
            ("trivet run -d --name web -p 8080:80 -v site:/srv nginx", ""),
            ("trivet run --dry-run nginx", "what would be done"),
        ),
        failed=REFUSED,
        misused=REFUSED,
    ),
    "create": Command(
        create,
        SHARED,
        examples=(("trivet create --name db -v data:/var/lib/postgresql postgres", ""), ("trivet start -a db", "")),
    ),
}
