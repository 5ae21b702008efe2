"""`make bench ARGS=--quick` measures what it says it measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from bench.contestant import Result
from bench.snapshot import programs
from tests.repo.tree import ROOT

CONTAINER = "trivet container (api)"
ENGINES = ("trivet process (api)", CONTAINER, "trivet-runtime", "trivet-runtime host users")
TWIN = "trivet container (command)"


class Report(msgspec.Struct):
    """The part of the results file that is looked at."""

    results: list[Result]
    host: dict[str, object]


def run(*peers: str, output: Path) -> str:
    """Run the bench with peers that are always there; returns what it prints."""
    words: list[str | Path] = ["--quick", "--peers", ",".join(peers), "--output", output]
    done = subprocess.run([sys.executable, "-m", "bench.run", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def leavings() -> set[Path]:
    """What a bench could leave behind; one that was killed has."""
    return {*Path("/run").glob("trivet-bench-*/"), *Path("/sys/fs/cgroup").glob("*/trivet-bench-*")}


def check_times(result: Result) -> None:
    """A run takes longer than the start that is part of it, and nothing is free."""
    assert result.skipped == ""
    assert result.version
    bridged = {f"{where} {what}" for where in ("bridge", "published") for what in ("start", "run")}
    engine = bridged | {"application", "foreign application"}
    wanted = {"start", "run", "exec", "stop"} | (engine if result.name == CONTAINER else set())
    assert result.figures.keys() == wanted
    assert 0 < result.figures["start"].median < result.figures["run"].median
    assert all(result.figures[measure].cpu for measure in ("run", "exec"))


def check_crowd(result: Result, text: str) -> None:
    """Many containers were there, cost something, and left nothing; the goals are told."""
    crowd = result.crowd
    assert crowd
    assert (crowd.containers, crowd.left) == (4, {})
    assert min(crowd.rate, crowd.rate_bridged, crowd.requests, crowd.all, crowd.removed) > 0
    assert min(crowd.door_twenty, crowd.door_requests, crowd.door_listed.median) > 0
    assert text.count("starts per second, bridge") == 2


def test_everything_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    """Every peer starts, runs further programs and stops; memory is told once per engine; the host is described."""
    before = leavings()
    text = run(*ENGINES, TWIN, output=tmp_path / "results.json")
    report = msgspec.json.decode((tmp_path / "results.json").read_bytes(), type=Report)
    for result in report.results:
        check_times(result)
        assert text.count(f" {result.name} ") >= 5
    crowds = {result.name: result for result in report.results if result.crowd}
    assert crowds.keys() == {CONTAINER}
    check_crowd(crowds[CONTAINER], text)
    memory = {result.name: result.memory for result in report.results}
    assert memory.pop(TWIN) is None
    assert memory.keys() == set(ENGINES)
    assert all(used and used.instances == 2 and used.each < 10e6 for used in memory.values())  # less than a machine
    assert {"kernel", "cpus", "processor", "load", "load_after"} <= report.host.keys()
    assert leavings() <= before


@pytest.mark.needs("root")
def test_a_database_stands_still() -> None:
    """`bench.snapshot` measures a real database, and has its copy checked."""
    if programs() is None:
        pytest.skip("no PostgreSQL")
    words = [sys.executable, "-m", "bench.snapshot", "--rounds", "1", "--scale", "1", "--clients", "1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert "the copy is sound" in done.stdout, done.stderr
    assert "stands still, ms, median:" in done.stdout
