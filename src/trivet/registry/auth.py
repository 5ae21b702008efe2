"""Who we are to a registry: credentials from Docker's configuration, challenges, bearer tokens.

A token or password goes to the registry that asked for it and to the token service it named, and to
nobody else: the client drops it on every redirect to another origin (CVE-2020-15157).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from typing import Annotated

import msgspec

DOCKER_HUB_KEY = "https://index.docker.io/v1/"


class Credentials(msgspec.Struct, frozen=True):
    """A user name and a password."""

    user: str
    password: str

    def basic(self) -> str:
        """Spell the Authorization header for basic authentication."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What a 401 asks for: `scheme` in lower case, and its parameters."""

    scheme: str
    parameters: dict[str, str] = {}


class Token(msgspec.Struct, frozen=True):
    """A token service's answer."""

    token: str = ""
    access_token: str = ""


class _Entry(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""


class _DockerConfig(msgspec.Struct, frozen=True):
    auths: Annotated[dict[str, _Entry], msgspec.Meta(max_length=1000)] = {}


def stored_credentials(domain: str, directory: Path | None = None) -> Credentials | None:
    """Look a registry up in Docker's config.json; None if it isn't there or can't be read.

    Credential helpers are other people's programs; they are not run.
    """
    place = directory or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = msgspec.json.decode((place / "config.json").read_bytes(), type=_DockerConfig)
    except (OSError, msgspec.DecodeError):
        return None
    keys = [domain, f"https://{domain}", f"https://{domain}/", f"https://{domain}/v1/", f"https://{domain}/v2/"]
    for key in [DOCKER_HUB_KEY, *keys] if domain == "docker.io" else keys:
        if key in config.auths:
            return _credentials(config.auths[key])
    return None


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


def _credentials(entry: _Entry) -> Credentials | None:
    if entry.username:
        return Credentials(entry.username, entry.password)
    try:
        user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Credentials(user, password.rstrip("\0")) if colon else None
