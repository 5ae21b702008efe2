"""Who we are to a registry: credentials, challenges, bearer tokens.

A token or password goes to the registry that asked for it and to the token service it named, and to
nobody else: the client drops it on every redirect to another origin (CVE-2020-15157).
"""

from __future__ import annotations

import base64
import re

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """A user name and a password; or an identity token, a refresh token that a token service takes instead."""

    user: str
    password: str
    identity: str = ""

    def basic(self) -> str:
        """Spell the Authorization header for basic authentication."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What a 401 asks for: `scheme` in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str] = {}


class Token(msgspec.Struct, frozen=True):
    """A token service's answer; `refresh_token` takes the place of the identity token that was sent."""

    token: str = ""
    access_token: str = ""
    refresh_token: str = ""


def challenges(header: str) -> list[Challenge]:
    """Take a WWW-Authenticate header apart (RFC 9110, 11.6.1), as far as registries use it."""
    found: list[Challenge] = []
    for match in re.finditer(r'([A-Za-z][A-Za-z0-9_-]*)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+)))?', header[:4096]):
        word, quoted, bare = match.groups()
        if quoted is None and bare is None:
            found.append(Challenge(scheme=word.lower(), parameters={}))
        elif found:
            found[-1].parameters[word.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
    return found
