"""Our registry with its blobs in an S3 server. What it answers is in tests/conformance/test_distribution.py."""

from __future__ import annotations

import asyncio
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from tests.image.served import bucket, trivet_registry

from trivet.base.error import InvalidArgument
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.oci import digest as digests
from trivet.registry.server import bucket as buckets
from trivet.registry.server.bucket import Bucket
from trivet.store.content import BlobNotFound


def status(address: str, method: str, path: str, body: bytes | None = None) -> int:
    """Send a request; tell the status."""
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def test_images_live_in_the_bucket(
    images: Images, image: ImageRecord, make_images: Callable[[str], Images], tmp_path: Path
) -> None:
    """A push leaves nothing here but records, another process serves it, garbage goes, and a dead store is told."""
    root = tmp_path / "root"
    with ExitStack() as undo:
        store = ExitStack()
        undo.callback(store.close)
        url = store.enter_context(bucket(tmp_path / "moto"))
        content = Bucket(tmp_path / "look", url)
        options = ["--s3", url, "--collect-every", "1s", "--grace", "1s"]
        with trivet_registry(root, *options) as address:
            name = f"{address}/app:1"
            images.tag("test/base:1", name)
            digest = asyncio.run(images.push(name))
            orphan = digests.of(b"orphan")
            assert status(address, "POST", f"/v2/app/blobs/uploads/?digest={orphan}", b"orphan") == 201
            wanted = {digest, image.id, *(layer.digest for layer in image.layers)}
            deadline = time.monotonic() + 15
            while {found for found, _ in content.walk()} != wanted:
                assert time.monotonic() < deadline, "the orphan is still there"
                time.sleep(0.2)
        assert not [path for path in (root / "content").rglob("*") if path.is_file() and path.name != "oci-layout"]
        with trivet_registry(root, "--s3", url) as address:
            assert asyncio.run(make_images("puller").pull(f"{address}/app:1")).digest == digest
            store.close()
            assert status(address, "GET", f"/v2/app/blobs/{image.id}") == 503


def test_large_blobs_go_up_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than a part arrives whole, is read from any byte, and goes when it is deleted."""
    monkeypatch.setattr(buckets, "PART", 5 << 20)
    data = os.urandom((12 << 20) + 1)
    digest = digests.of(data)
    with bucket(tmp_path / "moto") as url:
        content = Bucket(tmp_path / "content", url)
        content.add(data)
        content.verify(digest)
        with content.open_range(digest, 5_000_000, 10) as part:
            assert part.read() == data[5_000_000:5_000_010]
        assert (content.size(digest), content.exists(digest)) == (len(data), True)
        assert content.delete(digest) == len(data)
        assert (content.exists(digest), content.delete(digest), list(content.walk())) == (False, 0, [])
        with pytest.raises(BlobNotFound):
            content.open(digest)


def test_what_is_no_bucket(tmp_path: Path) -> None:
    """A wrong address or a bucket that isn't there is one sentence, before anything listens."""
    for wrong in ("images", "https://host", "ftp://host/x", "https://me@host/x", "https://host/"):
        with pytest.raises(InvalidArgument, match="is not https://HOST/BUCKET"):
            Bucket(tmp_path / "content", wrong)
    with bucket(tmp_path / "moto") as url:
        command: list[str | Path] = [Path(sys.executable).with_name("trivet"), "registry", "serve", "--insecure"]
        words: list[str | Path] = [
            "--root",
            tmp_path / "r",
            "--listen",
            "127.0.0.1:0",
            "--s3",
            url.replace("images", "missing"),
        ]
        done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("trivet: there is no bucket missing at 127.0.0.1")
