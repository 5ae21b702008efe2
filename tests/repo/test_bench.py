"""`make bench ARGS=--quick` measures what it says it measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from bench.contestant import Result
from tests.repo.tree import ROOT

PEERS = ("trivet process (api)", "trivet container (api)", "trivet container (command)", "trivet-runtime")


class Report(msgspec.Struct):
    """The part of the results file that is looked at."""

    results: list[Result]
    host: dict[str, object]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Run the bench once, with those peers that are always there."""
    file = tmp_path_factory.mktemp("bench") / "results.json"
    words: list[str | Path] = ["--quick", "--peers", ",".join(PEERS), "--output", file]
    done = subprocess.run([sys.executable, "-m", "bench.run", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(done.stdout.count(f"\n {name} ") >= 4 for name in PEERS)
    return msgspec.json.decode(file.read_bytes(), type=Report)


@pytest.mark.parametrize("name", PEERS)
def test_everything_is_measured(report: Report, name: str) -> None:
    """Every peer starts, runs further programs and stops; a run takes longer than the start that is part of it."""
    result = next(result for result in report.results if result.name == name)
    assert result.skipped == ""
    assert result.version
    assert result.figures.keys() == {"start", "run", "exec", "stop"}
    assert 0 < result.figures["start"].median < result.figures["run"].median
    assert all(result.figures[measure].cpu for measure in ("run", "exec"))


def test_memory_is_measured_once_per_engine(report: Report) -> None:
    """What an instance takes is more than nothing and less than a machine; the command's engine is the API's."""
    memory = {result.name: result.memory for result in report.results}
    assert memory["trivet container (command)"] is None
    assert all(used and 0 < used.each < 10e6 for name, used in memory.items() if "command" not in name)


def test_the_host_is_described(report: Report) -> None:
    """Figures without a machine say nothing."""
    assert {"kernel", "cpus", "processor", "load", "load_after"} <= report.host.keys()


def test_nothing_is_left(report: Report) -> None:
    """No directory and no control group of the bench outlives it."""
    assert report.results
    assert [*Path("/run").glob("trivet-bench-*/"), *Path("/sys/fs/cgroup").glob("*/trivet-bench-*")] == []
