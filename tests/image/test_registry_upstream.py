"""Our registry in front of others: images passed on and kept, and addresses nobody gets it to ask."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from tests.image.conftest import debian_registry, small_tar
from tests.image.served import trivet_registry

from trivet.engine.image.image import Images
from trivet.oci import digest as digests
from trivet.oci.descriptor import Descriptor
from trivet.registry.address import is_public
from trivet.registry.client import RegistryClient
from trivet.registry.error import NotInRegistry
from trivet.store.content import ContentStore

SECRET = b"the metadata service's password"
DIGEST = digests.of(SECRET)


def status(address: str, method: str, path: str, body: bytes | None = None) -> int:
    """Send a request; tell the status, 0 for an answer that broke off."""
    connection = http.client.HTTPConnection(address, timeout=10)
    with closing(connection):
        connection.request(method, path, body)
        answer = connection.getresponse()
        try:
            answer.read()
        except http.client.IncompleteRead:
            return 0
        return answer.status


@contextmanager
def cache(place: Path, location: str, fresh: float = 0, more: str = "") -> Iterator[str]:
    """Run a registry that passes on what `location` has."""
    place.mkdir(exist_ok=True)
    config = place / "c.toml"
    config.write_text(f'[[upstream]]\nprefix = "up"\nlocation = "{location}"\nfresh = {fresh}\n{more}')
    with trivet_registry(place / "root", "--config", str(config)) as address:
        yield address


@pytest.mark.needs("docker-registry")
def test_images_are_fetched_kept_and_served(
    images: Images, make_images: Callable[[str], Images], tmp_path: Path
) -> None:
    """What an upstream has is pulled through and stays when the upstream is gone; a moved tag is noticed."""
    first = images.import_(io.BytesIO(small_tar(data=os.urandom(3 << 20))), "one:1")
    second = images.import_(io.BytesIO(small_tar(data=b"two")), "two:1")
    with debian_registry(tmp_path / "debian") as upstream, cache(tmp_path / "cache", f"{upstream}/deep") as address:
        images.tag("one:1", f"{upstream}/deep/app:1")
        asyncio.run(images.push(f"{upstream}/deep/app:1"))

        async def together() -> list[str]:
            pulls = [make_images(f"p{number}").pull(f"{address}/up/app:1") for number in range(3)]
            return [each.digest for each in await asyncio.gather(*pulls)]

        assert asyncio.run(together()) == [first.digest] * 3
        images.tag("two:1", f"{upstream}/deep/app:1")
        asyncio.run(images.push(f"{upstream}/deep/app:1"))
        assert asyncio.run(make_images("later").pull(f"{address}/up/app:1")).digest == second.digest
        assert status(address, "POST", "/v2/up/app/blobs/uploads/", b"") == 403
        assert status(address, "PUT", "/v2/up/app/manifests/2", b"{}") == 403
        assert status(address, "GET", "/v2/up/none/manifests/1") == 404
        assert status(address, "GET", f"/v2/up/app/blobs/sha256:{'0' * 64}") == 404
        assert status(address, "GET", "/v2/elsewhere/app/manifests/1") == 404
    with cache(tmp_path / "cache", f"{upstream}/deep") as address:
        assert asyncio.run(make_images("alone").pull(f"{address}/up/app:1")).digest == second.digest
        assert asyncio.run(make_images("pinned").pull(f"{address}/up/app@{first.digest}")).digest == first.digest


class Hostile(http.server.BaseHTTPRequestHandler):
    """A registry that sends whoever asks for a blob to `target`; or, as the target, gives the secret away."""

    target = ""
    asked: list[str]

    def do_GET(self) -> None:
        """Answer."""
        type(self).asked.append(self.path)
        blob = "/blobs/" in self.path
        body = SECRET if blob and not self.target else b"{}"
        if blob and self.target.startswith("token:"):
            self.send_response(401)
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.target[6:]}/blobs/x",service="x"')
            body = b"{}"
        elif blob and self.target:
            self.send_response(307)
            self.send_header("Location", self.target + self.path)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def hostile(target: str = "") -> Iterator[tuple[str, list[str]]]:
    """Run such a server; yield its port and what it was asked."""
    kind = type("Server", (Hostile,), {"target": target, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield str(server.server_port), kind.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


SPELLINGS = ["127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433", "127.1"]


def test_an_upstream_cannot_send_it_into_the_private_network(tmp_path: Path) -> None:
    """A redirect or token service on this machine, however spelled, is refused before anything is asked there."""
    with ExitStack() as undo:
        port, asked = undo.enter_context(hostile())
        targets = [f"{way}http://{host}:{port}" for way in ("", "token:") for host in SPELLINGS]
        fronts = [undo.enter_context(hostile(target)) for target in targets]
        more = "".join(
            f'[[upstream]]\nprefix = "u{number}"\nlocation = "127.0.0.1:{front}"\n'
            for number, (front, _) in enumerate(fronts)
        )
        address = undo.enter_context(cache(tmp_path / "cache", "127.0.0.1:1", more=more))
        for number, (target, (_, seen)) in enumerate(zip(targets, fronts, strict=True)):
            assert status(address, "GET", f"/v2/u{number}/app/blobs/{DIGEST}") in (404, 502), target
            assert any("/blobs/" in path for path in seen)
        assert asked == []


def test_without_the_guard_the_attack_works(tmp_path: Path) -> None:
    """What the test above proves is the guard's work: a client without it gets the secret."""

    async def fetch(front: str, *, guarded: bool) -> str:
        part = Descriptor(media_type="x/y", digest=DIGEST, size=len(SECRET))
        async with RegistryClient(f"127.0.0.1:{front}", guarded=guarded) as client:
            assert await client.size("app", DIGEST) == len(SECRET)
            with ContentStore(tmp_path / "content").ingest(DIGEST) as ingest:
                await client.blob("app", part, ingest, lambda _: None)
            return ingest.digest

    with hostile() as (port, asked), hostile(f"http://127.0.0.1:{port}") as (front, _):
        assert asyncio.run(fetch(front, guarded=False)) == DIGEST
        assert asked != []
        with pytest.raises(Exception, match=r"it leads to 127\.0\.0\.1, which is not on the public internet"):
            asyncio.run(fetch(front, guarded=True))


def test_a_named_upstream_may_be_here_and_only_it(tmp_path: Path) -> None:
    """The administrator's own address is reached; content that isn't what its digest says isn't kept or passed on."""
    with hostile() as (port, _), cache(tmp_path / "cache", f"127.0.0.1:{port}") as address:
        assert status(address, "GET", f"/v2/up/app/blobs/{DIGEST}") == 200
        assert status(address, "GET", f"/v2/up/app/blobs/sha256:{'1' * 64}") == 0
        assert status(address, "HEAD", f"/v2/up/app/blobs/{DIGEST}") == 200
    blobs = tmp_path / "cache/root/content/blobs/sha256"
    assert [path.name for path in blobs.iterdir()] == [DIGEST.removeprefix("sha256:")]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("169.254.169.254", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("127.8.8.8", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00:ec2::254", False),
        ("::ffff:169.254.169.254", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("ff02::1", False),
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    """Every spelling of a private address is known for what it is."""
    assert is_public(address) is public


def test_not_found_is_told(tmp_path: Path) -> None:
    """Asking how long a missing blob is raises."""
    with trivet_registry(tmp_path / "r") as address:

        async def ask() -> None:
            async with RegistryClient(address) as client:
                await client.size("app", DIGEST)

        with pytest.raises(NotInRegistry):
            asyncio.run(ask())
