"""Our registry under everything at once: pushes, pulls, deletions, broken uploads, collections, and a kill."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trivet.oci import digest as digests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SECONDS = 5.0
POOL = [bytes([number]) * (1 + number * 997) for number in range(60)]  # what images are made of; shared by all
BY_DIGEST = {digests.of(blob): blob for blob in POOL}


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Run a registry that collects garbage all the time and gives little grace; kill it at the end."""
    options = ["--listen", "127.0.0.1:0", "--collect-every", "1s", "--grace", "1s"]
    command: list[str | Path] = [Path(sys.executable).with_name("trivet"), "registry", "serve", "--root", root]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        try:
            yield process.stdout.readline().decode().split()[-1]
        finally:
            process.kill()
            process.wait(10)


class Client(threading.Thread):
    """Works on a repository of its own and remembers which images must be there."""

    def __init__(self, address: str, number: int) -> None:
        super().__init__()
        self.name = f"r{number}"
        self.images: dict[str, bytes] = {}
        self.done = 0
        self.error: BaseException | None = None
        self.address = address
        self._random = random.Random(number)

    def run(self) -> None:
        """Do one thing after the other, until the time is over or something is wrong."""
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                action = self._random.choice([self.push, self.push, self.verify, self.delete, self.misbehave])
                action()
                self.done += 1
        except BaseException as error:
            self.error = error

    def push(self) -> None:
        """Push an image; what was collected before its manifest came is sent again."""
        parts = self._random.sample(sorted(BY_DIGEST), 4)
        entries = [{"mediaType": "x/y", "digest": each, "size": len(BY_DIGEST[each])} for each in parts]
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": entries[0], "layers": entries[1:]}
        raw = json.dumps(document).encode()
        for _ in range(5):
            for digest in parts:
                if self.ask("HEAD", f"blobs/{digest}")[0] != 200:
                    self.upload(digest)
            status, _, body = self.ask("PUT", f"manifests/{digests.of(raw)}", raw, MANIFEST)
            if status == 201:
                self.images[digests.of(raw)] = raw
                return
            assert b"MANIFEST_BLOB_UNKNOWN" in body
        raise AssertionError("blobs vanish faster than a push")

    def upload(self, digest: str) -> None:
        """Send a blob in one or two pieces, or mount it from a neighbour."""
        data, source = BY_DIGEST[digest], f"r{self._random.randrange(4)}"
        status, where, _ = self.ask("POST", f"blobs/uploads/?mount={digest}&from={source}", b"")
        if status == 201:
            return
        cut = self._random.randrange(len(data))
        if cut:
            status, where, _ = self.ask("PATCH", where, data[:cut])
            assert status == 202
        assert self.ask("PUT", f"{where}?digest={digest}", data[cut:])[0] == 201

    def verify(self, key: str = "") -> None:
        """Read an image in full."""
        if not self.images:
            return
        key = key or self._random.choice(sorted(self.images))
        status, _, raw = self.ask("GET", f"manifests/{key}")
        assert (status, raw) == (200, self.images[key])
        document = json.loads(raw)
        for part in (document["config"], *document["layers"]):
            status, _, data = self.ask("GET", f"blobs/{part['digest']}")
            assert (status, data) == (200, BY_DIGEST[part["digest"]])

    def delete(self) -> None:
        """Delete an image."""
        if len(self.images) > 3:
            key = self._random.choice(sorted(self.images))
            del self.images[key]
            assert self.ask("DELETE", f"manifests/{key}")[0] == 202

    def misbehave(self) -> None:
        """Do what uploads must not: wrong place, wrong digest, nothing more, or cancel; each has its answer."""
        _, where, _ = self.ask("POST", "blobs/uploads/", b"")
        wrong = digests.of(self._random.randbytes(8))
        asked, answer = self._random.choice(
            [
                (("PUT", f"{where}?digest={wrong}", b"x"), 400),
                (("PUT", f"{where}?digest=sha256:{'g' * 64}", b"x"), 400),
                (("DELETE", where, None), 204),
                (("GET", where, None), 204),
                (("PATCH", f"{where[:-32]}{'0' * 32}", b"x"), 404),
            ]
        )
        assert self.ask(*asked)[0] == answer
        assert self.ask("DELETE", where)[0] in (204, 404)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "x/y") -> tuple[int, str, bytes]:
        """Send a request; tell status, Location and body."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        with contextlib.closing(connection):
            path = path if path.startswith("/") else f"/v2/{self.name}/{path}"
            connection.request(method, path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Location", ""), answer.read()


@pytest.mark.timeout(120)
def test_every_image_survives_until_it_is_deleted(tmp_path: Path) -> None:
    """Four clients push, read, delete and misbehave while garbage goes; all images are whole, also after a kill."""
    with serving(tmp_path / "served") as address:
        clients = [Client(address, number) for number in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(SECONDS + 60)
        assert [client.error for client in clients] == [None] * 4
    assert min(client.done for client in clients) > 5
    with serving(tmp_path / "served") as address:
        for client in clients:
            client.address = address
            for key in client.images:
                client.verify(key)
