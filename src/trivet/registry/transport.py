"""Requests to one registry: scheme, proxy, authentication, redirects, patience.

Everything above this file sees answers with a final status, and `RegistryUnavailable` for the rest.
"""

from __future__ import annotations

import asyncio
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import parsedate_to_datetime

import aiohttp
import msgspec
from yarl import URL

from trivet.base.error import TrivetError
from trivet.registry import auth, certificate
from trivet.registry.address import Guard
from trivet.registry.answer import body_of, reason_of
from trivet.registry.auth import Challenge, Credentials, Token
from trivet.registry.certificate import is_local
from trivet.registry.credential import stored_credentials
from trivet.registry.error import LoginRequired, RegistryUnavailable
from trivet.registry.offer import offered

CONNECT = 5.0  # seconds until somebody has to answer
ANSWER = 6.0  # seconds until it has to have said that it is a registry
SILENCE = 15.0  # seconds without a byte
ATTEMPTS = 4
PATIENCE = 30.0  # longest Retry-After we wait for
REDIRECTS = 5
BUFFER = 1 << 20  # bytes of an answer that wait for whoever takes them; twice that at most
HOSTS = {"docker.io": "registry-1.docker.io"}
_BUSY = frozenset({429, 502, 503, 504})
_REDIRECT = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD = frozenset({307, 308})

Body = bytes | Callable[[], AsyncIterator[bytes]]
"""What is sent; of a stream, a function that begins it anew for each attempt."""


class Transport:
    """One registry's HTTP side. Async context manager.

    `scopes` are rights asked of a token service beyond what the registry's challenge names, for each
    repository: `repository:team/app:pull,push`. `insecure` allows plain http where https doesn't answer;
    `guarded` keeps redirects and token services out of private networks (`address`).
    """

    def __init__(
        self,
        domain: str,
        credentials: Credentials | None = None,
        scopes: tuple[str, ...] = (),
        *,
        insecure: bool = False,
        guarded: bool = False,
    ) -> None:
        self.domain = domain
        self._insecure = insecure
        self._guard = Guard(HOSTS.get(domain, domain)) if guarded else None
        self._credentials = credentials
        self._scopes = scopes
        self._authorization: dict[str, str] = {}
        self._base: URL | None = None

    async def __aenter__(self) -> Transport:
        if self._credentials is None:
            self._credentials = await offered(self.domain) or await asyncio.to_thread(stored_credentials, self.domain)
        self._tls = await asyncio.to_thread(certificate.context, self.domain)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, connect=CONNECT, sock_read=SILENCE)
        connector = aiohttp.TCPConnector(resolver=self._guard)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            headers={"User-Agent": "trivet"},
            read_bufsize=BUFFER,
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()

    async def ping(self) -> None:
        """Find out how the registry is spoken to, once: https, or plain http for this machine's own."""
        if self._base is not None:
            return
        failure: TrivetError | None = None
        for scheme in self._schemes():
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

    def _schemes(self) -> tuple[str, ...]:
        if is_local(self.domain):
            return ("https", "http") if self._tls else ("http", "https")
        return ("https", "http") if self._insecure else ("https",)

    @asynccontextmanager
    async def get(
        self, repository: str, path: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Request `/v2/REPOSITORY/PATH` and yield the answer, whatever its status but 401 and "try again later"."""
        async with self.request("GET", repository, await self.url(repository, path), headers) as answer:
            yield answer

    async def url(self, repository: str, path: str) -> URL:
        """Spell the address of `/v2/REPOSITORY/PATH`; `path` is percent-encoded already."""
        await self.ping()
        assert self._base is not None
        return self._base.join(URL(f"/v2/{repository}/{path}" if repository else f"/v2/{path}", encoded=True))

    def location(self, answer: aiohttp.ClientResponse) -> URL:
        """Read where an upload goes on. Raises `RegistryUnavailable` without an address, or with one less safe."""
        if "Location" not in answer.headers:
            raise RegistryUnavailable(self.domain, "it does not say where an upload goes on")
        return self._target(answer.url, answer.headers["Location"], answer.url.origin())

    @asynccontextmanager
    async def request(
        self,
        method: str,
        repository: str,
        url: URL,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request about a repository; as `get`. A PATCH isn't repeated: part of it may have been taken."""
        assert self._base is not None
        refused = 0
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            authorization = self._authorized(repository) if url.origin() == self._base.origin() else {}
            async with self._send(method, url, {**(headers or {}), **authorization}, body) as answer:
                if answer.status == 401 and not last:
                    await self._authenticate(repository, answer, again=refused > 0)
                    refused += 1
                elif answer.status in _BUSY and not last and method != "PATCH":
                    await asyncio.sleep(pause(answer, attempt))
                else:
                    yield answer
                    return

    @asynccontextmanager
    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and follow redirects; what isn't for another origin doesn't go there."""
        origin, sent = url.origin(), dict(headers)
        followed = _REDIRECT if method in ("GET", "HEAD") else _SAME_METHOD
        for _ in range(REDIRECTS):
            async with await self._request(method, url, sent, body) as response:
                if response.status not in followed or "Location" not in response.headers:
                    yield response
                    return
                url = self._target(url, response.headers["Location"], origin)
            if url.origin() != origin:
                sent.pop("Authorization", None)
        raise RegistryUnavailable(self.domain, f"it redirects more than {REDIRECTS} times")

    async def _request(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body | None
    ) -> aiohttp.ClientResponse:
        data = body() if callable(body) else body
        ours = self._tls is not None and (self._base is None or url.origin() == self._base.origin())
        tls = self._tls if ours and self._tls is not None else True
        proxy = _proxy(url)
        try:
            if self._guard:
                self._guard.check(url)
                if proxy:
                    self._guard.allow(URL(proxy))
            return await self._session.request(
                method, url, headers=headers, data=data, allow_redirects=False, proxy=proxy, ssl=tls
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RegistryUnavailable(self.domain, reason_of(error)) from error

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

    async def _authenticate(self, repository: str, answer: aiohttp.ClientResponse, *, again: bool = False) -> None:
        """Do what a 401 asks for. Raises `LoginRequired` if that isn't possible, or was done for this request."""
        found = {each.scheme: each for each in auth.challenges(answer.headers.get("WWW-Authenticate", ""))}
        if again or answer.url.origin() != (self._base or answer.url).origin():
            raise LoginRequired(self.domain, repository)
        if "bearer" in found:
            self._authorization[repository] = "Bearer " + await self._token(repository, found["bearer"])
        elif "basic" in found and self._credentials and not self._credentials.identity:
            self._authorization[repository] = self._credentials.basic()
        else:
            raise LoginRequired(self.domain, repository)

    async def _token(self, repository: str, challenge: Challenge) -> str:
        """Ask the token service for the rights we need; with our name if we have one, else anonymously."""
        realm = URL(challenge.parameters.get("realm", ""))
        assert self._base is not None
        if realm.scheme not in ("http", "https") or (realm.scheme == "http" and self._base.scheme == "https"):
            raise RegistryUnavailable(self.domain, "its token service has no https address")
        asked = challenge.parameters.get("scope") or (f"repository:{repository}:pull" if repository else "")
        query = {"scope": [scope for scope in dict.fromkeys((asked, *self._scopes)) if scope]}
        if "service" in challenge.parameters:
            query["service"] = [challenge.parameters["service"]]
        async with self._asking(realm, query) as answer:
            body = await body_of(answer, self.domain, 1 << 20)
            if answer.status in (401, 403):
                raise LoginRequired(self.domain, repository)
            if answer.status != 200:
                raise RegistryUnavailable(self.domain, f"its token service answers {answer.status}")
        try:
            token = msgspec.json.decode(body, type=Token)
        except msgspec.DecodeError as error:
            raise RegistryUnavailable(self.domain, f"its token service's answer is malformed: {error}") from error
        if token.refresh_token and self._credentials and self._credentials.identity:
            self._credentials = msgspec.structs.replace(self._credentials, identity=token.refresh_token)
        return token.token or token.access_token

    def _asking(self, realm: URL, query: dict[str, list[str]]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask a token service as who we are: by name and password, or by identity token in a form (RFC 6749, 6)."""
        who = self._credentials
        if not (who and who.identity):
            headers = {"Authorization": who.basic()} if who else {}
            return self._send("GET", realm.update_query(query), headers)
        form = {"grant_type": "refresh_token", "refresh_token": who.identity, "client_id": "trivet"}
        form |= {key: " ".join(values) for key, values in query.items()}
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._send("POST", realm, kind, urllib.parse.urlencode(form).encode())


def _proxy(url: URL) -> str | None:
    if is_local(url.authority) or urllib.request.proxy_bypass(url.authority):
        return None
    return urllib.request.getproxies().get(url.scheme)


def pause(answer: aiohttp.ClientResponse, attempt: int) -> float:
    """Wait as long as the registry says, in seconds or until a date (RFC 9110, 10.2.3), within reason."""
    text = answer.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return min(float(text), PATIENCE)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return float(0.5 * 2**attempt)
    return min(max(seconds, 0.0), PATIENCE)
