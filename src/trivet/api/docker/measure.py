"""What containers use: `docker stats`."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker.duration import NEVER
from trivet.api.docker.route import Route, answer, flag, name
from trivet.base.clock import now_ns, rfc3339
from trivet.client.schema import Instance, StatsSample
from trivet.engine.engine import Engine
from trivet.engine.host import facts
from trivet.engine.instance.status import Word


async def stats(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Stream a sample a second; without `stream` one that can be compared with the one before it."""
    found = await engine.instances.inspect(name(request))
    stream = flag(request, "stream", default=True)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    before: dict[str, Any] = {}
    if found.status not in (Word.RUNNING, Word.PAUSED):
        return answer(_shown(found, None, before))
    if not stream and not flag(request, "one-shot"):
        async for sample in engine.instances.stats(found.id, stream=False):
            before = _shown(found, sample, {})
    await response.prepare(request)
    async for sample in engine.instances.stats(found.id, stream=stream):
        before = _shown(found, sample, before)
        await response.write(msgspec.json.encode(before) + b"\n")
    await response.write_eof()
    return response


def _shown(instance: Instance, sample: StatsSample | None, before: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"/{instance.name}",
        "id": instance.id,
        "read": rfc3339(now_ns()),
        "preread": before.get("read", NEVER),
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {"current": sample.pids, "limit": 0} if sample else {},
        "blkio_stats": _blocks(sample),
        "cpu_stats": _cpu(sample) if sample else _NO_CPU,
        "precpu_stats": before.get("cpu_stats", _NO_CPU),
        "memory_stats": _memory(sample) if sample else {},
        **({"networks": _traffic(sample)} if sample and sample.traffic else {}),
    }


def _memory(sample: StatsSample) -> dict[str, Any]:
    """Spell memory; where nothing bounds it, the host does."""
    return {"usage": sample.memory, "limit": sample.memory_limit or facts()["memory"], "stats": _inside(sample)}


def _cpu(sample: StatsSample) -> dict[str, Any]:
    """Spell processor time; the system's is what all processors had since the host's start."""
    processors, use = int(facts()["cpus"]), sample.processor
    return {
        "cpu_usage": {
            "total_usage": _nanoseconds(sample.cpu_total),
            "usage_in_kernelmode": _nanoseconds(use.kernel),
            "usage_in_usermode": _nanoseconds(use.user),
        },
        "system_cpu_usage": time.clock_gettime_ns(time.CLOCK_BOOTTIME) * processors,
        "online_cpus": processors,
        "throttling_data": {
            "periods": use.periods,
            "throttled_periods": use.throttled_periods,
            "throttled_time": _nanoseconds(use.throttled),
        },
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


_NO_CPU: dict[str, Any] = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}


def _blocks(sample: StatsSample | None) -> dict[str, Any]:
    values = {"read": sample.read, "write": sample.written} if sample else {}
    rows = [{"major": 0, "minor": 0, "op": key, "value": value} for key, value in values.items()]
    others = ("io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time")
    return {
        "io_service_bytes_recursive": rows or None,
        **{f"{each}_recursive": None for each in others},
        "sectors_recursive": None,
    }


def _inside(sample: StatsSample) -> dict[str, int]:
    """Add a machine's own view, by names that Docker's clients leave alone."""
    inside = sample.inside
    return {"guest_total": inside.memory, "guest_available": inside.available} if inside else {}


def _traffic(sample: StatsSample) -> dict[str, dict[str, int]]:
    return {
        each.name: {
            "rx_bytes": each.received,
            "rx_packets": each.received_packets,
            "rx_errors": each.received_errors,
            "rx_dropped": each.received_dropped,
            "tx_bytes": each.sent,
            "tx_packets": each.sent_packets,
            "tx_errors": each.sent_errors,
            "tx_dropped": each.sent_dropped,
        }
        for each in sample.traffic
    }


ROUTES = (Route("GET", "/containers/{name}/stats", stats, ("stream", "one-shot")),)
