"""Who is asking, and may they: accounts, tokens and rights, before a handler sees the request.

A name and password is taken with every request, or once for a token at /token (the distribution
project's token flow: GET, and POST as OAuth 2 has it). Nobody's name is accepted for what a token of his
didn't ask for; and nothing is allowed that the rights don't allow now.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Protocol

import msgspec
from aiohttp import web

from trivet.registry.server.account import Accounts
from trivet.registry.server.error import Code, Refusal
from trivet.registry.server.policy import PolicyFile
from trivet.registry.server.right import Right, Rights
from trivet.registry.server.route import Resource, Target
from trivet.registry.server.token import ACCESS, Tokens

SERVICE = "trivet-registry"
LONGEST_FORM = 64 << 10

NEEDED: dict[tuple[Resource, str], Right] = {
    **{(resource, method): Right.PULL for resource in Resource for method in ("GET", "HEAD")},
    **{(Resource.UPLOAD, method): Right.PUSH for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE")},
    (Resource.UPLOADS, "POST"): Right.PUSH,
    (Resource.MANIFEST, "PUT"): Right.PUSH,
    (Resource.MANIFEST, "DELETE"): Right.DELETE,
    (Resource.BLOB, "DELETE"): Right.DELETE,
}
"""What a request takes; a method that isn't here isn't answered differently for anybody."""


class Caller(Protocol):
    """Whoever made a request."""

    @property
    def user(self) -> str:
        """The name; "" without a login."""

    def may(self, right: Right, repository: str) -> bool:
        """Tell whether this request may do something to a repository."""

    def user_may_see(self, repository: str) -> bool:
        """Tell whether a repository is on this caller's list, whatever a token was made for."""


class Everybody:
    """The caller where nobody is asked for a name."""

    user = ""

    def may(self, right: Right, repository: str) -> bool:
        """Allow everything."""
        return True

    def user_may_see(self, repository: str) -> bool:
        """Show everything."""
        return True


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A caller with what the rights say of him, and, of a token, what it was made for."""

    user: str
    rights: Rights
    access: dict[str, tuple[Right, ...]] | None = None
    presented: bool = True  # a password or token came with the request

    def asked(self, right: Right, repository: str) -> bool:
        """Tell whether the token, if it is one, was made for this."""
        return self.access is None or right in self.access.get(repository, ())

    def may(self, right: Right, repository: str) -> bool:
        """Tell whether it was asked for and is allowed."""
        return self.asked(right, repository) and right in self.rights.of(self.user, repository)

    def user_may_see(self, repository: str) -> bool:
        """Tell whether the user may pull from a repository."""
        return Right.PULL in self.rights.of(self.user, repository)


class Gate:
    """Lets requests of known callers in. Without accounts and rights everybody is."""

    def __init__(self, accounts: Accounts | None, policy: PolicyFile, tokens: Tokens) -> None:
        self._accounts = accounts
        self._policy = policy
        self._tokens = tokens

    async def admit(self, request: web.Request, target: Target) -> Caller:
        """Find out who asks and refuse what isn't allowed. Raises `Refusal`."""
        policy = await asyncio.to_thread(self._policy.current)
        if self._accounts is None and not policy.allow:
            return Everybody()
        rights, right = policy.rights(), NEEDED.get((target.resource, request.method), Right.PUSH)
        caller = await self._caller(request, rights, _scope(target, right))
        if target.resource in (Resource.API, Resource.CATALOG):
            if not caller.presented:
                raise _challenge(request, "", "a login is needed")
        elif not caller.asked(right, target.name):
            raise _challenge(request, _scope(target, right), "the token is for something else", "insufficient_scope")
        elif not caller.may(right, target.name):
            if not caller.user:
                raise _challenge(request, _scope(target, right), "a login is needed")
            raise Refusal(Code.DENIED, f"{caller.user} may not {right} in {target.name}")
        return caller

    async def _caller(self, request: web.Request, rights: Rights, scope: str) -> Known:
        header = request.headers.get("Authorization", "")
        scheme, _, text = header.partition(" ")
        if not header:
            return Known(user="", rights=rights, presented=False)
        if scheme.lower() == "bearer":
            claims = self._tokens.read(text.strip())
            if claims is None or not await self._stands(claims.sub, claims.mark):
                raise _challenge(request, scope, "the token is not good any more", "invalid_token")
            return Known(user=claims.sub, rights=rights, access=claims.access)
        try:
            user, _ = await self._account(header)
        except Refusal as refusal:
            raise _challenge(request, scope, refusal.message) from refusal
        return Known(user=user, rights=rights)

    async def _account(self, header: str) -> tuple[str, bytes]:
        if self._accounts is None:
            raise Refusal(Code.UNAUTHORIZED, "name or password is wrong")
        return await self._accounts.check(header)

    async def _stands(self, user: str, mark: str) -> bool:
        """Tell whether a token's user still has the password that it was got with."""
        if not user:
            return True
        hashed = await self._accounts.hashed(user) if self._accounts else None
        return hashed is not None and self._tokens.mark(hashed) == mark

    async def token(self, request: web.Request) -> web.Response:
        """Answer a request for a token, by GET with a name and password or none, or by POST as OAuth 2."""
        if request.method == "GET":
            header, asked = request.headers.get("Authorization", ""), request.query
            wants_refresh = asked.get("offline_token") == "true"
        elif request.method == "POST":
            if (request.content_length or LONGEST_FORM + 1) > LONGEST_FORM:
                raise Refusal(Code.SIZE_INVALID, "the form is too long", status=413)
            asked = await request.post()  # type: ignore[assignment]
            header, wants_refresh = "", asked.get("access_type") == "offline"
        else:
            raise Refusal(Code.UNSUPPORTED, "tokens are asked for by GET or POST", headers={"Allow": "GET, POST"})
        form = {key: value for key, value in asked.items() if isinstance(value, str)}
        user, mark = await self._who(request, header, form)
        scopes = [value for value in asked.getall("scope", []) if isinstance(value, str)]
        text = self._tokens.access(user, mark, scopes)
        body = {"token": text, "access_token": text, "expires_in": int(ACCESS), "scope": " ".join(scopes)[:4096]}
        if wants_refresh and user:
            body["refresh_token"] = self._tokens.refresh(user, mark)
        return web.json_response(body, headers={"Cache-Control": "no-store"})

    async def _who(self, request: web.Request, header: str, form: dict[str, str]) -> tuple[str, str]:
        if form.get("grant_type") == "refresh_token":
            claims = self._tokens.read(form.get("refresh_token", ""), refresh=True)
            if claims is None or not await self._stands(claims.sub, claims.mark):
                raise Refusal(Code.UNAUTHORIZED, "the identity token is not good any more")
            return claims.sub, claims.mark
        if form.get("grant_type") == "password":
            header = _basic(form.get("username", ""), form.get("password", ""))
        elif request.method == "POST":
            raise Refusal(Code.UNSUPPORTED, "grant_type is neither password nor refresh_token", status=400)
        if not header:
            return "", ""
        user, hashed = await self._account(header)
        return user, self._tokens.mark(hashed)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _scope(target: Target, right: Right) -> str:
    if target.resource is Resource.CATALOG:
        return "registry:catalog:*"
    if target.resource is Resource.API:
        return ""
    return f"repository:{target.name}:{'pull,push' if right is Right.PUSH else right}"


def _challenge(request: web.Request, scope: str, message: str, error: str = "") -> Refusal:
    """Say where a token is to be had; the address is the one the client itself has used."""
    host = request.host if all(letter.isalnum() or letter in ".:-[]" for letter in request.host) else "localhost"
    header = f'Bearer realm="{request.scheme}://{host}/token",service="{SERVICE}"'
    header += f',scope="{scope}"' if scope else ""
    header += f',error="{error}"' if error else ""
    return Refusal(Code.UNAUTHORIZED, message, headers={"WWW-Authenticate": header})
