"""The way to a registry: through proxies, and past token services that take identity tokens."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from tests.image.served import trivet_registry

from trivet.base.error import TrivetError
from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.registry import certificate
from trivet.registry.error import RegistryUnavailable

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Answer HTTP on loopback, with `tls` over that; yield HOST:PORT."""
    server = web.Server(answer)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def passed_on(request: web.BaseRequest, target: str, leave_out: str) -> web.Response:
    """Pass a request on to a registry, without one header."""
    headers = {key: value for key, value in request.headers.items() if key.lower() not in ("host", leave_out)}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.request(request.method, target, headers=headers, data=await request.read()) as response,
    ):
        kept = {key: value for key, value in response.headers.items() if key.lower() != "transfer-encoding"}
        return web.Response(status=response.status, headers=kept, body=await response.read())


@pytest.fixture
def source(images: Images, image: ImageRecord, tmp_path: Path) -> Iterator[str]:
    """A registry that has app:1."""
    with trivet_registry(tmp_path / "served") as registry:
        images.tag("test/base:1", f"{registry}/app:1")
        asyncio.run(images.push(f"{registry}/app:1"))
        yield registry


def test_through_a_proxy(
    source: str, make_images: Callable[[str], Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY and HTTPS_PROXY are gone through, with the name and password they hold; NO_PROXY is not."""
    puller, lines = make_images("puller"), []
    (tmp_path / "registries.conf").write_text('[[registry]]\nprefix = "far.test:5000"\ninsecure = true\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))

    async def proxy(request: web.BaseRequest) -> web.Response:
        lines.append((request.method, str(request.url.host), request.headers.get("Proxy-Authorization", "")))
        if request.method == "CONNECT":
            return web.Response(status=502)
        return await passed_on(request, f"http://{source}{request.rel_url}", "proxy-authorization")

    async def pull() -> None:
        async with serving(proxy) as address:
            for scheme in ("HTTP", "HTTPS"):
                monkeypatch.delenv(f"{scheme}_PROXY", raising=False)
                monkeypatch.setenv(f"{scheme.lower()}_proxy", f"http://me:secret@{address}")
            for no in ("far.test", "far.test:5000", ".test", "*"):
                monkeypatch.setenv("no_proxy", no)
                with pytest.raises(TrivetError, match=r"far\.test:5000"):
                    await puller.pull("far.test:5000/app:1")
            assert lines == []
            monkeypatch.setenv("no_proxy", "near.test,127.0.0.1")
            await puller.pull("far.test:5000/app:1")

    asyncio.run(pull())
    assert {method for method, _, _ in lines} == {"CONNECT", "GET"}
    assert {host for method, host, _ in lines if method == "GET"} == {"far.test"}
    assert {word for _, _, word in lines} == {"Basic " + base64.b64encode(b"me:secret").decode()}


def test_an_identity_token_is_taken(
    source: str, make_images: Callable[[str], Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An identity token goes to the token service in a form, as OAuth2 has it, never to the registry itself."""
    puller, forms = make_images("puller"), []

    async def front(request: web.BaseRequest) -> web.Response:
        if request.path == "/token":
            assert request.method == "POST"
            form = await request.post()
            forms.append(dict(form))
            if form.get("refresh_token") not in ("first", "second"):
                return web.Response(status=401)
            return web.json_response({"access_token": "good", "refresh_token": "second"})
        told = request.headers.get("Authorization", "")
        assert told in ("", "Bearer good")
        if not told:
            place = f'Bearer realm="http://{request.host}/token",service="test"'
            return web.Response(status=401, headers={"WWW-Authenticate": place})
        return await passed_on(request, f"http://{source}{request.rel_url}", "authorization")

    async def pull(token: str, entry: dict[str, str]) -> None:
        async with serving(front) as address:
            directory = tmp_path / token
            directory.mkdir()
            (directory / "config.json").write_text(json.dumps({"auths": {address: {**entry, "identitytoken": token}}}))
            monkeypatch.setenv("DOCKER_CONFIG", str(directory))
            await puller.pull(f"{address}/app:1")

    user = {"auth": base64.b64encode(b"me:").decode()}
    for token, entry in (("first", user), ("second", {})):
        asyncio.run(pull(token, entry))
    assert {form["grant_type"] for form in forms} == {"refresh_token"}
    assert {"service": "test", "scope": "repository:app:pull"}.items() <= forms[-1].items()
    with pytest.raises(TrivetError, match="log"):
        asyncio.run(pull("stale", user))


def test_a_helpers_identity_token_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper says with the user name `<token>` that its secret is an identity token."""
    from trivet.registry.auth import Credentials
    from trivet.registry.credential import stored_credentials

    helper = tmp_path / "docker-credential-mine"
    helper.write_text('#!/bin/sh\necho \'{"Username": "<token>", "Secret": "abc"}\'\n')
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "mine"}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert stored_credentials("far.test", tmp_path) == Credentials("", "", "abc")


def certify(place: Path, name: str) -> Path:
    """Make a certificate for this machine that vouches for itself, `name.cert` with `name.key`."""
    file = place / f"{name}.cert"
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    words: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        *names,
    ]
    subprocess.run(
        [*words, "-nodes", "-days", "1", "-keyout", file.with_suffix(".key"), "-out", file],
        check=True,
        capture_output=True,
    )
    return file


@pytest.mark.needs("openssl")
def test_a_registry_that_wants_to_know_who_asks(
    source: str, make_images: Callable[[str], Images], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate beside a registry's authority is shown to it; without, or with another one, it lets nobody in."""
    puller, place = make_images("puller"), tmp_path / "certs.d"
    server, client, stranger = (certify(tmp_path, name) for name in ("server", "client", "stranger"))
    monkeypatch.setattr(certificate, "DIRECTORIES", (place,))
    shown: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        who = request.get_extra_info("peercert")
        shown.append(dict(field[0] for field in who["subject"])["commonName"])
        return await passed_on(request, f"http://{source}{request.rel_url}", "x-none")

    async def run() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(client))
        tls.load_cert_chain(server, server.with_suffix(".key"))
        tls.verify_mode = ssl.CERT_REQUIRED
        async with serving(answer, tls) as address:
            ours = place / address
            ours.mkdir(parents=True)
            (ours / "ca.crt").write_bytes(server.read_bytes())
            for who in (None, stranger, client):
                for suffix in (".cert", ".key"):
                    if who:
                        (ours / f"client{suffix}").write_bytes(who.with_suffix(suffix).read_bytes())
                if who is client:
                    break
                with pytest.raises(RegistryUnavailable, match="does not answer"):
                    await puller.pull(f"{address}/app:1")
            assert shown == []
            await puller.pull(f"{address}/app:1")

    asyncio.run(run())
    assert set(shown) == {"client"}
