"""Arguments that create, run and exec have in common."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import msgspec

from trivet.runtime import program, rootless, template
from trivet.runtime.container import Container
from trivet.runtime.journal import Journal
from trivet.runtime.program import Way
from trivet.runtime.relay import size

LISTENING = "LISTEN_FDS"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare how a program is started and handed over."""
    parser.add_argument("--console-socket", type=Path, help="unix socket that gets the terminal's other side")
    parser.add_argument("--pid-file", type=Path, help="write the program's pid there")
    parser.add_argument("--preserve-fds", type=int, default=0, metavar="N", help="pass N descriptors on, from 3")


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Declare what a container is made from."""
    add(parser)
    parser.add_argument("--bundle", "-b", type=Path, default=Path(), help="directory of config.json (default: here)")
    parser.add_argument("--no-pivot", action="store_true", help="use chroot, on a root that can't be pivoted from")
    parser.add_argument("--no-new-keyring", action="store_true", help="keep the caller's session keyring")
    parser.add_argument("id")


def read(arguments: argparse.Namespace, *, attached: bool, wait: bool = False) -> Way:
    """Read them."""
    listening = _listening()
    return Way(
        variables=(f"{LISTENING}={listening}", "LISTEN_PID=1") if listening else (),
        console=arguments.console_socket,
        preserved=max(arguments.preserve_fds, 0) + listening,
        rootless=rootless.applies(arguments.rootless),
        systemd=arguments.systemd_cgroup,
        pivot=not getattr(arguments, "no_pivot", False),
        keyring=not getattr(arguments, "no_new_keyring", False),
        size=size() if attached else None,
        wait=wait,
        warn=arguments.journal.warn,
    )


def listening(way: Way, journal: Journal) -> tuple[list[str], Way]:
    """Give the same, and a list of what will have been said on the way."""
    said: list[str] = []

    def warn(text: str) -> None:
        said.append(text)
        journal.warn(text)

    return said, msgspec.structs.replace(way, warn=warn)


def ordinary(arguments: argparse.Namespace) -> bool:
    """Tell whether a container was started by options that the front knows."""
    there = ("console_socket", "preserve_fds", "no_pivot", "no_new_keyring", "keep", "systemd_cgroup", "log")
    return not any(getattr(arguments, name, None) for name in there) and LISTENING not in os.environ


def keep_exec(container: Container, way: Way) -> None:
    """Leave the plan of further programs like the container's own to the front; of what it lacks we have warned."""
    process = container.kept.spec.process
    if process is not None and not way.variables and not way.preserved:
        plain = msgspec.structs.replace(process, terminal=False, console_size=None)
        raw = Path(container.kept.bundle, "config.json").read_bytes()
        program.keep_exec(container, plain, template.signatures(raw), way)


def _listening() -> int:
    """Count the sockets a service manager passed on (sd_listen_fds(3))."""
    count = os.environ.get(LISTENING, "")
    return int(count) if count.isascii() and count.isdigit() and len(count) < 4 else 0


def write_pid(path: Path | None, pid: int) -> None:
    """Write the pid file, if one was asked for, in one piece."""
    if path is not None:
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(str(pid))
        temporary.rename(path)
