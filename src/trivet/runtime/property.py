"""A container's limits as the properties of a systemd unit (systemd.resource-control(5)), and what annotations add.

systemd knows some limits only; all of them are written to the control group as well. What it knows it has to be
told, as it writes its own again whenever it reloads.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trivet.base.error import InvalidArgument
from trivet.kernel.cgroup_record import BlockDevice, DeviceRule, Resources
from trivet.kernel.cgroup_v2 import cpu_weight, io_weight, swap_alone

Property = tuple[str, tuple[str, Any]]

PREFIX = "org.systemd.property."
_NAME = re.compile(r"[A-Za-z]{3,}")
_TYPED = re.compile(r"(?:(byte|int16|uint16|int32|uint32|int64|uint64|double)|@(\S+))\s+(.*)", re.DOTALL)
_SIGNATURES = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
}
_RANGES = {
    **{kind: range(1 << bits) for kind, bits in (("y", 8), ("q", 16), ("u", 32), ("t", 64))},
    **{kind: range(-(1 << bits), 1 << bits) for kind, bits in (("n", 15), ("i", 31), ("x", 63))},
}
_INFINITY = (1 << 64) - 1
_STEP = 10_000  # systemd counts a quota in hundredths of a processor
_SECOND = 1_000_000
_UNIFIED = {
    **{f"memory.{word}": f"Memory{word.capitalize()}" for word in ("min", "low", "high", "max")},
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
_BANDWIDTH = {
    "rbps": "IOReadBandwidthMax",
    "wbps": "IOWriteBandwidthMax",
    "riops": "IOReadIOPSMax",
    "wiops": "IOWriteIOPSMax",
}


class UnknownValue(InvalidArgument):
    """An annotation that isn't a property's value."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{text!r} is no value of a unit's property - at `$.annotations[{PREFIX + name!r}]`")


def limits(r: Resources, *, old: bool) -> list[Property]:
    """Translate limits; `old` is version 1, for which systemd has other words."""
    values: list[tuple[str, str, Any]] = [
        ("MemoryLimit" if old else "MemoryMax", "t", _limit(r.memory)),
        ("MemorySwapMax", "t", None if old else _limit(swap_alone(r))),
        ("MemoryLow", "t", None if old else r.reservation),
        ("CPUShares", "t", r.shares if old else None),
        ("CPUWeight", "t", None if old else cpu_weight(r.shares)),
        ("CPUQuotaPerSecUSec", "t", _quota(r)),
        ("CPUQuotaPeriodUSec", "t", r.period),
        ("TasksMax", "t", _limit(r.pids)),
        ("AllowedCPUs", "ay", None if old else _bits(r.cpus)),
        ("AllowedMemoryNodes", "ay", None if old else _bits(r.mems)),
        ("BlockIOWeight", "t", r.weight if old else None),
        ("IOWeight", "t", None if old else io_weight(r.weight)),
    ]
    found = [(name, (signature, value)) for name, signature, value in values if value is not None]
    found += [(_UNIFIED[file], ("t", _counted(text))) for file, text in r.unified if file in _UNIFIED and _whole(text)]
    return found if old else [*found, *_block_devices(r.block_devices)]


def devices(rules: Iterable[DeviceRule]) -> list[Property]:
    """Translate what devices may be used: what is forbidden again after it was allowed only our own filter knows."""
    listed = list(rules)
    first, *others = listed or [DeviceRule(allow=True)]
    everything = any(rule.allow and rule.type == "a" for rule in listed)
    if first.allow or first.type != "a" or everything or not all(rule.allow for rule in others):
        return [("DevicePolicy", ("s", "auto"))]
    allowed = [(name, rule.access) for rule in others if (name := _device(rule))]
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", allowed))]


def annotated(annotations: Mapping[str, str]) -> list[Property]:
    """Read the annotations that set a unit's properties, their values in GVariant's text format.

    `...Sec` is a number of seconds, as people write units; systemd's own is `...USec`. Raises `UnknownValue`.
    """
    found = []
    for key in sorted(annotations):
        if key.startswith(PREFIX):
            name, text = key.removeprefix(PREFIX), annotations[key]
            if not _NAME.fullmatch(name):
                raise UnknownValue(name, text)
            found.append(_seconds(name, _value(name, text)))
    return found


def _seconds(name: str, value: tuple[str, Any]) -> Property:
    if not name.endswith("Sec") or name.endswith("USec"):
        return name, value
    if value[0] not in ("n", "q", "i", "u", "x", "t", "d") or value[1] < 0:
        raise UnknownValue(name, str(value[1]))
    return name.removesuffix("Sec") + "USec", ("t", round(value[1] * _SECOND))


def _value(name: str, text: str) -> tuple[str, Any]:
    text, signature = text.strip(), ""
    if typed := _TYPED.fullmatch(text):
        signature, text = _SIGNATURES.get(typed[1] or "") or typed[2], typed[3]
    try:
        value = {"true": True, "false": False}.get(text)
        value = ast.literal_eval(text) if value is None else value
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UnknownValue(name, text[:100]) from error
    natural = _signature(value)
    if natural is None or (signature and not _fits(signature, natural)):
        raise UnknownValue(name, text[:100])
    kind = signature or natural
    if natural == "i" and kind in _RANGES and value not in _RANGES[kind]:
        raise UnknownValue(name, text[:100])
    return kind, value


def _signature(value: object) -> str | None:
    for kind, signature in ((bool, "b"), (int, "i"), (float, "d"), (str, "s")):
        if isinstance(value, kind):
            return signature
    strings = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return "as" if strings else None


def _fits(signature: str, natural: str) -> bool:
    return signature in {"i": "ynqiuxtd", "d": "d", "s": "s", "b": "b", "as": ("as",)}[natural]


def _limit(value: int | None) -> int | None:
    return _INFINITY if value == -1 else value


def _whole(text: str) -> bool:
    return text.strip() == "max" or text.strip().isdecimal()


def _counted(text: str) -> int:
    return _INFINITY if text.strip() == "max" else int(text)


def _quota(r: Resources) -> int | None:
    if r.quota is None:
        return None
    if r.quota < 0:
        return _INFINITY
    exact = r.quota * _SECOND // (r.period or 100_000)
    return -(-exact // _STEP) * _STEP


def _bits(words: str) -> list[int] | None:
    """Spell a list such as 0-2,5 as the bytes of a bit mask, the lowest first."""
    if not words:
        return None
    mask = 0
    for part in words.strip().split(","):
        low, _, high = part.partition("-")
        if not low.isdecimal() or not (high or low).isdecimal() or int(high or low) > 1 << 16:
            return None  # the kernel tells what is wrong with it
        for number in range(int(low), int(high or low) + 1):
            mask |= 1 << number
    return list(mask.to_bytes(mask.bit_length() // 8 + 1, "little"))


def _block_devices(block: Iterable[BlockDevice]) -> Iterator[Property]:
    for device in block:
        if device.what in _BANDWIDTH and (node := _node(device)):
            yield _BANDWIDTH[device.what], ("a(st)", [(node, device.value or _INFINITY)])


def _node(device: BlockDevice) -> str:
    try:
        lines = Path(f"/sys/dev/block/{device.number}/uevent").read_text().splitlines()
    except OSError:
        return ""
    return next((f"/dev/{line.removeprefix('DEVNAME=')}" for line in lines if line.startswith("DEVNAME=")), "")


def _device(rule: DeviceRule) -> str:
    """Name the devices of an allowing rule as systemd does, "" where it has no name for them."""
    kind = {"c": "char", "b": "block"}[rule.type]
    if rule.major is None:
        return f"{kind}-*" if rule.minor is None else ""
    if rule.minor is not None:
        return f"/dev/{kind}/{rule.major}:{rule.minor}"
    return next((f"{kind}-{name}" for name, major in _majors(kind) if major == rule.major), "")


def _majors(kind: str) -> Iterator[tuple[str, int]]:
    heading = {"char": "Character devices:", "block": "Block devices:"}[kind]
    there = False
    for line in Path("/proc/devices").read_text().splitlines():
        if line.endswith(":"):
            there = line == heading
        elif there and line.strip():
            number, name = line.split(None, 1)
            yield name, int(number)
