"""Layers that are kept unpacked only: never there twice, and fetched again, byte for byte, where they are wanted."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from tests.image.conftest import small_tar
from tests.image.served import trivet_registry
from tests.image.test_push import push
from tests.image.test_registry_hostile import MANIFEST_TYPE, Registry, descriptor

from trivet.base.error import Corrupt, TrivetError
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.release import LayerBlobs
from trivet.engine.image.source import LayerAway
from trivet.engine.image.source_registry import More
from trivet.engine.snapshot.layer import Kind, UnusableLayer
from trivet.engine.snapshot.making import disk_usage
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.engine.snapshot.snapshotter import Gradual, Layered
from trivet.oci import digest as digests
from trivet.registry.error import RegistryUnavailable
from trivet.store.content import ContentStore
from trivet.store.growing import Passage
from trivet.store.lease import Leases
from trivet.store.record import Records

MB = 1 << 20
MakeImages = Callable[[str], Images]


@pytest.fixture(params=["overlay", "erofs", "copy"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """How layers are kept."""
    return Kind(request.param)


@pytest.fixture
def make_sparing(tmp_path: Path, kind: Kind) -> Iterator[MakeImages]:
    """Makes an engine's images that keeps layers unpacked only; again under the same name is its next start."""
    opened: list[tuple[Records, OverlaySnapshotter]] = []

    def make(name: str) -> Images:
        root = tmp_path / name
        content, records = ContentStore(root / "content"), Records(root / "record.db")
        overlay = OverlaySnapshotter(root / "overlay", content, kind=kind)
        opened.append((records, overlay))
        return Images(content, records, {"mount": overlay}, Leases(records), layer_blobs=LayerBlobs.DISCARD)

    yield make
    for records, overlay in opened:
        overlay.hide_all()
        records.close()


@pytest.fixture
def sparing(make_sparing: MakeImages) -> Images:
    """The images of an engine that keeps layers unpacked only."""
    return make_sparing("sparing")


def blobs(images: Images, record: ImageRecord) -> set[str]:
    """List the layers of an image whose blobs are here."""
    return {layer.digest for layer in record.layers if images.content.exists(layer.digest)}


def unpacked(images: Images, record: Layered) -> list[bool]:
    """Tell which layers are unpacked."""
    snapshotter = images.snapshotters["mount"]
    assert isinstance(snapshotter, Gradual)
    return snapshotter.unpacked(record)


def saved(images: Images, name: str, *, every: bool = False) -> bytes:
    """Save an image."""
    file = io.BytesIO()
    images.save([name], file, "oci", every=every)
    return file.getvalue()


def test_a_layer_is_here_once(registry: str, images: Images, image: ImageRecord, sparing: Images) -> None:
    """A pulled layer is unpacked and nothing else; saved, it has the bytes it had; nothing of that stays."""
    name = f"{registry}/app:1"
    images.tag("test/base:1", name)
    push(images, name)
    record = asyncio.run(sparing.pull(name))
    assert (blobs(sparing, record), unpacked(sparing, record)) == (set(), [True])
    assert sparing.check() == []
    assert saved(sparing, name) == saved(images, name)
    assert blobs(sparing, record) == set()
    assert sparing.sweep() == 0
    assert sparing.df().size == 0
    layer, *chain = sparing.why(record.layers[0].digest[:20])
    assert (layer, chain[0]) == (record.layers[0].digest, f"its unpacked form; {registry}/app has the blob")
    assert chain[-1] == f"image {name}"
    assert sparing.remove(name, force=False).deleted == [record.id]
    assert sparing.sources.all() == []


def test_pushes_ask_before_they_fetch(registry: str, images: Images, image: ImageRecord, sparing: Images) -> None:
    """Where a layer is from has it, a sister repository mounts it, another registry gets it from there."""
    name, layer = f"{registry}/app:1", digests.short(image.layers[0].digest)
    images.tag("test/base:1", name)
    push(images, name)
    record = asyncio.run(sparing.pull(name))
    ways = {"again": f"{registry}/app:2", "sister": f"{registry}/team/app:1"}
    for target in ways.values():
        sparing.tag(name, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparing.sources, "bring", None)
        assert push(sparing, ways["again"])[1][layer] == "exists"
        assert push(sparing, ways["sister"])[1][layer] == "mounted"
    with trivet_registry(sparing.content.root.parent / "other") as other:
        sparing.tag(name, f"{other}/app:1")
        digest, told = push(sparing, f"{other}/app:1")
        assert (digest, told[layer]) == (record.digest, "uploaded")
        assert blobs(sparing, record) == set()


def test_layers_that_are_here_are_not_fetched(
    registry: str, images: Images, sparing: Images, make_sparing: MakeImages
) -> None:
    """An image that shares layers fetches the others; one that is here fetches nothing; builds go on from it."""
    base = images.import_(io.BytesIO(small_tar()), f"{registry}/base:1")
    layer = images.import_(io.BytesIO(small_tar(more=os.urandom(5000))), "other:1").layers[0]
    draft = images.draft(base.id)
    history = (draft.config.history or ())[-1]
    images.create(draft.with_layer(layer, history=history), [f"{registry}/app:1"])
    for each in ("base", "app"):
        push(images, f"{registry}/{each}:1")
    asyncio.run(sparing.pull(f"{registry}/base:1"))
    for wanted in ([layer.digest], []):
        fetched: list[str] = []
        report = lambda line: fetched.append(line.id) if line.status == "downloaded" else None  # noqa: E731, B023
        record = asyncio.run(sparing.pull(f"{registry}/app:1", report=report))
        assert fetched[-1:] == [digests.short(each) for each in wanted]
    assert (blobs(sparing, record), unpacked(sparing, record)) == (set(), [True, True])
    made = sparing.create(sparing.draft(record.id).with_layer(layer, history=history), [f"{registry}/made:1"])
    push(sparing, f"{registry}/made:1")
    assert asyncio.run(make_sparing("next").pull(f"{registry}/made:1")).id == made.id


def test_platforms_that_are_not_unpacked_stay_as_they_are(registry: str, images: Images, sparing: Images) -> None:
    """Of an image for all platforms only the layers that are unpacked here go, and a save of all is whole."""
    from tests.image.test_platforms import make

    name = f"{registry}/many:1"
    digest = make(images, name)
    asyncio.run(images.push(name, every=True))
    record = asyncio.run(sparing.pull(name, more=More(platforms=True)))
    assert blobs(sparing, record) == set()
    assert saved(sparing, name, every=True) == saved(images, name, every=True)
    sparing.tag(name, f"{registry}/copy:1")
    assert asyncio.run(sparing.push(f"{registry}/copy:1", every=True)) == digest


async def go_on(digest: str, size: int) -> bool:
    """Never cut anything."""
    return True


class Served(Registry):
    """Serves an image whose layers are told; `sent` is asked whether to go on with a layer that was sent so far."""

    def __init__(self, *layers: bytes, diff_ids: list[str] | None = None) -> None:
        super().__init__()
        self.layers = {digests.of(layer): layer for layer in layers}
        unpacked = [digests.of(gzip.decompress(layer)) for layer in layers] if diff_ids is None else diff_ids
        rootfs = {"type": "layers", "diff_ids": unpacked}
        self.config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
        kind = "application/vnd.oci.image.layer.v1.tar+gzip"
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": descriptor(self.config, "application/vnd.oci.image.config.v1+json"),
                "layers": [descriptor(layer, kind) for layer in layers],
            }
        ).encode()
        self.blob = self._layer
        self.starts: list[tuple[str, int]] = []
        self.sent: Callable[[str, int], Awaitable[bool]] = go_on

    async def _layer(self, request: web.Request) -> web.StreamResponse:
        digest = request.path.rpartition("/")[2]
        data, start = self.layers[digest], int(request.headers.get("Range", "bytes=0-")[6:-1])
        self.starts.append((digest, start))
        response = web.StreamResponse(status=206 if start else 200)
        response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        await response.prepare(request)
        for at in range(start, len(data), MB // 4):
            if not await self.sent(digest, at):
                assert request.transport is not None
                request.transport.close()
                break
            await response.write(data[at : at + MB // 4])
        return response


def a_layer(size: int, name: str = "noise") -> bytes:
    """Make a layer that doesn't get smaller."""
    return gzip.compress(small_tar(**{name: os.urandom(size)}), 1)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of a blob may be here at a time, and one failure without progress is enough."""
    monkeypatch.setattr("trivet.engine.image.sparing.WINDOW", MB)
    monkeypatch.setattr("trivet.registry.client.RESUMES", 1)


async def _pull(images: Images, registry: Registry) -> ImageRecord:
    async with registry.running() as address:
        return await images.pull(f"{address}/app:1", "linux/amd64")


@pytest.mark.usefixtures("narrow")
def test_a_large_layer_passes_through(sparing: Images) -> None:
    """However large a layer is and however slowly it is unpacked, about the window of it is on the disk."""
    registry, most = Served(a_layer(24 * MB), a_layer(12 * MB, "more")), 0

    async def measure(digest: str, size: int) -> bool:
        nonlocal most
        most = max(most, disk_usage(sparing.content.root))
        return True

    registry.sent = measure
    record = asyncio.run(_pull(sparing, registry))
    assert unpacked(sparing, record) == [True, True]
    assert 0 < most < 2 * 8 * MB  # of each the window, what was received at once, and what is given back in steps
    assert disk_usage(sparing.content.root) < MB
    assert sorted(registry.starts) == sorted((digest, 0) for digest in registry.layers)


@pytest.mark.usefixtures("narrow")
def test_a_cut_passage_goes_on_at_the_byte(sparing: Images) -> None:
    """Where the connection breaks off, the layer goes on from there, unpacked and verified as if nothing were."""
    registry, cuts = Served(a_layer(8 * MB)), [5 * MB]

    async def cut(digest: str, size: int) -> bool:
        return not (cuts and size >= cuts[0] and cuts.pop())

    registry.sent = cut
    record = asyncio.run(_pull(sparing, registry))
    (_, first), (_, second) = registry.starts
    assert first == 0
    assert 0 < second <= 5 * MB  # what was in the wire may be lost
    assert unpacked(sparing, record) == [True]


@pytest.mark.usefixtures("narrow")
def test_what_was_unpacked_outlives_the_engine(make_sparing: MakeImages) -> None:
    """A pull that is cut keeps the layers that are unpacked, for the next engine's; the others begin again."""
    first, second = a_layer(3 * MB), a_layer(6 * MB, "more")
    registry, images = Served(first, second), make_sparing("engine")

    async def cut(digest: str, size: int) -> bool:
        if digest == digests.of(first) or size < 2 * MB:
            return True
        while not any(unpacked(images, record) for record in images.leases.all()):  # noqa: ASYNC110 - it is a thread
            await asyncio.sleep(0.02)
        return False

    registry.sent = cut
    with pytest.raises(RegistryUnavailable, match="broke off again and again"):
        asyncio.run(asyncio.wait_for(_pull(images, registry), 60))
    images.records.close()
    images = make_sparing("engine")
    images.recover()
    images.sweep()
    registry.sent, registry.starts = go_on, []
    record = asyncio.run(_pull(images, registry))
    assert registry.starts == [(digests.of(second), 0)]
    assert unpacked(images, record) == [True, True]
    assert images.sweep() == 0


@pytest.mark.usefixtures("narrow")
def test_pulls_at_once_let_a_layer_pass_once(sparing: Images) -> None:
    """Ten pulls of the same image fetch each layer once, large or small."""
    registry = Served(a_layer(3 * MB), a_layer(1000, "more"))

    async def run() -> None:
        async with registry.running() as address:
            await asyncio.gather(*(sparing.pull(f"{address}/app:{number}", "linux/amd64") for number in range(10)))

    asyncio.run(asyncio.wait_for(run(), 60))
    assert sorted(registry.starts) == sorted((digest, 0) for digest in registry.layers)
    assert disk_usage(sparing.content.root) < MB


@pytest.mark.usefixtures("narrow")
def test_a_hostile_layer_is_refused_once(sparing: Images) -> None:
    """What isn't a tar, or not the tar it says, is fetched once, refused, and leaves nothing."""
    noise = gzip.compress(os.urandom(3 * MB), 1)
    other = a_layer(3 * MB)
    for registry, refusal in (
        (Served(noise), UnusableLayer),
        (Served(other, diff_ids=[digests.of(b"another")]), digests.DigestMismatch),
    ):
        with pytest.raises(refusal):
            asyncio.run(asyncio.wait_for(_pull(sparing, registry), 60))
        assert len(registry.starts) == 1
        assert disk_usage(sparing.content.root) < MB
        assert sparing.list() == []


@pytest.mark.usefixtures("narrow")
def test_a_layer_that_is_another_has_no_name(sparing: Images) -> None:
    """A large layer whose bytes aren't what the manifest says is unpacked by nobody."""
    layer = a_layer(3 * MB)
    registry = Served(layer)
    registry.layers[digests.of(layer)] = layer[:-1] + bytes([layer[-1] ^ 1])
    with pytest.raises(Corrupt):
        asyncio.run(asyncio.wait_for(_pull(sparing, registry), 60))
    assert sparing.list() == []
    assert not list((sparing.content.root.parent / "overlay/layer").glob("*[0-9]*"))


def test_a_registry_that_is_gone_is_named(images: Images, image: ImageRecord, sparing: Images, tmp_path: Path) -> None:
    """Without the registry, a save says which layer is where; with it again, the same save succeeds."""
    with trivet_registry(tmp_path / "served") as registry:
        name = f"{registry}/app:1"
        images.tag("test/base:1", name)
        push(images, name)
        asyncio.run(sparing.pull(name))
    layer = digests.short(image.layers[0].digest)
    wanted = f"layer {layer} is kept unpacked only and cannot be fetched again from {registry}/app: "
    with pytest.raises(LayerAway, match=wanted) as caught:
        saved(sparing, name)
    assert "--layer-blobs keep" in (caught.value.hint or "")
    assert sparing.check() == []
    port = registry.rpartition(":")[2]
    with trivet_registry(tmp_path / "served", "--listen", f"127.0.0.1:{port}"):
        assert saved(sparing, name) == saved(images, name)


def test_prune_frees_blobs_at_once(registry: str, images: Images, make_images: MakeImages) -> None:
    """In an engine that keeps blobs, prune frees those that can be had again, and its dry run says just that before."""
    name = f"{registry}/app:1"
    made = images.import_(io.BytesIO(small_tar(noise=os.urandom(MB))), name)
    push(images, name)
    assert images.prune(dry_run=True, layer_blobs=True).freed == 0  # made here: nobody is known to have it
    keeping = make_images("keeping")
    record = asyncio.run(keeping.pull(name))
    before = keeping.df().size
    assert before > MB
    with keeping.leases.hold("working") as lease:
        lease.add(record.layers[0].digest)
        assert keeping.release() == []
    planned = keeping.prune(dry_run=True, layer_blobs=True)
    assert blobs(keeping, record) != set()
    assert keeping.prune(layer_blobs=True) == planned
    assert planned.freed == before
    assert planned.deleted == [f"blob of layer {digests.short(made.layers[0].digest)}, which {registry}/app has"]
    assert (blobs(keeping, record), unpacked(keeping, record)) == (set(), [True])
    assert saved(keeping, name) == saved(images, name)
    assert blobs(keeping, record) != set()  # this engine keeps what it has
    keeping.release()
    asyncio.run(keeping.pull(name))
    assert blobs(keeping, record) != set()


def test_an_older_store_learns_by_the_next_pull(registry: str, images: Images, make_images: MakeImages) -> None:
    """Blobs that an older engine pulled stay until a pull tells where they are."""
    name = f"{registry}/app:1"
    images.import_(io.BytesIO(small_tar()), name)
    push(images, name)
    older = make_images("older")
    record = asyncio.run(older.pull(name))
    older.sources.forget(())
    assert older.release() == []
    asyncio.run(older.pull(name))
    assert [each.digest for each in older.release()] == [record.layers[0].digest]


def test_a_passage_holds_back_whoever_writes(tmp_path: Path) -> None:
    """A passage is full when the reader is behind, gives back what was read, and takes all when nobody reads."""
    file = tmp_path / "file"
    data = os.urandom(8 * MB)
    passage = Passage(file, 2 * MB)
    file.touch()
    with passage.open() as reader, file.open("r+b", buffering=0) as writer:
        for at in range(0, len(data), MB):
            writer.write(data[at : at + MB])
            passage.grow(at + MB)
            assert passage.full == (at + MB > 2 * MB)
            if passage.full:
                assert reader.read(MB) == data[at - 2 * MB : at - MB]
        assert disk_usage(file) <= 4 * MB
        passage.leave()
        assert not passage.full


def test_the_error_names_what_is_missing(sparing: Images) -> None:
    """A blob that nobody is known to have isn't asked for anywhere."""
    with pytest.raises(TrivetError, match="is not in the content store"):
        sparing.opened(digests.of(b"nothing"))
