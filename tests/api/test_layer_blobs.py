"""An engine that keeps layers unpacked only, as people use it."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.image.served import trivet_registry

pytestmark = pytest.mark.needs("root")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry."""
    with trivet_registry(tmp_path_factory.mktemp("served") / "registry") as address:
        yield address


@pytest.fixture(scope="module")
def sparing(tmp_path_factory: pytest.TempPathFactory, daemon: Daemon, registry: str) -> Iterator[Daemon]:
    """An engine that keeps layers unpacked only; the registry has far:1, from another engine."""
    daemon.ok("import", "-q", "-c", 'CMD ["sh"]', "-", f"{registry}/far:1", input=busybox_tar())
    daemon.ok("push", "-q", f"{registry}/far:1")
    daemon.ok("rmi", f"{registry}/far:1")
    run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
    engine = Daemon(tmp_path_factory.mktemp("sparing") / "root", run, "--layer-blobs=discard")
    engine.start()
    yield engine
    engine.clean()
    shutil.rmtree(run)


def layers(engine: Daemon, name: str) -> list[bool]:
    """Tell of each layer of an image whether its blob is here."""
    found = json.loads(engine.ok("image", "inspect", name))[0]["layers"]
    return [(engine.root / "content/blobs" / each["digest"].replace(":", "/")).exists() for each in found]


def test_what_is_pulled_is_used_as_ever(sparing: Daemon, registry: str, daemon: Daemon, tmp_path: Path) -> None:
    """A pulled image runs, is built upon, goes to other registries and archives; no blob of its layers stays."""
    far, made = f"{registry}/far:1", f"{registry}/made:1"
    sparing.ok("pull", "-q", far)
    assert layers(sparing, far) == [False]
    rows = {row.kind: row for row in sparing.client.system.usage()}
    assert (rows["images"].size, rows["image layers"].total, rows["image layers"].active) == (0, 1, 0)
    assert rows["image layers"].size >= rows["image layers"].reclaimable > len(busybox_tar()) * 0.9
    assert sparing.ok("run", "--rm", "--network", "none", far, "echo", "hi") == "hi"
    (tmp_path / "Dockerfile").write_text(f"FROM {far}\nRUN echo one >/one\n")
    cache = tmp_path / "cache"
    sparing.ok("build", "-q", "-t", made, "--cache-to", f"type=local,dest={cache}", str(tmp_path))
    sparing.ok("push", "-q", made)
    assert layers(sparing, made) == [False, True]  # what was made here is kept
    with trivet_registry(tmp_path / "other") as other:
        sparing.ok("tag", made, f"{other}/made:1")
        sparing.ok("push", "-q", f"{other}/made:1")
        daemon.ok("pull", "-q", f"{other}/made:1")
        assert daemon.ok("run", "--rm", "--network", "none", f"{other}/made:1", "cat", "/one") == "one"
        daemon.ok("rmi", f"{other}/made:1")
    archive = sparing.trivet("save", made).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getnames()
    digests = [each["digest"] for each in json.loads(sparing.ok("image", "inspect", made))[0]["layers"]]
    assert {f"blobs/{each.replace(':', '/')}" for each in digests} <= set(members)
    assert layers(sparing, made) == [False, True]
    sparing.ok("image", "prune", "--yes")  # what the cache's export left
    assert sparing.client.system.check() == []
    assert f"{registry}/far has the blob" in sparing.ok("image", "why", digests[0])


def test_a_save_says_what_it_lacks(sparing: Daemon, tmp_path: Path, daemon: Daemon) -> None:
    """Without the registry a save fails with one sentence, which names layer and registry, and leaves no file."""
    with trivet_registry(tmp_path / "short-lived") as gone:
        daemon.ok("import", "-q", "-", f"{gone}/gone:1", input=busybox_tar() + bytes(1024))
        daemon.ok("push", "-q", f"{gone}/gone:1")
        sparing.ok("pull", "-q", f"{gone}/gone:1")
        sparing.ok("tag", f"{gone}/gone:1", "here:1")
        for engine in (daemon, sparing):
            engine.ok("rmi", f"{gone}/gone:1")
    archive = tmp_path / "archive"
    done = sparing.trivet("save", "-o", archive, "here:1")
    assert (done.returncode, archive.exists()) == (1, False)
    assert f"is kept unpacked only and cannot be fetched again from {gone}/gone: ".encode() in done.stderr
    assert b"hint: " in done.stderr
    sparing.ok("rmi", "here:1")


def test_prune_frees_what_can_be_fetched_again(daemon: Daemon, sparing: Daemon, registry: str) -> None:
    """`image prune --layer-blobs` tells what it would free, frees it, and the image is whole afterwards."""
    far = f"{registry}/far:1"
    daemon.ok("pull", "-q", far)
    (digest,) = [each["digest"] for each in json.loads(daemon.ok("image", "inspect", far))[0]["layers"]]
    line = f"blob of layer {digest.partition(':')[2][:12]}, which {registry}/far has"
    assert f"would delete: {line}" in daemon.ok("image", "prune", "--layer-blobs", "--dry-run")
    assert layers(daemon, far) == [True]
    assert f"deleted: {line}" in daemon.ok("image", "prune", "--layer-blobs", "--yes")
    assert layers(daemon, far) == [False]
    assert daemon.trivet("save", far).stdout == sparing.trivet("save", far).stdout
    daemon.ok("rmi", far)
