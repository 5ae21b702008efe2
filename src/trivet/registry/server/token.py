"""Tokens, as the distribution project's token flow wants them: this server makes them and reads them.

A token names a user and what was asked for, never what is allowed: that is looked up at every request,
so that a right, a password or an account that is taken away is gone at once. Form: JSON Web Token,
HS256, with a key in ROOT/token.key. A token is tied to the password it was got with by `mark`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import time
from pathlib import Path

import msgspec

from trivet.oci import reference as references
from trivet.registry.server.right import Right

ACCESS = 300.0  # seconds
REFRESH = 90 * 86400.0
MOST_SCOPES = 50
_SCOPE = re.compile(r"repository(?:\([a-z0-9]+\))?:(?P<name>[^:]+):(?P<actions>[a-z*,]*)")
_HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token says. `access` are repositories with the rights asked for; `mark` belongs to the password."""

    sub: str
    exp: float
    iat: float
    mark: str = ""
    refresh: bool = False
    access: dict[str, tuple[Right, ...]] = {}


class Tokens:
    """Makes and reads the tokens of one registry."""

    def __init__(self, root: Path) -> None:
        self._key = _key(root / "token.key")

    def access(self, user: str, mark: str, scopes: list[str]) -> str:
        """Make a token for what some scopes ask for; what they ask for in vain is left out later."""
        return self._make(user, mark, ACCESS, access=parse_scopes(scopes))

    def refresh(self, user: str, mark: str) -> str:
        """Make an identity token, good for getting other tokens with."""
        return self._make(user, mark, REFRESH, refresh=True)

    def read(self, text: str, *, refresh: bool = False) -> Claims | None:
        """Read a token of ours that is still good and of the kind wanted."""
        body, _, signature = text.rpartition(".")
        if len(text) > 16384 or not hmac.compare_digest(self._sign(body), signature.encode(errors="replace")):
            return None
        try:
            claims = msgspec.json.decode(_decode(body.partition(".")[2]), type=Claims)
        except (binascii.Error, msgspec.DecodeError, ValueError):
            return None
        return claims if claims.refresh is refresh and claims.exp > time.time() else None

    def mark(self, hashed: bytes) -> str:
        """Name a password's hash so that tokens got with another don't count."""
        return hmac.digest(self._key, b"mark" + hashed, hashlib.sha256).hex()[:16]

    def _make(
        self,
        user: str,
        mark: str,
        seconds: float,
        *,
        refresh: bool = False,
        access: dict[str, tuple[Right, ...]] | None = None,
    ) -> str:
        now = time.time()
        claims = Claims(sub=user, exp=now + seconds, iat=now, mark=mark, refresh=refresh, access=access or {})
        body = f"{_HEADER}.{_encode(msgspec.json.encode(claims))}"
        return f"{body}.{self._sign(body).decode()}"

    def _sign(self, body: str) -> bytes:
        return _encode(hmac.digest(self._key, body.encode(errors="replace"), hashlib.sha256)).encode()


def parse_scopes(scopes: list[str]) -> dict[str, tuple[Right, ...]]:
    """Read `repository:NAME:pull,push`; what is spelled otherwise asks for nothing."""
    wanted: dict[str, set[Right]] = {}
    for scope in [word for text in scopes for word in text.split()][:MOST_SCOPES]:
        match = _SCOPE.fullmatch(scope)
        if match and references.PATH.fullmatch(match["name"]) and len(match["name"]) <= references.MAXIMUM_NAME:
            actions = match["actions"].split(",")
            mine = set(Right) if "*" in actions else {Right(each) for each in actions if each in set(Right)}
            wanted.setdefault(match["name"], set()).update(mine)
    return {name: tuple(sorted(rights)) for name, rights in wanted.items()}


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _key(file: Path) -> bytes:
    """Read the key, or make it; whoever has it is everybody."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        found = file.read_bytes()
        if len(found) == 32:
            return found
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)  # died while writing it
    made = secrets.token_bytes(32)
    with os.fdopen(descriptor, "wb") as output:
        output.write(made)
        output.flush()
        os.fsync(output.fileno())
    return made
