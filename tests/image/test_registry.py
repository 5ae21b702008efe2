"""Pulling from real registries, ours and Debian's docker-registry on loopback, filled by skopeo."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from trivet.client.schema import Progress
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord, WrongPlatform
from trivet.registry.error import NotInRegistry, RegistryUnavailable

pytestmark = pytest.mark.needs("skopeo")


def push(images: Images, name: str, target: str, place: Path, *, form: str = "") -> None:
    """Push an image of the store to a registry with skopeo, optionally converted to a manifest format."""
    archive = place / "push.tar"
    with archive.open("wb") as file:
        images.save([name], file, "oci")
    command = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", *(["--format", form] if form else [])]
    subprocess.run([*command, f"oci-archive:{archive}", f"docker://{target}"], check=True, timeout=60)


def raw_manifest(reference: str) -> dict[str, object]:
    """Ask the registry, through skopeo, what it has under a name."""
    command = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{reference}"]
    document: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return document


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_digests_survive_pull_save_and_load(
    registry: str, images: Images, image: ImageRecord, make_images: Callable[[str], Images], tmp_path: Path, form: str
) -> None:
    """What is pulled, saved and loaded elsewhere has the digests the registry gave it."""
    push(images, "test/base:1", f"{registry}/team/app:1", tmp_path, form=form)
    puller, other = make_images("puller"), make_images("other")
    pulled = asyncio.run(puller.pull(f"{registry}/team/app:1"))
    assert pulled.id == image.id
    saved = io.BytesIO()
    puller.save([f"{registry}/team/app:1"], saved)
    saved.seek(0)
    assert other.load(saved) == [f"{registry}/team/app:1"]
    loaded = other.find(f"{registry}/team/app:1")
    assert (loaded.digest, loaded.manifest, loaded.layers) == (pulled.digest, pulled.manifest, pulled.layers)
    assert set(other.content.walk()) >= set(puller.content.walk())
    assert other.check() == []


def test_pull_by_digest_is_pinned(registry: str, images: Images, image: ImageRecord, tmp_path: Path) -> None:
    """An image pulled by digest is found by that digest, and a wrong digest finds nothing."""
    push(images, "test/base:1", f"{registry}/app:1", tmp_path)
    pulled = asyncio.run(images.pull(f"{registry}/app@{image.digest}"))
    assert images.find(f"{registry}/app@{image.digest}").id == pulled.id == image.id
    with pytest.raises(NotInRegistry, match="has no image app with digest"):
        asyncio.run(images.pull(f"{registry}/app@sha256:{'0' * 64}"))


def test_index_gives_this_machines_image(registry: str, images: Images, image: ImageRecord, tmp_path: Path) -> None:
    """From an index the fitting manifest is taken; the name keeps the index's digest; others are refused by name."""
    push(images, "test/base:1", f"{registry}/app:one", tmp_path)
    manifest = images.content.read(image.manifest, limit=1 << 20)
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest, "size": len(manifest)}
    other = {**entry, "platform": {"os": "linux", "architecture": "s390x"}}
    ours = {**entry, "platform": {"os": "linux", "architecture": image.platform.split("/")[1]}}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, ours]}
    put(registry, "app", "many", json.dumps(index).encode(), str(index["mediaType"]))
    pulled = asyncio.run(images.pull(f"{registry}/app:many"))
    name = next(each for each in pulled.names if each.reference.endswith(":many"))
    assert name.manifest == image.manifest != name.digest
    with pytest.raises(WrongPlatform, match=r"is for linux/\w+, linux/s390x, not for linux/riscv64"):
        asyncio.run(images.pull(f"{registry}/app:many", "linux/riscv64"))


def test_single_manifest_of_another_architecture_is_refused(registry: str, images: Images, tmp_path: Path) -> None:
    """An image without an index that is for another machine is refused, and not recorded."""
    from trivet.engine.image.commit import scratch
    from trivet.oci.platform import parse

    images.create(scratch(parse("linux/s390x")), ["alien:1"])
    push(images, "alien:1", f"{registry}/alien:1", tmp_path)
    with pytest.raises(WrongPlatform, match="is for linux/s390x, not for linux/"):
        asyncio.run(images.pull(f"{registry}/alien:1"))
    assert [each for record in images.list() for each in record.names if registry in each.reference] == []


def test_missing_image_is_named(registry: str, images: Images) -> None:
    """A tag the registry doesn't have: one sentence with registry, repository and tag."""
    with pytest.raises(NotInRegistry, match=rf"registry {registry} has no image no/such with tag 9"):
        asyncio.run(images.pull(f"{registry}/no/such:9"))
    assert images.leases.all() == []


def test_progress_tells_layers(
    registry: str, images: Images, image: ImageRecord, make_images: Callable[[str], Images], tmp_path: Path
) -> None:
    """A pull tells about each layer, first that it comes and at the end that it is complete."""
    push(images, "test/base:1", f"{registry}/app:1", tmp_path)
    lines: list[Progress] = []
    puller = make_images("puller")
    asyncio.run(puller.pull(f"{registry}/app:1", report=lines.append))
    done = {line.id for line in lines if line.status == "downloaded" and line.current == line.total > 0}
    assert image.layers[0].digest[7:19] in done
    lines.clear()
    asyncio.run(puller.pull(f"{registry}/app:1", report=lines.append))
    assert {line.status for line in lines if line.id} == {"exists"}


def test_silent_registry_is_given_up(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that accepts connections and says nothing is given up after seconds, with a clear sentence."""
    monkeypatch.setattr("trivet.registry.transport.ANSWER", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            RegistryUnavailable, match=rf"registry 127.0.0.1:{port} does not answer: not a word in 1 seconds"
        ):
            asyncio.run(images.pull(f"127.0.0.1:{port}/app"))
    with pytest.raises(RegistryUnavailable, match="does not answer: connection refused"):
        asyncio.run(images.pull(f"127.0.0.1:{port}/app"))


def put(registry: str, repository: str, tag: str, body: bytes, media_type: str) -> None:
    """Upload a manifest as it is."""
    import urllib.request

    url = f"http://{registry}/v2/{repository}/manifests/{tag}"
    request = urllib.request.Request(url, body, {"Content-Type": media_type}, method="PUT")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10).close()
