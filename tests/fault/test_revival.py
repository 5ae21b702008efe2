"""An engine killed while it saves a container with its memory, or brings it back: nothing of the container is lost.

`TRIVET_FAULT_STEPS=all` kills it before every single step.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.criu import criu as criu
from tests.fault.conftest import IMAGE
from tests.fault.step import Killer, spread
from tests.runtime import until

WISH = os.environ.get("TRIVET_FAULT_STEPS", "")
MOST = 3
pytestmark = [pytest.mark.needs("root"), pytest.mark.timeout(7200 if WISH else 300)]
COUNT = "n=0; while sleep 0.05; do n=$((n+1)); echo $n >/new; mv /new /n; done"


@pytest.fixture
def killer(criu: Path, tmp_path: Path) -> Iterator[Killer]:
    """An engine that finds CRIU, with a container that counts."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path / "root", run)
        engine.prefix = ("env", f"TRIVET_FAULT={tmp_path}/control", f"PATH={criu.parent}:{os.environ['PATH']}")
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-", IMAGE, input=busybox_tar())
        engine.ok("run", "-d", "--name", "one", IMAGE, "sh", "-c", COUNT)
        yield Killer(engine, tmp_path / "control")


def counted(engine: Daemon) -> int:
    """Tell how far the container has counted."""
    return int(engine.trivet("exec", "one", "cat", "/n").stdout or 0)


def steps_of(killer: Killer, *words: str) -> int:
    """Count the steps of a verb that nobody disturbs."""
    killer.log.write_text("")
    killer.control.write_text("0")
    killer.engine.ok(*words)
    killer.control.unlink()
    return len(killer.log.read_text().splitlines())


def dying(killer: Killer, step: int, *words: str) -> None:
    """Let the engine die before a step of a verb, and start the next one."""
    killer.control.write_text(str(step))
    killer.engine.begin(*words).wait(120)
    killer.control.unlink()
    killer.engine.kill()
    killer.engine.start()
    assert killer.engine.client.system.check() == []


def chosen(count: int) -> list[int]:
    """Choose steps: all that there are, or a few, other ones each day."""
    return list(range(1, count + 1)) if WISH == "all" else spread(list(range(1, count + 1)), MOST, 0)


def test_killed_before_a_step(killer: Killer) -> None:
    """It counts on from where it was, at once or when it is restored."""
    engine = killer.engine
    until(lambda: counted(engine) > 0, 60)
    saving = steps_of(killer, "checkpoint", "one")
    restoring = steps_of(killer, "restore", "one")
    for step in chosen(saving):
        before = counted(engine)
        dying(killer, step, "checkpoint", "one")
        if engine.client.instances.get("one").status != "running":
            engine.ok("restore", "one")
        assert counted(engine) >= before, f"checkpoint, step {step}: {killer.last()}"
    for step in chosen(restoring):
        before = counted(engine)
        engine.ok("checkpoint", "one")
        dying(killer, step, "restore", "one")
        if engine.client.instances.get("one").status != "running":
            engine.ok("restore", "one")
        assert counted(engine) >= before, f"restore, step {step}: {killer.last()}"
    now = counted(engine)
    until(lambda: counted(engine) > now, 60)
    kept = {row.name for row in engine.client.checkpoints.list("one")}
    assert len(list(engine.root.glob("instance/*/checkpoint/*"))) == len(kept)
