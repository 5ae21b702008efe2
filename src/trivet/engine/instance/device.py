"""Devices of the host for an instance: what `--device` and its relatives name, looked up."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from trivet.base.error import InvalidArgument, Unsupported
from trivet.client.schema import BlockLimitRequest, DeviceRequest
from trivet.isolation.plan import BlockLimit, Device, DeviceRule, Level

ACCESS = frozenset("rwm")
RULE = re.compile(r"([acb]) ([0-9]{1,10}|\*):([0-9]{1,10}|\*) ([rwm]{1,3})")
WHAT: tuple[Literal["rbps", "wbps", "riops", "wiops"], ...] = ("rbps", "wbps", "riops", "wiops")


class NoSuchDevice(InvalidArgument):
    """A path of the host that is no device, and no directory with one."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"cannot give device {path}: {cause}")


def resolve(wishes: Iterable[DeviceRequest], level: str) -> tuple[Device, ...]:
    """Look devices up. At level process all of the host's are there anyway. Raises `NoSuchDevice`, `Unsupported`."""
    found: list[Device] = []
    for wish in wishes:
        if level == Level.VM:
            raise Unsupported(f"cannot give device {wish.source} to a machine: it has a kernel of its own")
        if not wish.access or not set(wish.access) <= ACCESS:
            raise InvalidArgument(f"access {wish.access!r} to device {wish.source} is not of r, w and m")
        target = wish.target or wish.source
        if not target.startswith("/"):
            raise InvalidArgument(f"device target {target!r} is not an absolute path")
        found += _nodes(Path(wish.source), target, wish.access)
    return tuple(found) if level == Level.CONTAINER else ()


def rules(texts: Iterable[str], level: str) -> tuple[DeviceRule, ...]:
    """Read "c 1:3 rwm", "b 8:* r", "a *:* rwm". Raises `InvalidArgument`, `Unsupported`."""
    found = []
    for text in texts:
        match = RULE.fullmatch(text.strip())
        if match is None:
            raise InvalidArgument(f"invalid device cgroup rule format: '{text}'", hint="write TYPE MAJOR:MINOR ACCESS")
        if level == Level.VM:
            raise Unsupported("device rules cannot be given to a machine: it has a kernel of its own")
        major, minor = (None if number == "*" else int(number) for number in match.group(2, 3))
        found.append(DeviceRule(kind=match[1], major=major, minor=minor, access=match[4]))  # type: ignore[arg-type]
    return tuple(found) if level == Level.CONTAINER else ()


def block_limits(wishes: Iterable[BlockLimitRequest]) -> tuple[BlockLimit, ...]:
    """Look up what is limited. Raises `NoSuchDevice` for what is no block device."""
    found = []
    for wish in wishes:
        path = Path(wish.device)
        if not path.is_block_device():
            raise NoSuchDevice(wish.device, "it is not a block device of this host")
        major, minor = os.major(path.stat().st_rdev), os.minor(path.stat().st_rdev)
        rates = (wish.read_bytes, wish.write_bytes, wish.read_operations, wish.write_operations)
        for what, rate in zip(WHAT, rates, strict=True):
            if rate < 0:
                raise InvalidArgument(f"invalid rate for device {wish.device}: {rate}")
            if rate:
                found.append(BlockLimit(what=what, major=major, minor=minor, rate=rate))
    return tuple(found)


def _nodes(source: Path, target: str, access: str) -> list[Device]:
    """Describe a node, or those below a directory."""
    if not source.is_absolute() or not source.exists():
        raise NoSuchDevice(str(source), "no such file on the host")
    paths: Iterator[Path] = source.rglob("*") if source.is_dir() else iter([source])
    nodes = [node for path in sorted(paths) if (node := _node(path, source, target, access))]
    if not nodes:
        raise NoSuchDevice(str(source), "it is not a device")
    return nodes


def _node(path: Path, source: Path, target: str, access: str) -> Device | None:
    status = path.stat()
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    below = str(path.relative_to(source))
    return Device(
        kind="c" if stat.S_ISCHR(status.st_mode) else "b",
        path=target if below == "." else f"{target.rstrip('/')}/{below}",
        source=str(path),
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        access=access,
    )
