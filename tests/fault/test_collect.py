"""Garbage collected while images are pulled and built, by an engine that is killed in the midst of all three.

Which step is the killed one's depends on who was faster, so numbers only say how far it had come. `TRIVET_FAULT_STEPS`
asks for more of them than two: `distinct` for thirty, `all` for every single one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE
from tests.fault.step import Killer, State, settled, spread
from tests.image.served import trivet_registry

from trivet.base.error import TrivetError
from trivet.client.schema import PruneRequest

GARBAGE = PruneRequest(kinds=["build", "images"])
WISH = os.environ.get("TRIVET_FAULT_STEPS", "")
MOST = {"": 2, "distinct": 30, "all": 1 << 20}[WISH]
pytestmark = pytest.mark.timeout(7200 if WISH else 300)


@pytest.fixture(params=["overlay", "erofs"])
def killer(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Killer]:
    """An engine that counts its steps, with an image to build upon."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path / "root", run, f"--snapshotter={request.param}")
        engine.prefix = ("env", f"TRIVET_FAULT={tmp_path}/control")
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield Killer(engine, tmp_path / "control")


@pytest.fixture
def far(killer: Killer, tmp_path: Path) -> Iterator[str]:
    """An image of three layers in a registry, which the engine doesn't have."""
    context = tmp_path / "far"
    context.mkdir()
    (context / "noise").write_bytes(os.urandom(20_000_000))
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY noise /noise\nRUN rm /bin/vi && echo far >/word\n")
    with trivet_registry(tmp_path / "served") as registry:
        name = f"{registry}/far:1"
        killer.engine.ok("build", "-q", "-t", name, str(context))
        killer.engine.ok("push", "-q", name)
        killer.engine.ok("rmi", name)
        killer.engine.ok("builder", "prune", "-f")
        yield name


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What is built: two stages, of which one is copied from."""
    place = tmp_path / "context"
    place.mkdir()
    (place / "Dockerfile").write_text(
        f"FROM {IMAGE} AS first\nRUN echo one >/one\nFROM {IMAGE}\nCOPY --from=first /one /word\nRUN rm /bin/vi\n"
    )
    return place


def at_once(engine: Daemon, far: str, context: Path) -> None:
    """Pull, build and collect at the same time, until pull and build have ended, however they did."""
    begun = [engine.begin("pull", "-q", far), engine.begin("build", "-q", "--no-cache", "-t", "made:1", str(context))]
    while any(each.poll() is None for each in begun):
        with suppress(TrivetError):  # it died
            engine.client.system.prune(GARBAGE)


def ended(engine: Daemon, far: str, context: Path) -> State:
    """Do what wasn't done, use what there is, tell what there is in the end, and take it away."""
    names = {name for image in engine.client.images.list() for name in image.names}
    if far not in names:
        engine.ok("pull", "-q", far)
    if "made:1" not in names:
        engine.ok("build", "-q", "-t", "made:1", str(context))
    said = [engine.ok("run", "--rm", "--network", "none", name, "cat", "/word") for name in (far, "made:1")]
    assert said == ["far", "one"]
    engine.client.system.prune(GARBAGE)
    assert engine.client.system.check() == []
    left = settled(engine)
    # Whether a layer is packed depends on whether it was built here or had to be unpacked anew, and so do stacks.
    left["layers"] = [each for each in left["layers"] if not each.startswith("stack/")]
    del left["mounts"], left["groups"]  # a step that was killed with its build may leave an empty control group
    engine.ok("rmi", far, "made:1")
    return left


def test_collected_beside_pulls_and_builds(killer: Killer, far: str, context: Path) -> None:
    """Nothing a pull or a build needs is taken, wherever the engine dies; in the end the same is left."""
    engine = killer.engine
    killer.log.write_text("")
    killer.control.write_text("0")
    at_once(engine, far, context)
    killer.control.unlink()
    steps = len(killer.log.read_text().splitlines())
    assert {far, "made:1"} <= {name for image in engine.client.images.list() for name in image.names}
    expected = ended(engine, far, context)
    problems = []
    for step in spread(range(1, steps), MOST, int(time.time() / 86400)):
        killer.log.write_text("")
        killer.control.write_text(str(step))
        at_once(engine, far, context)
        killer.control.unlink()
        engine.kill()
        at = killer.last()
        engine.start()
        assert engine.client.system.check() == [], at
        left = ended(engine, far, context)
        if left != expected:
            told = {key: (value, expected[key]) for key, value in left.items() if value != expected[key]}
            problems.append(f"{at}: {told}")
    assert problems == []


@pytest.mark.parametrize("kinds", [["build"], ["build", "images"]], ids=["cache", "all"])
def test_a_dry_run_tells_what_comes(victim: Daemon, tmp_path: Path, kinds: list[str]) -> None:
    """Pruning frees the cache's layers at once, and a dry run says just that before, but does nothing."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "noise").write_bytes(os.urandom(3_000_000))
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY noise /noise\nRUN rm /bin/vi\n")
    victim.ok("build", "-q", "-t", "made:1", str(context))
    victim.ok("build", "-q", "--no-cache", "-t", "made:1", str(context))  # the first one has no name now
    victim.ok("rmi", "made:1")
    before, prune = settled(victim), victim.client.system.prune
    planned = prune(PruneRequest(kinds=kinds, dry_run=True))
    assert settled(victim) == before
    assert planned.freed > 6_000_000
    assert prune(PruneRequest(kinds=kinds)) == planned
    assert prune(GARBAGE).freed == 0


def test_a_dry_run_counts_what_ended_instances_held(victim: Daemon, tmp_path: Path) -> None:
    """A dry run names and measures what ended instances alone keep: their images, layers, networks and volumes."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "noise").write_bytes(os.urandom(3_000_000))
    (context / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY noise /noise\n")
    victim.ok("build", "-q", "-t", "made:1", str(context))
    victim.ok("network", "create", "old")
    victim.ok("run", "--name", "ended", "--network", "old", "-v", "/data", "made:1", "true")
    victim.ok("volume", "create", "named")
    kinds = ["instances", "networks", "volumes", "build", "images"]
    before, prune = settled(victim), victim.client.system.prune
    planned = prune(PruneRequest(kinds=kinds, all=True, anonymous=True, dry_run=True))
    assert settled(victim) == before
    assert {"instance ended", "network old"} <= set(planned.deleted)
    assert any(each.startswith("volume ") for each in planned.deleted)
    assert "made:1" in planned.untagged
    assert planned.freed > 6_000_000  # stored, and unpacked
    assert "volume named" not in planned.deleted
    assert prune(PruneRequest(kinds=kinds, all=True, anonymous=True)) == planned
