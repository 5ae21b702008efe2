"""exec: run a further program in a running container."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from trivet.base.error import InvalidArgument
from trivet.oci import runtime as oci
from trivet.runtime import program, template
from trivet.runtime.container import Container
from trivet.runtime.relay import wait
from trivet.runtime.verb import way

_SPECIAL = ("console_socket", "preserve_fds", "user", "tty", "no_new_privs", "apparmor", "process_label", "cgroup")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    way.add(parser)
    parser.add_argument("--process", "-p", type=Path, help="a file with the process as JSON")
    parser.add_argument("--cwd", help="working directory (default: the container's)")
    parser.add_argument("--env", "-e", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--user", "-u", help="uid[:gid]")
    parser.add_argument("--additional-gids", "-g", action="append", default=[], type=int, metavar="GID")
    parser.add_argument("--tty", "-t", action="store_true", help="give it a terminal")
    parser.add_argument("--detach", "-d", action="store_true", help="return when the program runs")
    parser.add_argument("--cap", "-c", action="append", default=[], metavar="CAP", help="a capability more")
    parser.add_argument("--no-new-privs", action="store_true", help="no more rights by execve")
    parser.add_argument("--apparmor", default="", metavar="PROFILE")
    parser.add_argument("--process-label", default="", metavar="LABEL")
    parser.add_argument("--cgroup", default="", metavar="PATH", help="a control group below the container's")
    parser.add_argument("--ignore-paused", action="store_true", help="also in a paused container")
    parser.add_argument("id")
    parser.add_argument("command", nargs=argparse.REMAINDER)


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    process = _process(arguments, container)
    chosen = msgspec.structs.replace(way.read(arguments, attached=not arguments.detach), group=arguments.cgroup)
    begun = program.execute(
        container, process, arguments.user, chosen, paused=arguments.ignore_paused, detached=arguments.detach
    )
    way.write_pid(arguments.pid_file, begun.pid)
    if _ordinary(arguments):
        asked = template.signature(arguments.process.read_bytes()) if arguments.process else template.PLAIN
        program.keep_exec(container, process, (asked,), chosen)
    return 0 if arguments.detach else wait(begun.pid, begun.master)


def _ordinary(arguments: argparse.Namespace) -> bool:
    """Tell whether the front could do the same."""
    there = (*_SPECIAL, *(() if arguments.process else ("additional_gids", "cap")))
    return way.LISTENING not in os.environ and not any(getattr(arguments, name) for name in there)


def _process(arguments: argparse.Namespace, container: Container) -> oci.Process:
    if arguments.process is not None:
        try:
            return msgspec.json.decode(arguments.process.read_bytes(), type=oci.Process)
        except msgspec.DecodeError as error:
            raise oci.InvalidSpec(str(arguments.process), str(error)) from error
    if not arguments.command:
        raise InvalidArgument("exec needs a command, or --process")
    own = container.kept.spec.process or oci.Process(cwd="/")
    user = msgspec.structs.replace(own.user, additional_gids=(*own.user.additional_gids, *arguments.additional_gids))
    return msgspec.structs.replace(
        own,
        args=tuple(arguments.command),
        env=(*own.env, *arguments.env),
        cwd=arguments.cwd or own.cwd,
        terminal=arguments.tty,
        console_size=None,
        user=user,
        capabilities=_widened(own.capabilities, arguments.cap),
        apparmor_profile=arguments.apparmor or own.apparmor_profile,
        selinux_label=arguments.process_label or own.selinux_label,
        no_new_privileges=own.no_new_privileges or arguments.no_new_privs,
    )


def _widened(sets: oci.Capabilities | None, names: Iterable[str]) -> oci.Capabilities | None:
    """Add capabilities to those of the container, inheritable and ambient only where those are."""
    if sets is None or not names:
        return sets
    wider = {
        name: (*getattr(sets, name), *names)
        for name in ("bounding", "effective", "permitted", *(("inheritable", "ambient") if sets.inheritable else ()))
    }
    return msgspec.structs.replace(sets, **wider)
