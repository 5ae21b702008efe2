"""A registry that misbehaves: a small server of our own says what real ones say on bad days, and worse."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from trivet.base.error import Corrupt, TrivetError
from trivet.engine.image.image import Images
from trivet.oci import digest as digests
from trivet.registry.auth import Credentials, challenges
from trivet.registry.client import RegistryClient
from trivet.registry.credential import stored_credentials
from trivet.registry.error import AccessDenied, LoginRequired, RegistryUnavailable
from trivet.registry.transport import PATIENCE, pause

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def a_layer() -> bytes:
    """Make a tar of a megabyte."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("file")
        info.size = 1 << 20
        archive.addfile(info, io.BytesIO(bytes(range(256)) * 4096))
    return buffer.getvalue()


LAYER = a_layer()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def descriptor(data: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": digests.of(data), "size": len(data)}


def an_image(layer: bytes) -> tuple[bytes, bytes]:
    """Make the configuration and the manifest of an image with one layer."""
    rootfs = {"type": "layers", "diff_ids": [digests.of(layer)]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar")],
    }
    return config, json.dumps(manifest).encode()


CONFIG, MANIFEST = an_image(LAYER)


class Registry:
    """Serves one image, `app:1`; `blob` may be replaced; what was asked is kept in `seen`."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.blob: Handler = self._blob
        self.gate: Callable[[web.Request], web.Response | None] = lambda request: None
        self.config, self.manifest = CONFIG, MANIFEST
        self.manifest_type = MANIFEST_TYPE

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        refused = self.gate(request)
        if refused is not None:
            return refused
        if request.path == "/v2/":
            return web.Response()
        if "/manifests/" in request.path:
            return web.Response(body=self.manifest, headers={"Content-Type": self.manifest_type})
        if digests.of(self.config) in request.path:
            return web.Response(body=self.config)
        return await self.blob(request)

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=LAYER)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async with serving(self.serve) as address:
            yield address


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve everything with one handler on loopback; yield host:port."""
    runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"{host}:{port}"
    finally:
        await runner.cleanup()


def pull(images: Images, registry: Registry) -> None:
    async def run() -> None:
        async with registry.running() as address:
            await images.pull(f"{address}/app:1", "linux/amd64")

    asyncio.run(run())


def left_over(images: Images) -> list[Path]:
    """What a failed pull must not leave: images, leases, half-written files."""
    assert images.list() == []
    assert images.leases.all() == []
    return list((images.content.root / "ingest").iterdir())


def test_broken_connection_is_resumed_at_the_byte(images: Images) -> None:
    """A blob that breaks off is asked for from where it stopped, and is whole in the end."""
    registry = Registry()

    async def blob(request: web.Request) -> web.StreamResponse:
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        response = web.StreamResponse(status=206 if start else 200)
        response.headers["Content-Range"] = f"bytes {start}-{len(LAYER) - 1}/{len(LAYER)}"
        response.content_length = len(LAYER) - start
        await response.prepare(request)
        await response.write(LAYER[start : start + 300_000])
        if start + 300_000 < len(LAYER):
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.close()
        return response

    registry.blob = blob
    pull(images, registry)
    starts = [each.headers["Range"] for each in registry.seen if "Range" in each.headers]
    assert int(starts[0].removeprefix("bytes=").removesuffix("-")) > 0
    images.content.verify(digests.of(LAYER))


def test_registry_without_ranges_begins_again(images: Images) -> None:
    """Where a registry ignores Range, the bytes already there are thrown away, not appended to."""
    registry = Registry()

    async def blob(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers:
            return web.Response(body=LAYER)
        response = web.StreamResponse()
        response.content_length = len(LAYER)
        await response.prepare(request)
        await response.write(LAYER[:1000])
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.close()
        return response

    registry.blob = blob
    pull(images, registry)
    images.content.verify(digests.of(LAYER))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (LAYER[:-1] + b"!", "corrupt: its digest is sha256:[0-9a-f]{64}, expected"),
        (LAYER + b"more", "is corrupt: it has .* bytes, expected"),
    ],
)
def test_wrong_blob_is_refused(images: Images, body: bytes, message: str) -> None:
    """A blob of other content or length is refused and nothing of it stays."""
    registry = Registry()

    async def blob(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body)

    registry.blob = blob
    with pytest.raises(Corrupt, match=message):
        pull(images, registry)
    assert left_over(images) == []


@pytest.mark.parametrize("layer", [b"no tar" * 1000, LAYER[:600_000]])
def test_a_layer_that_is_no_tar_is_refused(images: Images, layer: bytes) -> None:
    """A layer that is whole but can't be unpacked ends the pull with its name; there is no image then."""
    registry = Registry()
    registry.config, registry.manifest = an_image(layer)

    async def blob(request: web.Request) -> web.StreamResponse:
        return web.Response(body=layer)

    registry.blob = blob
    with pytest.raises(Corrupt, match=f"layer {digests.short(digests.of(layer))} cannot be unpacked: tar stream"):
        pull(images, registry)
    assert left_over(images) == []


def test_token_stays_with_its_registry(images: Images) -> None:
    """A redirect to another host gets the request but neither token nor password (CVE-2020-15157)."""
    registry = Registry()
    elsewhere: list[web.Request] = []

    async def storage(request: web.Request) -> web.StreamResponse:
        elsewhere.append(request)
        return web.Response(body=LAYER)

    async def run() -> None:
        async with serving(storage) as other, registry.running() as address:

            def gate(request: web.Request) -> web.Response | None:
                if request.path == "/token":
                    assert request.query["scope"] == "repository:app:pull"
                    return web.json_response({"token": "secret"})
                if request.headers.get("Authorization") == "Bearer secret":
                    return None
                challenge = f'Bearer realm="http://{address}/token",service="test",scope="repository:app:pull"'
                return web.Response(status=401, headers={"WWW-Authenticate": challenge})

            async def blob(request: web.Request) -> web.StreamResponse:
                raise web.HTTPTemporaryRedirect(f"http://localhost:{other.partition(':')[2]}/stolen")

            registry.gate, registry.blob = gate, blob
            await images.pull(f"{address}/app:1", "linux/amd64")

    asyncio.run(run())
    assert [each.headers.get("Authorization") for each in elsewhere] == [None]
    assert any(each.headers.get("Authorization") == "Bearer secret" for each in registry.seen)


def test_password_is_not_told_to_a_stranger_who_asks(images: Images) -> None:
    """A 401 from the host a redirect led to is not answered with the registry's credentials."""
    registry = Registry()
    elsewhere: list[web.Request] = []

    async def thief(request: web.Request) -> web.StreamResponse:
        elsewhere.append(request)
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="give"'})

    async def run() -> None:
        async with serving(thief) as other, registry.running() as address:

            def gate(request: web.Request) -> web.Response | None:
                if "/manifests/" in request.path:
                    return web.Response(status=307, headers={"Location": f"http://{other}/x"})
                return None

            registry.gate = gate
            async with RegistryClient(address, Credentials("user", "password")) as client:
                await client.manifest("app", "1")

    with pytest.raises(LoginRequired, match="wants a login for app"):
        asyncio.run(run())
    assert [each.headers.get("Authorization") for each in elsewhere] == [None]


def test_too_many_requests_waits_as_told(images: Images) -> None:
    """429 with Retry-After is tried again after that time; without end it becomes one clear sentence."""
    registry = Registry()
    answers = [429, 429, 200]

    def gate(request: web.Request) -> web.Response | None:
        if "/manifests/" in request.path and answers.pop(0) == 429:
            return web.Response(status=429, headers={"Retry-After": "0"})
        return None

    registry.gate = gate
    pull(images, registry)
    answers[:] = [429] * 10
    with pytest.raises(RegistryUnavailable, match="limits how often we may ask for app"):
        pull(images, registry)


@pytest.mark.parametrize(
    ("told", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("100000", PATIENCE, PATIENCE),
        (formatdate(time.time() + 86400, usegmt=True), PATIENCE, PATIENCE),
        (formatdate(time.time() - 86400, usegmt=True), 0, 0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0),
        ("soon", 2, 2),
        ("-1", 2, 2),
        ("", 2, 2),
    ],
    ids=["seconds", "now", "too long", "a day from now", "a day ago", "long ago", "a word", "negative", "nothing"],
)
def test_how_long_a_registry_is_waited_for(told: str, least: float, most: float) -> None:
    """Retry-After is a number of seconds or a date, and no longer than our patience; else it is twice the last time."""

    async def busy(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": told})

    async def run() -> float:
        async with serving(busy) as address, ClientSession() as session, session.get(f"http://{address}/") as answer:
            return pause(answer, 2)

    assert least <= asyncio.run(run()) <= most


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (401, b"", LoginRequired, "wants a login for app"),
        (403, b'{"errors":[{"code":"DENIED","message":"not \\u001b[31myours"}]}', AccessDenied, r"app: not \[31myours"),
        (500, b"<html>", RegistryUnavailable, "answers 500 for image app with tag 1"),
    ],
)
def test_refusals_name_registry_and_repository(
    images: Images, status: int, body: bytes, error: type[TrivetError], message: str
) -> None:
    """Each refusal is one sentence; a registry's own words are shown without control characters."""
    registry = Registry()
    registry.gate = lambda request: web.Response(status=status, body=body) if "/manifests/" in request.path else None
    with pytest.raises(error, match=message):
        pull(images, registry)
    assert left_over(images) == []


@pytest.mark.parametrize(
    ("manifest", "kind", "message"),
    [
        (MANIFEST, "application/vnd.oci.image.index.v1+json", "has the structure of another type"),
        (MANIFEST[:-1] + b',"manifests":[]}', MANIFEST_TYPE, "both an index and a manifest"),
        (b"{" + b" " * (5 << 20) + b"}", MANIFEST_TYPE, "manifest larger than 4 MiB"),
        (MANIFEST.replace(b"sha256:", b"sha999:"), MANIFEST_TYPE, "malformed: .*config.digest"),
    ],
)
def test_ambiguous_manifests_are_refused(images: Images, manifest: bytes, kind: str, message: str) -> None:
    """A manifest that is two things at once, or too large, or has no real digests, is refused."""
    registry = Registry()
    registry.manifest, registry.manifest_type = manifest, kind
    with pytest.raises(Corrupt, match=message):
        pull(images, registry)
    assert left_over(images) == []


def test_credentials_come_from_dockers_configuration(tmp_path: Path) -> None:
    """Docker's config.json is read for the registry asked for, and for no other."""
    auth = "dXNlcjpwYXNzOndvcmQ="  # user:pass:word
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"registry.test:5000": {"auth": auth}}}))
    assert stored_credentials("registry.test:5000", tmp_path) == Credentials("user", "pass:word")
    assert stored_credentials("registry.test", tmp_path) is None
    assert stored_credentials("registry.test:5000", tmp_path / "absent") is None


def test_challenges_are_taken_apart() -> None:
    """Several challenges in one header, quoted commas and escapes."""
    found = challenges('Bearer realm="https://a/t?x=1,2",service="a\\"b", Basic realm=simple')
    assert [each.scheme for each in found] == ["bearer", "basic"]
    assert found[0].parameters == {"realm": "https://a/t?x=1,2", "service": 'a"b'}
    assert found[1].parameters == {"realm": "simple"}
