"""`lint run`: tell what a `run` line opens, before anybody types it.

A table: what is dangerous, how to see it in the request, and why. Nothing is asked of the engine, nothing is started.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from trivet.cli.command import Command
from trivet.cli.context import Context
from trivet.cli.option import SHARED
from trivet.cli.output import write_json
from trivet.cli.request import request_of
from trivet.client.schema import InstanceRequest


class Rule(NamedTuple):
    """One danger; `seen` gives what of the request shows it, an empty list when it isn't there."""

    name: str
    seen: Callable[[InstanceRequest], Iterable[str]]
    why: str


def lint(context: Context, args: Namespace) -> int:
    """Print a line per danger; the exit code is 1 if there is one."""
    del context
    found = findings(request_of(args, os.environ))
    if args.json:
        write_json([{"rule": rule.name, "what": what, "why": rule.why} for rule, what in found])
    else:
        for rule, what in found:
            print(f"{what}: {rule.why} ({rule.name})")
    return 1 if found else 0


def findings(request: InstanceRequest) -> list[tuple[Rule, str]]:
    """Apply every rule; a machine has a kernel of its own, so that only what it is given of the host counts."""
    rules = (rule for rule in RULES if request.isolation != "vm" or rule.name.startswith("mount-"))
    return [(rule, what) for rule in rules for what in rule.seen(request)]


def _flag(name: str, given: Callable[[InstanceRequest], bool]) -> Callable[[InstanceRequest], Iterable[str]]:
    return lambda request: [name] if given(request) else []


def _capability(*names: str) -> Callable[[InstanceRequest], Iterable[str]]:
    return lambda request: [f"--cap-add {name}" for name in request.cap_add if name in (*names, "ALL")]


def _mounted(*paths: str, below: bool = False) -> Callable[[InstanceRequest], Iterable[str]]:
    """Find host paths that are shown inside: these, with `below` also what is below them."""

    def seen(request: InstanceRequest) -> Iterable[str]:
        for mount in request.mounts:
            source = PurePosixPath(os.path.normpath(mount.source or "."))
            if mount.kind == "bind" and any(_matches(source, PurePosixPath(path), below) for path in paths):
                yield f"-v {mount.source}:{mount.target}"

    return seen


def _matches(source: PurePosixPath, path: PurePosixPath, below: bool) -> bool:
    return source == path or (below and source.is_relative_to(path))


def _sockets(request: InstanceRequest) -> Iterable[str]:
    names = ("docker.sock", "trivet.sock", "containerd.sock", "podman.sock", "crio.sock")
    return [f"-v {mount.source}:{mount.target}" for mount in request.mounts if mount.source.endswith(names)]


def _host_processes_traced(request: InstanceRequest) -> Iterable[str]:
    both = request.pid == "host" and {"SYS_PTRACE", "ALL"} & set(request.cap_add)
    return ["--pid host --cap-add SYS_PTRACE"] if both else []


RULES = (
    Rule("privileged", _flag("--privileged", lambda r: r.privileged), "it has every right that root of the host has"),
    Rule("level-process", _flag("--isolation process", lambda r: r.isolation == "process"), "nothing is kept apart"),
    Rule("pid-host", _flag("--pid host", lambda r: r.pid == "host"), "it sees and can end the host's processes"),
    Rule("trace-host", _host_processes_traced, "it can read and change the memory of the host's processes"),
    Rule("ipc-host", _flag("--ipc host", lambda r: r.ipc == "host"), "it shares memory with the host's processes"),
    Rule(
        "network-host",
        _flag("--network host", lambda r: any(each.network == "host" for each in r.networks)),
        "it reaches the host's loopback and abstract sockets",
    ),
    Rule("userns-host", _flag("--userns host", lambda r: r.userns == "host"), "its root is the host's root"),
    Rule("seccomp", _flag("seccomp=unconfined", lambda r: r.seccomp == "unconfined"), "all of the kernel is in reach"),
    Rule("new-privileges", _flag("no-new-privileges=false", lambda r: not r.no_new_privileges), "setuid programs work"),
    Rule("devices", lambda r: [f"--device {each.source}" for each in r.devices], "it has a device of the host"),
    Rule("mount-socket", _sockets, "whoever speaks to an engine can start anything as root of the host"),
    Rule("mount-root", _mounted("/"), "it has all of the host's files"),
    Rule(
        "mount-system",
        _mounted("/etc", "/root", "/boot", "/usr", "/bin", "/lib", "/var/lib/docker", "/var/lib/trivet", below=True),
        "it has files that the host trusts",
    ),
    Rule(
        "mount-run", _mounted("/run", "/var/run", "/var", "/home"), "it has sockets or files of everybody on the host"
    ),
    Rule(
        "mount-kernel",
        _mounted("/proc", "/sys", "/dev", below=True),
        "it has the kernel's switches, such as the program that core dumps start",
    ),
    Rule("sys-admin", _capability("SYS_ADMIN"), "it can mount, which is most of what root can"),
    Rule("sys-module", _capability("SYS_MODULE"), "it can load code into the kernel"),
    Rule("sys-rawio", _capability("SYS_RAWIO"), "it can write to the machine's ports and memory"),
    Rule("sys-ptrace", _capability("SYS_PTRACE"), "it can read the memory of processes it sees"),
    Rule("sys-boot", _capability("SYS_BOOT"), "it can restart the machine"),
    Rule("dac-read-search", _capability("DAC_READ_SEARCH"), "it can open any file of a file system it has a part of"),
    Rule("bpf", _capability("BPF", "PERFMON"), "it can load programs into the kernel"),
    Rule("net-admin", _capability("NET_ADMIN"), "it can change its network, and with --network host the host's"),
    Rule("net-raw", _capability("NET_RAW"), "it can forge packets on its network"),
)

COMMANDS = {
    "run": Command(
        lint,
        SHARED,
        about="Takes the options of `run`. Nothing is started; the exit code is 1 if anything was found.",
        examples=(
            ("trivet lint run --privileged debian:bookworm", ""),
            ("trivet lint run --json -v /etc:/etc:ro debian:bookworm", "for programs"),
        ),
        failed=2,
        misused=2,
    )
}
