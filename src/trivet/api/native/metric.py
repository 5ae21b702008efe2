"""What an engine and its instances use, as Prometheus reads it (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from aiohttp import web

from trivet.api.native.route import Route
from trivet.client.schema import StatsSample
from trivet.client.schema_capacity import Capacity, Share
from trivet.engine.engine import Engine

CONTENT = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]

USED: tuple[tuple[str, str, Callable[[StatsSample], float]], ...] = (
    ("cpu_seconds_total", "processor time used", lambda row: row.cpu_total),
    ("memory_bytes", "memory in use, without page cache that can be dropped", lambda row: row.memory),
    ("memory_limit_bytes", "memory it may use at most, 0 without a limit", lambda row: row.memory_limit),
    ("processes", "processes inside", lambda row: row.pids),
    ("read_bytes_total", "bytes read from block devices", lambda row: row.read),
    ("written_bytes_total", "bytes written to block devices", lambda row: row.written),
    ("received_bytes_total", "bytes received by its network interfaces", lambda row: row.received),
    ("sent_bytes_total", "bytes sent by its network interfaces", lambda row: row.sent),
)
SHARED: tuple[tuple[str, str, Callable[[Share], float]], ...] = (
    ("memory_allotted_bytes", "memory it may have now, 0 without a limit", lambda row: row.allotted),
    ("memory_forecast_bytes", "the most memory it is expected to use soon", lambda row: row.forecast),
    ("memory_starved", "1 while it waits for memory", lambda row: row.starved),
    (
        "cpu_stolen_seconds",
        "time its threads waited for a processor since the engine watches it",
        lambda row: row.stolen,
    ),
)
WHOLE: tuple[tuple[str, str, Callable[[Capacity], float]], ...] = (
    ("room_bytes", "memory that instances can have together now", lambda found: found.room),
    ("promised_bytes", "the sum of all limits", lambda found: found.promised),
    ("kept_bytes", "the sum of all minimums", lambda found: found.kept),
    ("used_bytes", "memory that instances can't do without", lambda found: found.used),
    ("forecast_bytes", "the sum of all expected peaks", lambda found: found.forecast),
    ("shortage_probability", "how probable it is that soon more is wanted than there is", lambda found: found.shortage),
    ("stalled_ratio", "part of the last 10 s in which something waited for memory", lambda found: found.stalled),
    ("promised_processors", "the sum of all processors promised", lambda found: found.promised_processors),
)


async def metrics(engine: Engine, request: web.Request) -> web.StreamResponse:
    found = await engine.capacity.show()
    text = exposition(await engine.instances.all_stats(), found)
    return web.Response(body=text.encode(), headers={"Content-Type": CONTENT})


def exposition(samples: Sequence[StatsSample], found: Capacity) -> str:
    """Write everything, a family after the other."""
    lines: list[str] = []
    for name, told, use in USED:
        lines += _family(f"trivet_instance_{name}", told, [(_labels(row), use(row)) for row in samples])
    for name, told, share in SHARED:
        lines += _family(f"trivet_instance_{name}", told, [(_labels(row), share(row)) for row in found.shares])
    for name, told, whole in WHOLE:
        lines += _family(f"trivet_capacity_{name}", told, [({}, whole(found))])
    return "\n".join(lines) + "\n"


def _labels(row: StatsSample | Share) -> Labels:
    return {"id": row.id, "name": row.name, "isolation": row.isolation}


def _family(name: str, told: str, rows: Iterable[tuple[Labels, float]]) -> list[str]:
    kind = "counter" if name.endswith("_total") else "gauge"
    lines = [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
    for labels, value in rows:
        spelled = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        lines.append(f"{name}{'{' + spelled + '}' if spelled else ''} {float(value):.17g}")
    return lines


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


ROUTES = (
    Route("GET", "/v1/metrics", metrics, "Show what everything uses, as Prometheus reads it", stream="text/plain"),
)
