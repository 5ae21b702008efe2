"""Pulls that break off are continued at the byte, also by the next engine; pulls of the same thing share the work."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from tests.conftest import Daemon
from tests.image.test_registry_hostile import LAYER, Registry
from tests.image.test_registry_server import eventually

from trivet.engine.image.image import Images
from trivet.oci import digest as digests
from trivet.registry.error import RegistryUnavailable

NAME = digests.of(LAYER)
HALF = 600_000


class Cutting(Registry):
    """Sends HALF of the layer and then breaks off, or says no more, as long as `broken` is set."""

    def __init__(self, *, hang: bool = False) -> None:
        super().__init__()
        self.broken = True
        self.blob = self._cut
        self.reached, self.released = asyncio.Event(), asyncio.Event()
        if not hang:
            self.released.set()

    @property
    def starts(self) -> list[int]:
        """At which byte each request for the layer began."""
        asked = [each for each in self.seen if each.path.endswith(NAME)]
        return [int(each.headers.get("Range", "bytes=0-")[6:-1]) for each in asked]

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        start = self.starts[-1]
        response = web.StreamResponse(status=206 if start else 200)
        response.headers["Content-Range"] = f"bytes {start}-{len(LAYER) - 1}/{len(LAYER)}"
        response.content_length = len(LAYER) - start
        await response.prepare(request)
        if not self.broken:
            await response.write(LAYER[start:])
            return response
        await response.write(LAYER[start:HALF])
        self.reached.set()
        await self.released.wait()
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.close()
        return response


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure without progress is enough."""
    monkeypatch.setattr("trivet.registry.client.RESUMES", 1)


def broken_off(images: Images) -> Cutting:
    """Pull half a layer."""
    registry = Cutting()

    async def run() -> None:
        async with registry.running() as address:
            await images.pull(f"{address}/app:1", "linux/amd64")

    with pytest.raises(RegistryUnavailable, match="broke off again and again"):
        asyncio.run(run())
    registry.broken = False
    registry.seen.clear()
    return registry


def pull(images: Images, registry: Registry, times: int = 1) -> None:
    async def run() -> None:
        async with registry.running() as address:
            await asyncio.gather(*(images.pull(f"{address}/app:1", "linux/amd64") for _ in range(times)))

    asyncio.run(run())


@pytest.mark.usefixtures("impatient")
def test_the_next_pull_goes_on_at_the_byte(make_images: Callable[[str], Images]) -> None:
    """What a failed pull had is not fetched again by the next one, nor by the next engine."""
    first = make_images("engine")
    registry = broken_off(first)
    first.records.close()
    restarted = make_images("engine")
    restarted.recover()
    pull(restarted, registry)
    assert registry.starts == [HALF]
    restarted.content.verify(NAME)
    assert list((restarted.content.root / "partial").iterdir()) == []


@pytest.mark.usefixtures("impatient")
def test_a_collection_leaves_what_a_pull_may_go_on_with(images: Images) -> None:
    """Whole blobs of a pull that was cut outlive collections, for the next one."""
    registry = broken_off(images)
    config = digests.of(registry.config)
    images.sweep()
    assert images.check() == []
    assert images.why(config)[-1].startswith("lease pull of ")
    pull(images, registry)
    assert not [each for each in registry.seen if each.path.endswith(config)]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("content", [b"!" * HALF, b"!" * (len(LAYER) + 1), b"!" * len(LAYER)])
def test_a_part_that_is_wrong_is_fetched_again(images: Images, content: bytes) -> None:
    """Half a blob that was damaged, is too long, or whole and wrong costs one more download, not the pull."""
    registry = broken_off(images)
    (partial,) = (images.content.root / "partial").iterdir()
    partial.write_bytes(content)
    pull(images, registry)
    assert registry.starts[-1] == 0
    images.content.verify(NAME)


def test_ten_pulls_fetch_each_blob_once(images: Images) -> None:
    """Pulls of the same image at the same time wait for one download and all succeed."""
    registry = Registry()
    pull(images, registry, times=10)
    paths = [each.path for each in registry.seen if "/blobs/" in each.path]
    assert sorted(paths) == sorted(set(paths))
    assert len(images.list()) == 1


@pytest.mark.usefixtures("impatient")
def test_prune_takes_what_nobody_continues(images: Images) -> None:
    """Half a blob is freed by prune and shown by its dry run; one that is being written stays."""
    broken_off(images)
    images.prune()  # also what else a failed pull leaves in the store
    assert images.partials.size(NAME) == 0
    broken_off(images)
    with images.partials.ingest(NAME, len(LAYER)) as ingest:
        assert ingest.size == HALF
        assert images.prune().freed < HALF
        ingest.write(LAYER[HALF:])
    images.content.verify(NAME)
    assert images.prune().freed == len(LAYER)  # it belongs to nothing
    broken_off(images)
    assert HALF <= images.prune(dry_run=True).freed == images.prune().freed


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Daemon]:
    """An engine of one's own, to be killed."""
    run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
    daemon = Daemon(tmp_path / "engine", run)
    daemon.start()
    yield daemon
    daemon.clean()
    shutil.rmtree(run)


@pytest.mark.needs("root")
def test_a_killed_engine_goes_on_at_the_byte(engine: Daemon) -> None:
    """`kill -9` in the middle of a pull: the next engine asks for the rest only."""
    registry, part = Cutting(hang=True), engine.root / "content/partial" / NAME.replace(":", "-")

    async def run() -> None:
        async with registry.running() as address:
            first = await asyncio.to_thread(engine.begin, "pull", f"{address}/app:1")
            await asyncio.wait_for(registry.reached.wait(), 20)
            await asyncio.to_thread(eventually, lambda: part.exists() and part.stat().st_size == HALF, "no half blob")
            await asyncio.to_thread(engine.kill)
            await asyncio.to_thread(first.wait, 20)
            registry.broken = False
            registry.released.set()
            await asyncio.to_thread(engine.start)
            await asyncio.to_thread(engine.ok, "pull", "-q", f"{address}/app:1")

    asyncio.run(asyncio.wait_for(run(), 60))
    assert registry.starts == [0, HALF]


@pytest.mark.needs("root")
def test_a_cancelled_pull_goes_on_at_the_byte(engine: Daemon) -> None:
    """Who interrupts a pull ends it, and the next one asks for the rest only."""
    registry, part = Cutting(hang=True), engine.root / "content/partial" / NAME.replace(":", "-")

    async def run() -> None:
        async with registry.running() as address:
            first = await asyncio.to_thread(engine.begin, "pull", f"{address}/app:1")
            await asyncio.wait_for(registry.reached.wait(), 20)
            await asyncio.to_thread(eventually, lambda: part.exists() and part.stat().st_size == HALF, "no half blob")
            first.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(first.wait, 20) != 0
            await asyncio.to_thread(eventually, lambda: free(part), "the pull goes on")
            registry.broken = False
            await asyncio.to_thread(engine.ok, "pull", "-q", f"{address}/app:1")
            registry.released.set()

    def free(path: Path) -> bool:
        with path.open("rb") as file, suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    asyncio.run(asyncio.wait_for(run(), 60))
    assert registry.starts == [0, HALF]
