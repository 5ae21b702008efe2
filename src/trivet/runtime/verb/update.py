"""update: change the limits of a running container."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.error import Conflict, InvalidArgument, Unsupported
from trivet.oci import runtime as oci
from trivet.runtime import resource
from trivet.runtime.container import Container

_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MEMORY = {
    "--memory": "limit",
    "--memory-reservation": "reservation",
    "--memory-swap": "swap",
    "--kernel-memory": "kernel",
    "--kernel-memory-tcp": "kernel_tcp",
}
_CPU = {
    "--cpu-period": "period",
    "--cpu-quota": "quota",
    "--cpu-burst": "burst",
    "--cpu-share": "shares",
    "--cpu-rt-period": "realtime_period",
    "--cpu-rt-runtime": "realtime_runtime",
    "--cpu-idle": "idle",
}
_CPUSET = {"--cpuset-cpus": "cpus", "--cpuset-mems": "mems"}
_RDT = ("--l3-cache-schema", "--mem-bw-schema")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--resources", "-r", metavar="FILE", help="limits as JSON, - for standard input")
    for flag in _MEMORY:
        parser.add_argument(flag, type=_bytes, metavar="BYTES")
    for flag in _CPU:
        parser.add_argument(flag, type=int, metavar="N")
    for flag in (*_CPUSET, *_RDT):
        parser.add_argument(flag, metavar="TEXT")
    parser.add_argument("--pids-limit", type=int, metavar="N")
    parser.add_argument("--blkio-weight", type=int, metavar="N")
    parser.add_argument("id")


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    container = Container.find(arguments.root, arguments.id)
    container.expect("created", "running", "paused")
    for flag in _RDT:
        if _value(arguments, flag) is not None:
            raise Unsupported(f"{flag}: Intel RDT is not supported")
    asked = _read(arguments.resources) if arguments.resources else _asked(arguments)
    asked, version = msgspec.structs.replace(asked, devices=()), container.kept.spec.oci_version
    limits = resource.resources(asked, version)
    resource.check(limits, container.group.layout, delegated=container.kept.rootless)
    used, memory = container.group.usage().memory, asked.memory or oci.Memory()
    if memory.check_before_update and memory.limit is not None and 0 <= memory.limit < used:
        raise Conflict(f"container {arguments.id} uses {used} bytes of memory, more than the limit asked for")
    container.limit(limits)
    return 0


def _read(name: str) -> oci.Resources:
    raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        return msgspec.json.decode(raw, type=oci.Resources)
    except msgspec.DecodeError as error:
        raise oci.InvalidSpec(name, str(error)) from error


def _asked(arguments: argparse.Namespace) -> oci.Resources:
    memory = {field: _value(arguments, flag) for flag, field in _MEMORY.items()}
    cpu = {field: _value(arguments, flag) for flag, field in _CPU.items()}
    cpuset: dict[str, Any] = {field: _value(arguments, flag) or "" for flag, field in _CPUSET.items()}
    pids, weight = arguments.pids_limit, arguments.blkio_weight
    return oci.Resources(
        memory=oci.Memory(**memory),
        cpu=oci.Cpu(**cpu, **cpuset),
        pids=None if pids is None else oci.Pids(limit=pids),
        block_io=None if weight is None else oci.BlockIo(weight=weight),
    )


def _value(arguments: argparse.Namespace, flag: str) -> Any:
    return getattr(arguments, flag.removeprefix("--").replace("-", "_"))


def _bytes(text: str) -> int:
    """Read a number of bytes, with b, k, m, g or t behind it; -1 is unlimited."""
    digits = text.rstrip("bkmgtBKMGT")
    unit = text[len(digits) :].lower()
    if unit not in _SIZES or not digits.removeprefix("-").isdigit():
        raise InvalidArgument(f"{text!r} is not a number of bytes")
    return int(digits) * _SIZES[unit]
