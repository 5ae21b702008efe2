"""Credentials on disk, where Docker keeps them: `config.json` in DOCKER_CONFIG or `~/.docker`.

A program `docker-credential-NAME` is asked where the configuration names one for the registry; it is
never given anything but the registry's name. What `login` stores goes into `auths`, as Docker does
without a helper; everything else in the file stays as it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Annotated, Any

import msgspec

from trivet.base.error import Corrupt
from trivet.registry.auth import Credentials

DOCKER_HUB_KEY = "https://index.docker.io/v1/"
TOKEN_USER = "<token>"  # what a helper calls a secret that is an identity token
HELPER_TIME = 10.0  # seconds a credential helper may take
HELPER_OUTPUT = 64 << 10
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class _Entry(msgspec.Struct, frozen=True):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _DockerConfig(msgspec.Struct, frozen=True, rename="camel"):
    auths: Annotated[dict[str, _Entry], msgspec.Meta(max_length=1000)] = {}
    cred_helpers: Annotated[dict[str, str], msgspec.Meta(max_length=1000)] = {}
    creds_store: str = ""


class _Helped(msgspec.Struct, frozen=True, rename="pascal"):
    username: str
    secret: str


def stored_credentials(domain: str, directory: Path | None = None) -> Credentials | None:
    """Look a registry up in Docker's configuration; None if it isn't there or can't be read. May run a helper."""
    try:
        config = msgspec.json.decode(_file(directory).read_bytes(), type=_DockerConfig)
    except (OSError, msgspec.DecodeError):
        return None
    keys = _keys(domain)
    for key in keys:
        if key in config.cred_helpers:
            return _ask(config.cred_helpers[key], key)
    for key in keys:
        if key in config.auths and (found := _credentials(config.auths[key])):
            return found
    return _ask(config.creds_store, keys[0]) if config.creds_store else None


def store(domain: str, credentials: Credentials, directory: Path | None = None) -> Path:
    """Remember credentials for a registry (mode 0600); tell in which file. Raises `Corrupt`, OSError."""
    text = base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
    file = _file(directory)
    document = _read(file)
    _auths(document, file)[_keys(domain)[0]] = {"auth": text}
    _write(file, document)
    return file


def forget(domain: str, directory: Path | None = None) -> bool:
    """Forget a registry's stored credentials; tell whether there were any. Raises `Corrupt`, OSError."""
    file = _file(directory)
    if not file.exists():
        return False
    document = _read(file)
    auths = _auths(document, file)
    gone = [key for key in _keys(domain) if auths.pop(key, None) is not None]
    if gone:
        _write(file, document)
    return bool(gone)


def _file(directory: Path | None) -> Path:
    return (directory or Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")) / "config.json"


def _keys(domain: str) -> list[str]:
    """List the spellings people and programs have used for a registry; the first is the one to write."""
    bare = [domain, f"https://{domain}", f"https://{domain}/", f"https://{domain}/v1/", f"https://{domain}/v2/"]
    return [DOCKER_HUB_KEY, *bare] if domain == "docker.io" else bare


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Corrupt(f"{file} is not JSON: {error}", hint="mend or remove it") from error
    if not isinstance(document, dict):
        raise Corrupt(f"{file} is not a JSON object", hint="mend or remove it")
    return document


def _auths(document: dict[str, Any], file: Path) -> dict[str, Any]:
    auths = document.setdefault("auths", {})
    if not isinstance(auths, dict):
        raise Corrupt(f"{file} is malformed: auths is not an object", hint="mend or remove it")
    return auths


def _write(file: Path, document: dict[str, Any]) -> None:
    """Replace the file, or what a link in its place leads to; `mkstemp` makes it for its owner only."""
    file = file.resolve()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".config.json.", dir=file.parent)
    fresh = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8") as output:  # noqa: PTH123 - a descriptor
            json.dump(document, output, indent="\t")
            output.flush()
            os.fsync(output.fileno())
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _credentials(entry: _Entry) -> Credentials | None:
    user, colon, password = entry.username, entry.username, entry.password
    if not user:
        try:
            user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
    if entry.identitytoken:
        return Credentials(user, "", entry.identitytoken)
    return Credentials(user, password.rstrip("\0")) if colon else None


def _ask(helper: str, key: str) -> Credentials | None:
    """Ask a credential helper; None when it knows nothing, fails, or takes too long."""
    if not _HELPER.fullmatch(helper):
        return None
    try:
        with tempfile.TemporaryFile() as output:
            command = [f"docker-credential-{helper}", "get"]
            subprocess.run(
                command,
                input=key.encode(),
                stdout=output,
                stderr=subprocess.DEVNULL,
                check=True,
                timeout=HELPER_TIME,
            )
            output.seek(0)
            found = msgspec.json.decode(output.read(HELPER_OUTPUT), type=_Helped)
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return None
    if found.username == TOKEN_USER:
        return Credentials("", "", found.secret)
    return Credentials(found.username, found.secret) if found.username else None
