"""Images for several platforms, whole: pulled, saved, loaded and pushed with all that their index lists."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable

import pytest
from tests.image.conftest import small_tar

from trivet.engine.image.adopt import MissingContent
from trivet.engine.image.commit import scratch
from trivet.engine.image.image import Images
from trivet.engine.image.source_registry import More
from trivet.oci import platform as platforms
from trivet.oci.config import History
from trivet.oci.layer import Layer


def make(images: Images, name: str) -> str:
    """Make an image for this machine and for s390x; return its index's digest."""
    drafts = []
    for platform in (platforms.host(), platforms.parse("linux/s390x")):
        data = small_tar(**{"etc/arch": str(platform).encode()})
        digest = images.content.add(data)
        layer = Layer(
            digest=digest, size=len(data), media_type="application/vnd.oci.image.layer.v1.tar", diff_id=digest
        )
        drafts.append(scratch(platform).with_layer(layer, history=History()))
    return images.create_all(drafts, [name]).digest


def test_all_platforms_go_everywhere(registry: str, images: Images, make_images: Callable[[str], Images]) -> None:
    """Pulled with all platforms an image can be saved, loaded and pushed whole; without, it says what to do."""
    name = f"{registry}/team/many:1"
    digest = make(images, name)
    assert asyncio.run(images.push(name, every=True)) == digest
    whole, part, loaded = make_images("whole"), make_images("part"), make_images("loaded")
    asyncio.run(whole.pull(name, more=More(platforms=True)))
    assert {each for each, _ in whole.content.walk()} == {each for each, _ in images.content.walk()}
    whole.sweep()
    assert {each for each, _ in whole.content.walk()} == {each for each, _ in images.content.walk()}
    archive = io.BytesIO()
    whole.save([name], archive, "oci", every=True)
    archive.seek(0)
    loaded.load(archive)
    assert {each for each, _ in loaded.content.walk()} >= {each for each, _ in images.content.walk()}
    loaded.tag(name, f"{registry}/team/copy:1")
    assert asyncio.run(loaded.push(f"{registry}/team/copy:1", every=True)) == digest
    asyncio.run(part.pull(name))
    for action in (
        lambda: asyncio.run(part.push(name, every=True)),
        lambda: part.save([name], io.BytesIO(), "oci", every=True),
    ):
        with pytest.raises(MissingContent, match="is incomplete") as caught:
            action()
        assert caught.value.hint == f"get all of it: trivet pull --all-platforms {name}"
    asyncio.run(part.pull(name, more=More(platforms=True)))
    assert asyncio.run(part.push(name, every=True)) == digest
    assert part.check() == []


def test_another_platforms_layers_are_not_unpacked(images: Images, make_images: Callable[[str], Images]) -> None:
    """What can't run here is kept as it came, and goes with the image's last name."""
    from tests.image.served import trivet_registry

    puller = make_images("puller")
    with trivet_registry(images.content.root.parent / "served") as registry:
        make(images, f"{registry}/many:1")
        asyncio.run(images.push(f"{registry}/many:1"))
        asyncio.run(puller.pull(f"{registry}/many:1", more=More(platforms=True)))
    unpacked = list((puller.content.root.parent / "overlay" / "layer").glob("*/fs/etc/arch"))
    assert [path.read_text() for path in unpacked] == [str(platforms.host())]
    puller.remove(f"{registry}/many:1")
    assert list(puller.content.walk()) == []
