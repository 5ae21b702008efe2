"""`docker checkpoint` and `docker start --checkpoint`, at an engine with a real CRIU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.criu import criu as criu
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import ask, value
from tests.runtime import until

pytestmark = pytest.mark.needs("root", "docker")
COUNT = "n=0; while sleep 0.05; do n=$((n+1)); echo $n >/new; mv /new /n; done"


@pytest.fixture
def saving(criu: Path, tmp_path: Path, short_path: Path, home: Path) -> Iterator[Tool]:
    """The command, pointed at an engine that finds CRIU and has an image."""
    engine = Daemon(tmp_path / "engine", short_path)
    engine.start(path=f"{criu.parent}:{os.environ['PATH']}")
    try:
        tool = Tool(address=f"unix://{short_path}/docker.sock", name="trivet", home=home)
        tool.ok("import", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield tool
    finally:
        engine.clean()


def counted(tool: Tool) -> int:
    """Tell how far the container counts."""
    return int(tool.run("exec", "counter", "cat", "/n").stdout or 0)


def test_a_container_goes_on_from_a_checkpoint(saving: Tool) -> None:
    """It ends unless it is left running, counts on from any checkpoint, and checkpoints are listed and removed."""
    saving.ok("run", "-d", "--name", "counter", IMAGE, "sh", "-c", COUNT)
    until(lambda: counted(saving) > 0, 60)
    assert saving.ok("checkpoint", "create", "--leave-running", "counter", "early") == "early"
    before = counted(saving)
    until(lambda: counted(saving) > before, 60)
    assert saving.ok("checkpoint", "create", "counter", "late") == "late"
    assert saving.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "counter") == "exited 137"
    assert set(saving.ok("checkpoint", "ls", "counter").split()) == {"CHECKPOINT", "NAME", "early", "late"}
    saving.ok("start", "--checkpoint", "late", "counter", timeout=60)
    assert counted(saving) >= before
    saving.ok("checkpoint", "rm", "counter", "late")
    assert "no snapshot late" in saving.fails("checkpoint", "rm", "counter", "late")
    assert value(saving, "GET", "/containers/counter/checkpoints") == [{"Name": "early"}]


def test_what_is_refused(trivet: Tool) -> None:
    """Directories of one's own, names that are none, and containers that don't run, each in a sentence."""
    key = value(trivet, "POST", "/containers/create", {"Image": IMAGE}, 201)["Id"]
    place = f"/containers/{key}/checkpoints"
    try:
        assert value(trivet, "GET", place) == []
        wish = {"CheckpointID": "one", "Exit": True}
        assert "not running" in value(trivet, "POST", place, wish, 409)["message"]
        for method, path, query in (
            ("GET", place, {"dir": "/tmp"}),
            ("DELETE", f"{place}/one", {"dir": "/tmp"}),
            ("POST", f"/containers/{key}/start", {"checkpoint": "one", "checkpoint-dir": "/tmp"}),
        ):
            assert "checkpointdir" in value(trivet, method, path, None, 501, **query)["message"]
        assert "checkpointdir" in value(trivet, "POST", place, {**wish, "CheckpointDir": "/tmp"}, 501)["message"]
        ask(trivet, "DELETE", f"{place}/one", None, 404)
        ask(trivet, "POST", f"/containers/{key}/start", None, 404, checkpoint="one")
        ask(trivet, "GET", "/containers/nobody/checkpoints", None, 404)
    finally:
        ask(trivet, "DELETE", f"/containers/{key}", None, 204, force="1")
