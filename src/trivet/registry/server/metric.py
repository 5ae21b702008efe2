"""What the registry counts, as Prometheus reads it (text exposition format 0.0.4), at `--metrics HOST:PORT`."""

from __future__ import annotations

from collections import Counter

HELP = {
    "requests_total": "requests answered",
    "request_seconds_total": "seconds until the answer's headers, summed up",
    "requests_running": "requests being answered",
    "received_bytes_total": "bytes of blobs received",
    "sent_bytes_total": "bytes of bodies sent",
    "uploads_open": "uploads under way",
    "collected_bytes_total": "bytes freed by garbage collections",
    "expired_total": "tags and manifests removed by retention",
    "webhook_deliveries_total": "webhook calls, by outcome",
    "upstream_requests_total": "images and blobs asked for below an upstream's prefix, by where they came from",
}
_Key = tuple[str, tuple[tuple[str, str], ...]]


class Metrics:
    """Counters and gauges by name and labels."""

    def __init__(self) -> None:
        self._values: Counter[_Key] = Counter()

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter or gauge."""
        assert name in HELP
        self._values[name, tuple(sorted(labels.items()))] += amount  # type: ignore[assignment]

    def set(self, name: str, amount: float) -> None:
        """Set a gauge."""
        self._values[name, ()] = amount  # type: ignore[assignment]

    def text(self) -> str:
        """Write everything, by name."""
        lines: list[str] = []
        for name, told in HELP.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP trivet_registry_{name} {told}", f"# TYPE trivet_registry_{name} {kind}"]
            for (owner, labels), value in sorted(self._values.items()):
                if owner == name:
                    spelled = ",".join(
                        f'{key}="{text}"' for key, text in labels
                    )  # our own words only: nothing to escape
                    lines.append(f"trivet_registry_{name}{'{' + spelled + '}' if spelled else ''} {value:.12g}")
        return "\n".join(lines) + "\n"
