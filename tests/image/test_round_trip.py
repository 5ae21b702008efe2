"""pull → store → push → pull: whatever a manifest looks like, its bytes and digests stay."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image.conftest import debian_registry, small_tar
from tests.image.served import trivet_registry

from trivet.engine.image import adopt
from trivet.engine.image.image import Images
from trivet.engine.image.model import Name
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci import platform as platforms
from trivet.oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
)
from trivet.store.content import ContentStore
from trivet.store.lease import Leases
from trivet.store.record import Records

PACKED: dict[str, Callable[[bytes], bytes]] = {
    OCI_LAYER: bytes,
    OCI_LAYER_GZIP: gzip.compress,
    OCI_LAYER_ZSTD: zstandard.compress,
    DOCKER_LAYER_GZIP: gzip.compress,
}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
KNOWN = {*manifests.Manifest.__struct_encode_fields__, *manifests.Index.__struct_encode_fields__}
LAYER = st.tuples(st.binary(max_size=200), st.sampled_from([OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD]))


@pytest.fixture(scope="module", params=["trivet", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A running registry, ours or Debian's: its address, and what it hashes with; Debian's loses mounts of sha512."""
    ours = request.param == "trivet"
    start = trivet_registry if ours else debian_registry
    with start(tmp_path_factory.mktemp("served")) as address:
        yield address, ["sha256", "sha512"] if ours else ["sha256"]


@settings(max_examples=15)
@given(
    layers=st.lists(LAYER, min_size=1, max_size=3),
    docker=st.booleans(),
    indexes=st.integers(0, 2),
    choice=st.data(),
    more=st.dictionaries(TEXT.filter(lambda key: key not in KNOWN), TEXT, max_size=3),
    notes=st.dictionaries(TEXT, TEXT, max_size=3),
    spelling=st.fixed_dictionaries({"indent": st.sampled_from([None, 0, 3]), "ensure_ascii": st.booleans()}),
)
def test_bytes_survive(
    served: tuple[str, list[str]],
    layers: list[tuple[bytes, str]],
    docker: bool,
    indexes: int,
    choice: st.DataObject,
    more: dict[str, str],
    notes: dict[str, str],
    spelling: dict[str, Any],
) -> None:
    """Any layout, unknown fields, annotations and compressions, alone or in an index; digests by either algorithm."""
    address, algorithms = served
    algorithm = choice.draw(st.sampled_from(algorithms))
    with ExitStack() as undo:
        first, second = (an_engine(undo) for _ in range(2))
        name = f"{address}/{uuid.uuid4().hex}"
        fields: dict[str, Any] = {**more, **({"annotations": notes} if notes else {})}
        raw = a_manifest(first, layers, docker, algorithm, fields, spelling)
        for _ in range(indexes):
            raw = an_index(first, raw, docker, algorithm, fields, spelling)
        digest = record_it(first, raw, algorithm, f"{name}/a:1")
        assert asyncio.run(first.push(f"{name}/a:1")) == digest
        pulled = asyncio.run(second.pull(f"{name}/a:1", "linux/amd64"))
        assert pulled.digest == digest
        second.tag(f"{name}/a:1", f"{name}/b:2")
        assert asyncio.run(second.push(f"{name}/b:2")) == digest
        for place in ("a/manifests/1", "b/manifests/2"):
            assert fetch(address, f"/v2/{name.partition('/')[2]}/{place}") == raw
        assert set(first.content.walk()) == set(second.content.walk())


def an_engine(undo: ExitStack) -> Images:
    """Make the images of an engine of its own."""
    root = Path(undo.enter_context(tempfile.TemporaryDirectory()))
    content, records = ContentStore(root / "content"), Records(root / "record.db")
    undo.callback(records.close)
    return Images(content, records, {"mount": OverlaySnapshotter(root / "overlay", content)}, Leases(records))


def a_manifest(
    images: Images,
    layers: list[tuple[bytes, str]],
    docker: bool,
    algorithm: str,
    more: dict[str, Any],
    spelling: dict[str, Any],
) -> bytes:
    """Store an image's blobs; return its manifest."""
    plain = [small_tar(data=data) for data, _ in layers]
    kinds = [DOCKER_LAYER_GZIP if docker else kind for _, kind in layers]
    rootfs = {"type": "layers", "diff_ids": [digests.of(each, algorithm) for each in plain]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}, **spelling).encode()

    def described(data: bytes, kind: str) -> dict[str, Any]:
        digest = images.content.add(data, digests.of(data, algorithm))
        return {"digest": digest, "size": len(data), "mediaType": kind}

    document = {
        **more,
        "layers": [described(PACKED[kind](data), kind) for data, kind in zip(plain, kinds, strict=True)],
        "config": described(config, DOCKER_CONFIG if docker else OCI_CONFIG),
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
    }
    return json.dumps(document, **spelling).encode()


def an_index(
    images: Images, raw: bytes, docker: bool, algorithm: str, more: dict[str, Any], spelling: dict[str, Any]
) -> bytes:
    """Store a manifest or index; return an index of it alone."""
    child = {
        "size": len(raw),
        "digest": images.content.add(raw, digests.of(raw, algorithm)),
        "mediaType": manifests.media_type_of(manifests.parse(raw, subject="child")),
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    kind = DOCKER_INDEX if docker else OCI_INDEX
    return json.dumps({**more, "manifests": [child], "mediaType": kind, "schemaVersion": 2}, **spelling).encode()


def record_it(images: Images, raw: bytes, algorithm: str, reference: str) -> str:
    """Make a stored manifest or index an image with a name; return its digest."""
    digest = images.content.add(raw, digests.of(raw, algorithm))
    found = adopt.resolve(images.content, digest, platforms.parse("linux/amd64"), subject=reference)
    record = adopt.describe(images.content, digest, found, subject=reference)
    images.catalog.add(record, [Name(reference=reference, digest=digest, manifest=found.digest)])
    return digest


def fetch(address: str, path: str) -> bytes:
    """Read from a registry, as it is."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with closing(connection):
        connection.request(
            "GET", path, headers={"Accept": ", ".join((OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_INDEX))}
        )
        return connection.getresponse().read()
