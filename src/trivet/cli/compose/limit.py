"""What a service may use: memory, processors, block devices, POSIX limits."""

from __future__ import annotations

from typing import Any

import msgspec

from trivet.cli import value
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.reader import Reader
from trivet.client.schema import BlockLimitRequest, RlimitRequest


def limits(read: Reader) -> dict[str, Any]:
    """Read what a service may use: the fields of its request. Raises `ComposeError`."""
    deploy = (read.service.get("deploy") or {}).get("resources") or {}
    most, least = deploy.get("limits") or {}, deploy.get("reservations") or {}
    quota, period = read.get("cpu_quota", float, 0.0), read.get("cpu_period", float, 100_000.0)
    cpus = read.get("cpus", float, 0.0) or read.get("cpus", float, 0.0, within=most) or max(quota, 0) / period
    return {
        "memory": read.get("mem_limit", value.size, 0) or read.get("memory", value.size, 0, within=most),
        "memory_swap": read.get("memswap_limit", value.size_or_unlimited, 0),
        "memory_reservation": read.get("mem_reservation", value.size, 0)
        or read.get("memory", value.size, 0, within=least),
        "cpus": cpus,
        "cpu_shares": read.get("cpu_shares", int, 0),
        "cpuset": read.get("cpuset", str, ""),
        "swappiness": read.get("mem_swappiness", int, -1),
        "oom_kill_disable": read.get("oom_kill_disable", value.boolean, False),
        "oom_score_adj": read.get("oom_score_adj", int, 0),
        "block_limits": _block_limits(read),
        "device_rules": read.each("device_cgroup_rules"),
        "storage_size": read.get("size", value.size, 0, within=read.mapping("storage_opt")),
        "pids_limit": max(read.get("pids_limit", int, 0) or read.get("pids", int, 0, within=most), -1),
    }


_THROTTLES = {
    "device_read_bps": "read_bytes",
    "device_write_bps": "write_bytes",
    "device_read_iops": "read_operations",
    "device_write_iops": "write_operations",
}


def _block_limits(read: Reader) -> list[BlockLimitRequest]:
    """Read `blkio_config`; weights have no effect. Raises `ComposeError`."""
    found = []
    for key, field in _THROTTLES.items():
        for one in read.mapping("blkio_config").get(key) or ():
            rate = read.get("rate", value.size, 0, within=one)
            found.append(msgspec.convert({"device": str(one.get("path")), field: rate}, BlockLimitRequest))
    return found


def rlimits(read: Reader) -> list[RlimitRequest]:
    """Read `ulimits`. Raises `ComposeError`."""
    found = []
    for name, one in (read.service.get("ulimits") or {}).items():
        limits = one if isinstance(one, dict) else {"soft": one, "hard": one}
        try:
            found.append(RlimitRequest(name.upper(), int(limits["soft"]), int(limits["hard"])))
        except (KeyError, ValueError, TypeError):
            raise ComposeError(f"{read.place}.ulimits.{name}", "is neither a number nor soft and hard") from None
    return found
