"""Mirrors, other locations and blocked registries, as containers-registries.conf(5) says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.image.served import trivet_registry

from trivet.base.error import InvalidArgument
from trivet.client.schema import Progress
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.oci import reference as references
from trivet.registry.mirror import Place, RegistryBlocked, places

Configure = Callable[[str], None]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes the configuration."""
    file = tmp_path / "registries.conf"
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(file))

    def write(text: str) -> None:
        file.write_text(text)

    return write


def asked(text: str) -> list[str]:
    """Tell where a reference is asked for."""
    return [f"{place.domain}/{place.path}" for place in places(references.parse(text).tagged())]


def test_the_longest_prefix_counts(configure: Configure) -> None:
    """Prefixes end at a slash; location replaces the prefix; mirrors come first, as far as they suit."""
    assert asked("debian") == ["docker.io/library/debian"]
    configure("""
        unqualified-search-registries = ["x.test"]
        [[registry]]
        prefix = "docker.io"
        [[registry.mirror]]
        location = "m1.test:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "m2.test"
        pull-from-mirror = "digest-only"
        [[registry]]
        location = "a.test/team"
        [[registry]]
        prefix = "a.test/team/app"
        location = "b.test/moved"
    """)
    assert asked("debian") == ["m1.test:5000/hub/library/debian", "docker.io/library/debian"]
    pinned = asked(f"debian@sha256:{'0' * 64}")
    assert pinned == ["m1.test:5000/hub/library/debian", "m2.test/library/debian", "docker.io/library/debian"]
    assert places(references.parse("debian"))[0] == Place("m1.test:5000", "hub/library/debian", True)
    assert asked("a.test/team/app/x") == ["b.test/moved/x"]
    assert asked("a.test/team/apple") == ["a.test/team/apple"]
    assert asked("a.test/teams/app") == ["a.test/teams/app"]


@pytest.mark.parametrize(
    "text", ["[[registry", "registry = 1", '[[registry]]\nprefix = "docker.io"\nlocation = "UPPER CASE"']
)
def test_a_broken_configuration_is_named(configure: Configure, text: str) -> None:
    """A file that can't be used is named, not passed over: it may be there to block something."""
    configure(text)
    with pytest.raises(InvalidArgument, match=r"registries\.conf"):
        asked("debian")


def test_a_blocked_registry_is_not_asked(configure: Configure, images: Images, image: ImageRecord) -> None:
    """What is blocked is refused for pulls and pushes, before any connection."""
    configure('[[registry]]\nprefix = "127.0.0.1:1/secret"\nblocked = true')
    images.tag("test/base:1", "127.0.0.1:1/secret/app:1")
    for action in (images.pull, images.push):
        with pytest.raises(RegistryBlocked, match=r"registry 127\.0\.0\.1:1/secret is blocked on this machine"):
            asyncio.run(action("127.0.0.1:1/secret/app:1"))


def test_mirrors_are_asked_in_order(
    configure: Configure, images: Images, image: ImageRecord, make_images: Callable[[str], Images], tmp_path: Path
) -> None:
    """A dead mirror and one without the image are passed over; the third gives it, under the name asked for."""
    with trivet_registry(tmp_path / "empty") as empty, trivet_registry(tmp_path / "full") as full:
        images.tag("test/base:1", f"{full}/cache/team/app:1")
        asyncio.run(images.push(f"{full}/cache/team/app:1"))
        mirrors = "".join(
            f'[[registry.mirror]]\nlocation = "{each}"\n' for each in ("127.0.0.1:1", empty, f"{full}/cache")
        )
        configure(f'[[registry]]\nprefix = "nowhere.test"\n{mirrors}')
        puller, lines = make_images("puller"), list[Progress]()
        pulled = asyncio.run(puller.pull("nowhere.test/team/app:1", report=lines.append))
        assert (pulled.id, pulled.names[0].reference) == (image.id, "nowhere.test/team/app:1")
        told = [line.status for line in lines if "passed over" in line.status]
        assert told[0].startswith("mirror 127.0.0.1:1 is passed over: ")
        assert f"registry {empty} has no image team/app with tag 1" in told[1]
        assert puller.leases.all() == []
