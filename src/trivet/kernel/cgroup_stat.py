"""Statistics of a group in the shape that runtimes print (`events --stats`), from either version's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trivet.kernel.cgroup import Group
from trivet.kernel.cgroup_record import table

_OLD_MEMORY = {"usage": "memory", "swap": "memory.memsw", "kernel": "memory.kmem", "kernelTCP": "memory.kmem.tcp"}
_OLD_BLOCK = {
    "ioServiceBytesRecursive": "blkio.throttle.io_service_bytes_recursive",
    "ioServicedRecursive": "blkio.throttle.io_serviced_recursive",
}
_UNLIMITED = (1 << 64) - 1
_NEW_BLOCK = {"ioServiceBytesRecursive": ("rbytes", "wbytes"), "ioServicedRecursive": ("rios", "wios")}


def stats(group: Group) -> dict[str, Any]:
    """Measure processors, memory, processes and block devices."""
    places = {
        controller: (hierarchy.version, Path(directory))
        for hierarchy, directory in zip(group.layout.hierarchies, group.directories, strict=True)
        for controller in hierarchy.controllers
    }
    found: dict[str, Any] = {"cpu": _cpu(places), "memory": _memory(places), "pids": _pids(places)}
    found["blkio"] = _block(places)
    return found


Places = dict[str, tuple[int, Path]]


def _cpu(places: Places) -> dict[str, Any]:
    version, directory = places.get("cpu", (2, Path()))
    values = table(_read(directory / "cpu.stat"))
    if version == 2:
        usage = {
            "total": values.get("usage_usec", 0) * 1000,
            "kernel": values.get("system_usec", 0) * 1000,
            "user": values.get("user_usec", 0) * 1000,
        }
        throttled = values.get("throttled_usec", 0) * 1000
    else:
        account = places.get("cpuacct", (1, Path()))[1]
        usage = {
            "total": int(_read(account / "cpuacct.usage") or 0),
            "kernel": int(_read(account / "cpuacct.usage_sys") or 0),
            "user": int(_read(account / "cpuacct.usage_user") or 0),
        }
        throttled = values.get("throttled_time", 0)
    throttling = {
        "periods": values.get("nr_periods", 0),
        "throttledPeriods": values.get("nr_throttled", 0),
        "throttledTime": throttled,
    }
    return {"usage": usage, "throttling": throttling}


def _memory(places: Places) -> dict[str, Any]:
    version, directory = places.get("memory", (2, Path()))
    raw = table(_read(directory / "memory.stat"))
    if version == 2:
        cache, usage = raw.get("file", 0), _entry(directory, "memory.current", "memory.max", "memory.peak")
        swap = _entry(directory, "memory.swap.current", "memory.swap.max", "memory.swap.peak")
        found: dict[str, Any] = {"usage": usage, "swap": swap}
    else:
        cache = raw.get("total_cache", 0)
        found = {
            name: _entry(
                directory,
                f"{prefix}.usage_in_bytes",
                f"{prefix}.limit_in_bytes",
                f"{prefix}.max_usage_in_bytes",
                f"{prefix}.failcnt",
            )
            for name, prefix in _OLD_MEMORY.items()
        }
    return {"cache": cache} | found | {"raw": raw}


def _entry(directory: Path, usage: str, limit: str, peak: str, failures: str = "") -> dict[str, int]:
    return {
        "limit": _number(_read(directory / limit) or "max"),
        "usage": _number(_read(directory / usage) or "0"),
        "max": _number(_read(directory / peak) or "0"),
        "failcnt": _number(_read(directory / failures) or "0") if failures else 0,
    }


def _pids(places: Places) -> dict[str, int]:
    _, directory = places.get("pids", (2, Path()))
    return {
        "current": _number(_read(directory / "pids.current") or "0"),
        "limit": _number(_read(directory / "pids.max") or "max"),
    }


def _block(places: Places) -> dict[str, Any]:
    if "io" in places:
        return _new_block(_read(places["io"][1] / "io.stat"))
    _, directory = places.get("blkio", (1, Path()))
    return {name: _old_block(_read(directory / file)) for name, file in _OLD_BLOCK.items()}


def _old_block(text: str) -> list[dict[str, Any]]:
    lines = [line.split() for line in text.splitlines()]
    return [_operation(line[0], line[1], int(line[2])) for line in lines if len(line) == 3]


def _new_block(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {name: [] for name in _NEW_BLOCK}
    for line in text.splitlines():
        device, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        for name, keys in _NEW_BLOCK.items():
            for key, word in zip(keys, ("Read", "Write"), strict=True):
                found[name].append(_operation(device, word, int(values.get(key, 0))))
    return found


def _operation(device: str, word: str, value: int) -> dict[str, Any]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": word, "value": value}


def _number(text: str) -> int:
    return _UNLIMITED if text.strip() == "max" else int(text)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
