"""Our registry under everything at once: pushes, pulls, deletions, broken uploads, collections, and kills.

`python -m tests.image.storm --minutes 60` goes on for an hour, with a kill -9 in the middle of the work every
few seconds; the test does a little of it.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trivet.oci import digest as digests

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
KEEP = 40  # images a client keeps, about
POOL = [bytes([number]) * (1 + number * 997) for number in range(60)]  # what images are made of; shared by all
BY_DIGEST = {digests.of(blob): blob for blob in POOL}


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """Run a registry that collects garbage all the time and gives little grace; kill it at the end."""
    options = ["--listen", "127.0.0.1:0", "--collect-every", "1s", "--grace", "1s", "--insecure"]
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

    def __init__(self, address: str, number: int, seed: int) -> None:
        super().__init__()
        self.name = f"r{number}"
        self.images: dict[str, bytes] = {}
        self.done = 0
        self.error: BaseException | None = None
        self.address = address
        self.doubtful: set[str] = set()  # what was being changed when the registry died
        self.dying = threading.Event()
        self._random = random.Random(seed)

    def run(self) -> None:
        """Do one thing after the other, until the registry is killed or something is wrong."""
        try:
            while not self.dying.is_set():
                choices = [self.push, self.push, self.verify, self.delete, self.misbehave]
                action = self._random.choice(choices if len(self.images) < KEEP else [self.verify, self.delete])
                action()
                self.done += 1
        except (OSError, http.client.HTTPException) as error:
            self.error = None if self.dying.is_set() else error
        except BaseException as error:
            self.error = error

    def verify_all(self) -> int:
        """Read every image; what was being changed at the kill may be there or not. Tell how many there are."""
        for key in sorted(self.doubtful):
            status, _, raw = self.ask("GET", f"manifests/{key}")
            if status == 200:
                assert digests.of(raw) == key
                self.images[key] = raw
            else:
                self.images.pop(key, None)
        self.doubtful.clear()
        for key in self.images:
            self.verify(key)
        return len(self.images)

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
            self.doubtful.add(digests.of(raw))
            status, _, body = self.ask("PUT", f"manifests/{digests.of(raw)}", raw, MANIFEST)
            self.doubtful.discard(digests.of(raw))
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
            self.doubtful.add(key)
            assert self.ask("DELETE", f"manifests/{key}")[0] == 202
            self.doubtful.discard(key)
            del self.images[key]

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


class Report(NamedTuple):
    """What a storm came to."""

    kills: int
    actions: int
    images: int
    read: int


def storm(root: Path, seconds: float, *, turn: float = 10.0, seed: int = 0) -> Report:
    """Work, kill, start again and read every image, until the time is over. Raises what a client saw go wrong."""
    chance, end = random.Random(seed), time.monotonic() + seconds
    known: list[Client] = []
    kills = actions = read = 0
    while time.monotonic() < end:
        with serving(root) as address:
            clients = [Client(address, number, chance.getrandbits(32)) for number in range(4)]
            for client, old in zip(clients, known, strict=False):
                client.images, client.doubtful = old.images, old.doubtful
                read += client.verify_all()
            for client in clients:
                client.start()
            time.sleep(min(turn * (0.5 + chance.random()), max(0.5, end - time.monotonic())))
            for client in clients:
                client.dying.set()
        for client in clients:
            client.join(60)
        known, kills, actions = clients, kills + 1, actions + sum(client.done for client in clients)
        if wrong := [client.error for client in clients if client.error]:
            raise wrong[0]
    with serving(root) as address:
        for client in known:
            client.address = address
        images = sum(client.verify_all() for client in known)
    return Report(kills, actions, images, read + images)


def main() -> None:
    """Storm for so many minutes and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="trivet-storm") as place:
        done = storm(Path(place) / "served", args.minutes * 60, seed=args.seed)
    print(f"{done.actions} actions, {done.kills} kills, {done.read} images read whole after kills, {done.images} left")


if __name__ == "__main__":
    main()
