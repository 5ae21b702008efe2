"""exec: run a further program in a running container."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from trivet.base.error import InvalidArgument
from trivet.oci import runtime as oci
from trivet.runtime.container import Container
from trivet.runtime.relay import begin, relay, size
from trivet.runtime.verb.create import write_pid


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--process", "-p", type=Path, help="a file with the process as JSON")
    parser.add_argument("--cwd", help="working directory (default: the container's)")
    parser.add_argument("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--user", "-u", help="uid[:gid]")
    parser.add_argument("--tty", "-t", action="store_true", help="give it a terminal")
    parser.add_argument("--detach", "-d", action="store_true", help="return when the program runs")
    parser.add_argument("--pid-file", type=Path, help="write the program's pid there")
    parser.add_argument("id")
    parser.add_argument("command", nargs=argparse.REMAINDER)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    process = _process(arguments, container)
    with container.exec(process, arguments.user, stdin=not arguments.detach) as channel:
        channel.attach(stdout=not arguments.detach, stderr=not arguments.detach)
        write_pid(arguments.pid_file, begin(channel, process))
        return 0 if arguments.detach else relay(channel, terminal=process.terminal)


def _process(arguments: argparse.Namespace, container: Container) -> oci.Process:
    if arguments.process is not None:
        try:
            return msgspec.json.decode(arguments.process.read_bytes(), type=oci.Process)
        except msgspec.DecodeError as error:
            raise oci.InvalidSpec(str(arguments.process), str(error)) from error
    if not arguments.command:
        raise InvalidArgument("exec needs a command, or --process")
    own = container.kept.spec.process or oci.Process(cwd="/")
    return msgspec.structs.replace(
        own,
        args=tuple(arguments.command),
        env=(*own.env, *arguments.env),
        cwd=arguments.cwd or own.cwd,
        terminal=arguments.tty,
        console_size=size() if arguments.tty else None,
    )
