"""Pushing to real registries: ours and Debian's docker-registry on loopback."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from tests.image.conftest import debian_registry, small_tar
from tests.image.relay import Relay
from tests.image.served import trivet_registry
from tests.image.test_registry import push as skopeo_push
from tests.image.test_registry import raw_manifest
from tests.image.test_registry_hostile import serving

from trivet.client.schema import Progress
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageNotFound, ImageRecord, Name
from trivet.oci import digest as digests
from trivet.oci.descriptor import Descriptor
from trivet.registry.auth import Credentials
from trivet.registry.credential import stored_credentials
from trivet.registry.error import LoginFailed, LoginRequired, RegistryUnavailable, UploadRefused
from trivet.registry.login import login, logout
from trivet.registry.push import Pusher

pytestmark = pytest.mark.needs("skopeo")

HTPASSWD = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"  # secret
MakeImages = Callable[[str], Images]


def push(images: Images, reference: str) -> tuple[str, dict[str, str]]:
    """Push; tell the digest, and how each blob went."""
    lines: list[Progress] = []
    digest = asyncio.run(images.push(reference, lines.append))
    return digest, {line.id: line.status for line in lines if line.id}


@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_digests_survive_pull_and_push(
    registry: str, images: Images, image: ImageRecord, make_images: MakeImages, tmp_path: Path, form: str
) -> None:
    """What is pulled, stored, pushed elsewhere and pulled again has the digests it began with, in both formats."""
    skopeo_push(images, "test/base:1", f"{registry}/team/app:1", tmp_path, form=form)
    first, second = make_images("first"), make_images("second")
    pulled = asyncio.run(first.pull(f"{registry}/team/app:1"))
    first.tag(f"{registry}/team/app:1", f"{registry}/other/copy:2")
    assert push(first, f"{registry}/other/copy:2")[0] == pulled.digest
    again = asyncio.run(second.pull(f"{registry}/other/copy:2"))
    assert (again.id, again.digest, again.manifest, again.layers) == (
        pulled.id,
        pulled.digest,
        pulled.manifest,
        pulled.layers,
    )
    assert raw_manifest(f"{registry}/other/copy:2") == raw_manifest(f"{registry}/team/app:1")


def test_only_what_is_missing_is_sent(registry: str, images: Images, image: ImageRecord) -> None:
    """A first push uploads, a second finds everything, one to a sister repository mounts it."""
    for name in ("a/app:1", "a/app:2", "b/app:1"):
        images.tag("test/base:1", f"{registry}/{name}")
    parts = {digests.short(image.id), *(digests.short(layer.digest) for layer in image.layers)}
    assert push(images, f"{registry}/a/app:1")[1] == dict.fromkeys(parts, "uploaded")
    assert push(images, f"{registry}/a/app:2")[1] == dict.fromkeys(parts, "exists")
    assert push(images, f"{registry}/b/app:1")[1] == dict.fromkeys(parts, "mounted")


def test_an_index_goes_whole_or_not_at_all(registry: str, images: Images, image: ImageRecord) -> None:
    """An index all of whose manifests are here is pushed byte for byte; else this platform's manifest alone."""
    manifest = images.content.read(image.manifest, limit=1 << 20)
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest, "size": len(manifest)}
    ours = {**entry, "platform": {"os": "linux", "architecture": image.platform.split("/")[1]}}
    foreign = {**ours, "digest": digests.of(b"elsewhere"), "platform": {"os": "linux", "architecture": "s390x"}}
    for tag, entries in {"whole": [ours], "holes": [ours, foreign]}.items():
        kind = "application/vnd.oci.image.index.v1+json"
        raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries, "x": [1, 2]}, indent=3).encode()
        name = Name(reference=f"{registry}/app:{tag}", digest=images.content.add(raw), manifest=image.manifest)
        images.catalog.add(image, [name])
        lines: list[Progress] = []
        digest = asyncio.run(images.push(f"{registry}/app:{tag}", lines.append))
        assert digest == (digests.of(raw) if tag == "whole" else image.manifest)
        assert any("other platforms are not here" in line.status for line in lines) == (tag == "holes")
    assert raw_manifest(f"{registry}/app:whole")["x"] == [1, 2]


def test_a_broken_upload_goes_on(registry: str, images: Images) -> None:
    """A connection cut in the middle of a layer costs time, not the push; where the registry can, it goes on there."""
    images.import_(io.BytesIO(small_tar(data=os.urandom(8 << 20))), "big:1")

    async def run() -> tuple[Relay, str]:
        relay = Relay(registry, 3 << 20)
        async with relay.running() as address:
            images.tag("big:1", f"{address}/app:1")
            return relay, await images.push(f"{address}/app:1")

    relay, digest = asyncio.run(run())
    assert relay.cuts == 0
    assert digest == images.find("big:1").digest
    assert raw_manifest(f"{registry}/app:1")["schemaVersion"] == 2


def test_an_upload_that_always_breaks_is_given_up(registry: str, images: Images) -> None:
    """A wire that never carries a whole piece: one sentence with registry, blob and repository, and no lease stays."""
    images.import_(io.BytesIO(small_tar(data=os.urandom(4 << 20))), "big:1")

    async def run() -> None:
        async with Relay(registry, 2000, cuts=1000).running() as address:
            images.tag("big:1", f"{address}/app:1")
            await images.push(f"{address}/app:1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trivet.registry.push.RETRIES", 2)
        with pytest.raises(RegistryUnavailable, match=r"registry 127.0.0.1:\d+ does not answer"):
            asyncio.run(run())
    assert images.leases.all() == []


def test_a_name_that_is_not_here(images: Images, image: ImageRecord) -> None:
    """Pushing a name no image has says how to give it one."""
    with pytest.raises(ImageNotFound, match="no such image: localhost:1/none:latest") as caught:
        asyncio.run(images.push("localhost:1/none"))
    assert caught.value.hint == "give it the name to push first: trivet tag IMAGE localhost:1/none:latest"


@pytest.fixture(params=["trivet", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))])
def closed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A registry that wants a login: user, secret."""
    if request.param == "debian":
        with debian_registry(tmp_path, htpasswd=HTPASSWD) as address:
            yield address
        return
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    with trivet_registry(tmp_path / "served", "--htpasswd", str(tmp_path / "htpasswd")) as address:
        yield address


def test_login_opens_a_closed_registry(
    closed: str, images: Images, image: ImageRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without login a push is refused with the next command; with one it works; the file is for its owner only."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    images.tag("test/base:1", f"{closed}/app:1")
    with pytest.raises(LoginRequired, match=f"registry {closed} wants a login for app") as caught:
        push(images, f"{closed}/app:1")
    assert caught.value.hint == f"trivet login {closed}"
    with pytest.raises(LoginFailed, match=f"registry {closed} does not accept the password of user"):
        asyncio.run(login(closed, Credentials("user", "wrong")))
    assert not (tmp_path / "docker").exists()
    file = Path(asyncio.run(login(f"http://{closed}/", Credentials("user", "secret"))))
    assert file.stat().st_mode & 0o777 == 0o600
    assert push(images, f"{closed}/app:1")[0] == image.digest
    assert asyncio.run(logout(closed))
    assert not asyncio.run(logout(closed))
    with pytest.raises(LoginRequired):
        push(images, f"{closed}/app:1")


def test_login_leaves_the_rest_of_the_file(tmp_path: Path) -> None:
    """What else is in Docker's configuration stays; a broken file is refused, not replaced."""
    from trivet.base.error import Corrupt
    from trivet.registry.credential import forget, store

    file = tmp_path / "config.json"
    before = {"auths": {"other:5000": {"auth": "eDp5"}}, "psFormat": "table", "credHelpers": {"a.test": "x"}}
    file.write_text(json.dumps(before))
    store("r.test:5000", Credentials("user", "pass:word"), tmp_path)
    assert stored_credentials("r.test:5000", tmp_path) == Credentials("user", "pass:word")
    assert forget("r.test:5000", tmp_path)
    assert json.loads(file.read_text()) == before
    file.write_text("{")
    with pytest.raises(Corrupt, match="is not JSON"):
        store("r.test:5000", Credentials("user", "x"), tmp_path)
    assert file.read_text() == "{"


def test_credential_helpers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper named for the registry is asked with the registry's name; a slow, silent or odd one gives nothing."""
    program = tmp_path / "docker-credential-test"
    program.write_text(
        '#!/bin/sh\nread -r server\n[ "$1" = get ] && [ "$server" = slow.test ] && exec sleep 30\n'
        'printf \'{"ServerURL":"%s","Username":"me","Secret":"of-%s"}\' "$server" "$server"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("trivet.registry.credential.HELPER_TIME", 0.5)
    helpers = {"r.test": "test", "slow.test": "test", "odd.test": "../../bin/sh", "none.test": "absent"}
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": helpers}))
    assert stored_credentials("r.test", tmp_path) == Credentials("me", "of-r.test")
    assert [stored_credentials(each, tmp_path) for each in ("slow.test", "odd.test", "none.test", "x.test")] == [
        None
    ] * 4
    (tmp_path / "config.json").write_text(json.dumps({"credsStore": "test"}))
    assert stored_credentials("y.test", tmp_path) == Credentials("me", "of-y.test")


def test_a_token_for_pushing_names_every_repository() -> None:
    """The token service is asked for the rights to push here and to mount from there; a token that ends is renewed."""
    scopes: list[list[str]] = []
    served: list[int] = []  # the first token is good for one request only

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            scopes.append(request.query.getall("scope"))
            return web.json_response({"token": f"t{len(scopes)}"})
        if request.path == "/v2/":
            return web.Response()
        if request.headers.get("Authorization") == f"Bearer t{len(scopes)}" and len(served) < len(scopes):
            served.append(len(scopes))
            return web.Response(status=201)
        challenge = f'Bearer realm="http://{request.host}/token",service="x",scope="repository:a:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async def run() -> None:
        async with serving(handler) as address, Pusher(address, "a", sources=["b"]) as pusher:
            for _ in range(2):
                await pusher.manifest(b"{}", "text/plain", "1")

    asyncio.run(run())
    assert [each for each in scopes if each] == [
        ["repository:a:pull", "repository:a:pull,push", "repository:b:pull"]
    ] * 2


def test_a_refusal_has_the_registrys_words(images: Images) -> None:
    """A registry that doesn't take a manifest is quoted, without control characters."""

    async def handler(request: web.Request) -> web.StreamResponse:
        body = msgspec.json.encode({"errors": [{"code": "MANIFEST_INVALID", "message": "too \x1b[31mold"}]})
        return web.Response(status=400 if "manifests" in request.path else 200, body=body)

    async def run() -> None:
        async with serving(handler) as address, Pusher(address, "app") as pusher:
            await pusher.manifest(b"{}", "text/plain", "1")

    with pytest.raises(UploadRefused, match=r"registry \S+ refuses manifest 1 of app: too \[31mold"):
        asyncio.run(run())


def test_an_upload_elsewhere_gets_no_token() -> None:
    """Where an upload's address is another host's, the bytes go there but neither token nor password."""
    seen: list[web.Request] = []

    async def storage(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        await request.read()
        return web.Response(status=201)

    async def run() -> None:
        async with serving(storage) as other:

            async def handler(request: web.Request) -> web.StreamResponse:
                if request.method == "HEAD":
                    return web.Response(status=404)
                if request.path != "/v2/" and "Authorization" not in request.headers:
                    return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
                place = f"http://localhost:{other.partition(':')[2]}/put?signature=1"
                return web.Response(status=200 if request.method == "GET" else 202, headers={"Location": place})

            blob = Descriptor(media_type="x/y", digest=digests.of(b"data"), size=4)
            async with serving(handler) as address, Pusher(address, "app", Credentials("user", "secret")) as pusher:
                assert await pusher.blob(blob, lambda: io.BytesIO(b"data"), lambda count: None) == "uploaded"

    asyncio.run(run())
    assert [each.headers.get("Authorization") for each in seen] == [None]
    assert seen[0].query == {"signature": "1", "digest": digests.of(b"data")}
