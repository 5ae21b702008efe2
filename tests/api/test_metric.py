"""What the engine tells Prometheus."""

from __future__ import annotations

import http.client
import socket

import pytest
from tests.conftest import Daemon

from trivet.api.native.metric import exposition
from trivet.client.schema import StatsSample
from trivet.client.schema_capacity import Capacity

pytestmark = pytest.mark.needs("root", "busybox")


def scraped(daemon: Daemon) -> dict[str, float]:
    """Ask as Prometheus would; every sample by its name and labels."""
    connection = http.client.HTTPConnection("trivet")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(daemon.socket))
    connection.request("GET", "/v1/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert (answer.status, answer.headers.get_content_type()) == (200, "text/plain")
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows}


def test_what_runs_is_told_to_prometheus(daemon: Daemon, busybox: str) -> None:
    """Each running instance has its samples, which say what `stats` says; who has ended has none."""
    daemon.ok("run", "-d", "--name", "told", "-m", "64m", busybox, "sh", "-c", "while :; do :; done")
    one = daemon.client.instances.get("told")
    labels = f'{{id="{one.id}",name="told",isolation="{one.isolation}"}}'
    first, second = scraped(daemon), scraped(daemon)
    assert first[f"trivet_instance_memory_limit_bytes{labels}"] == 64 << 20
    assert (
        0 < first[f"trivet_instance_cpu_seconds_total{labels}"] < second[f"trivet_instance_cpu_seconds_total{labels}"]
    )
    assert second[f"trivet_instance_processes{labels}"] == 1
    assert second["trivet_capacity_promised_bytes"] >= 64 << 20
    daemon.ok("rm", "-f", "told")
    assert not [name for name in scraped(daemon) if "told" in name]


def test_a_name_is_no_line_of_its_own() -> None:
    """What stands in a label is escaped, whoever chose it."""
    sample = StatsSample(id="a", name='b"} 1\nx \\', isolation="vm", cpu_percent=0, cpu_total=1, memory=2,
                         memory_limit=0, pids=1, read=0, written=0, received=0, sent=0)  # fmt: skip
    nothing = Capacity(memory=1, reserve=0, memory_ratio=0, processors=1, processor_ratio=0, tax=0, room=1, promised=0,
                       promised_processors=0, kept=0, used=0, forecast=0, stolen=0, shortage=0, horizon=300,
                       stalled=0)  # fmt: skip
    text = exposition([sample], nothing)
    assert 'name="b\\"} 1\\nx \\\\"' in text
    assert all(line.startswith(("#", "trivet_")) for line in text.splitlines())
