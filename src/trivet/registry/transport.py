"""Requests to one registry: scheme, proxy, authentication, redirects, patience.

Everything above this file sees answers with a final status, and `RegistryUnavailable` for the rest.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from yarl import URL

from trivet.base.error import TrivetError
from trivet.registry import auth
from trivet.registry.auth import Challenge, Credentials, Token
from trivet.registry.error import LoginRequired, RegistryUnavailable

CONNECT = 5.0  # seconds until somebody has to answer
ANSWER = 6.0  # seconds until it has to have said that it is a registry
SILENCE = 15.0  # seconds without a byte
ATTEMPTS = 4
PATIENCE = 30.0  # longest Retry-After we wait for
REDIRECTS = 5
HOSTS = {"docker.io": "registry-1.docker.io"}
_BUSY = frozenset({429, 502, 503, 504})
_REDIRECT = frozenset({301, 302, 303, 307, 308})


class Transport:
    """One registry's HTTP side. Async context manager."""

    def __init__(self, domain: str, credentials: Credentials | None = None) -> None:
        self.domain = domain
        self._credentials = credentials or auth.stored_credentials(domain)
        self._authorization: dict[str, str] = {}
        self._base: URL | None = None

    async def __aenter__(self) -> Transport:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, connect=CONNECT, sock_read=SILENCE)
        self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False, headers={"User-Agent": "trivet"})
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def ping(self) -> None:
        """Find out how the registry is spoken to, once: https, or plain http for this machine's own."""
        if self._base is not None:
            return
        failure: TrivetError | None = None
        for scheme in ("http", "https") if is_local(self.domain) else ("https",):
            base = URL(f"{scheme}://{HOSTS.get(self.domain, self.domain)}")
            try:
                async with asyncio.timeout(ANSWER), self._send("GET", base / "v2/", {}) as answer:
                    if answer.status in (200, 401, 403):
                        self._base = base
                        return
                    failure = RegistryUnavailable(self.domain, f"/v2/ answers {answer.status}, it is no registry")
            except TimeoutError:
                raise RegistryUnavailable(self.domain, f"not a word in {ANSWER:g} seconds") from None
            except TrivetError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    @asynccontextmanager
    async def get(
        self, repository: str, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Request `/v2/REPOSITORY/PATH` and yield the answer, whatever its status but 401 and "try again later"."""
        await self.ping()
        assert self._base is not None
        url = self._base.join(URL(f"/v2/{repository}/{path}", encoded=True))
        for attempt in range(ATTEMPTS):
            async with self._send("GET", url, {**(headers or {}), **self._authorized(repository)}) as answer:
                if answer.status == 401 and attempt < ATTEMPTS - 1:
                    await self._authenticate(repository, answer)
                elif answer.status in _BUSY and attempt < ATTEMPTS - 1:
                    await asyncio.sleep(_pause(answer, attempt))
                else:
                    yield answer
                    return

    async def body(self, answer: aiohttp.ClientResponse, limit: int) -> bytes:
        """Read a small body, at most `limit` bytes of it and one more."""
        body = bytearray()
        try:
            async for piece in answer.content.iter_chunked(1 << 16):
                body += piece
                if len(body) > limit:
                    return bytes(body[: limit + 1])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RegistryUnavailable(self.domain, _reason(error)) from error
        return bytes(body)

    @asynccontextmanager
    async def _send(self, method: str, url: URL, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and follow redirects; what isn't for another origin doesn't go there."""
        origin, sent = url.origin(), dict(headers)
        for _ in range(REDIRECTS):
            async with await self._request(method, url, sent) as response:
                if response.status not in _REDIRECT or "Location" not in response.headers:
                    yield response
                    return
                url = self._target(url, response.headers["Location"], origin)
            if url.origin() != origin:
                sent.pop("Authorization", None)
        raise RegistryUnavailable(self.domain, f"it redirects more than {REDIRECTS} times")

    async def _request(self, method: str, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        try:
            return await self._session.request(method, url, headers=headers, allow_redirects=False, proxy=_proxy(url))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RegistryUnavailable(self.domain, _reason(error)) from error

    def _target(self, url: URL, location: str, origin: URL) -> URL:
        """Tell where a redirect leads; never from https to something less, nor to what is no web address."""
        try:
            target = url.join(URL(location))
        except ValueError as error:
            raise RegistryUnavailable(self.domain, f"it redirects to a malformed address: {error}") from error
        if target.scheme not in ("http", "https") or (origin.scheme == "https" and target.scheme == "http"):
            raise RegistryUnavailable(self.domain, f"it redirects to {target.scheme}")
        return target

    def _authorized(self, repository: str) -> dict[str, str]:
        value = self._authorization.get(repository)
        return {"Authorization": value} if value else {}

    async def _authenticate(self, repository: str, answer: aiohttp.ClientResponse) -> None:
        """Do what a 401 asks for. Raises `LoginRequired` if that isn't possible, or was done already."""
        found = {each.scheme: each for each in auth.challenges(answer.headers.get("WWW-Authenticate", ""))}
        if repository in self._authorization or answer.url.origin() != (self._base or answer.url).origin():
            raise LoginRequired(self.domain, repository)
        if "bearer" in found:
            self._authorization[repository] = "Bearer " + await self._token(repository, found["bearer"])
        elif "basic" in found and self._credentials:
            self._authorization[repository] = self._credentials.basic()
        else:
            raise LoginRequired(self.domain, repository)

    async def _token(self, repository: str, challenge: Challenge) -> str:
        """Ask the token service for the right to pull; with our name if we have one, else anonymously."""
        realm = URL(challenge.parameters.get("realm", ""))
        assert self._base is not None
        if realm.scheme not in ("http", "https") or (realm.scheme == "http" and self._base.scheme == "https"):
            raise RegistryUnavailable(self.domain, "its token service has no https address")
        query = {"scope": challenge.parameters.get("scope") or f"repository:{repository}:pull"}
        if "service" in challenge.parameters:
            query["service"] = challenge.parameters["service"]
        headers = {"Authorization": self._credentials.basic()} if self._credentials else {}
        async with self._send("GET", realm.update_query(query), headers) as answer:
            body = await self.body(answer, 1 << 20)
            if answer.status in (401, 403):
                raise LoginRequired(self.domain, repository)
            if answer.status != 200:
                raise RegistryUnavailable(self.domain, f"its token service answers {answer.status}")
        try:
            token = msgspec.json.decode(body, type=Token)
        except msgspec.DecodeError as error:
            raise RegistryUnavailable(self.domain, f"its token service's answer is malformed: {error}") from error
        return token.token or token.access_token


def is_local(domain: str) -> bool:
    """Tell whether a registry is on this machine: plain http is fine then, and no proxy is asked."""
    host = domain[1:].partition("]")[0] if domain.startswith("[") else domain.partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _proxy(url: URL) -> str | None:
    host = url.host or ""
    if is_local(url.authority) or urllib.request.proxy_bypass(host):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _pause(answer: aiohttp.ClientResponse, attempt: int) -> float:
    """Wait as long as the registry says, within reason."""
    text = answer.headers.get("Retry-After", "")
    return min(float(text), PATIENCE) if text.isdigit() else 0.5 * 2**attempt


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, aiohttp.ClientConnectorError):
        code = error.os_error.errno
        return (os.strerror(code) if code and code > 0 else error.os_error.strerror or str(error.os_error)).lower()
    return str(error) or type(error).__name__
