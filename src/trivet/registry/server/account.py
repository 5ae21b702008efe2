"""Who may use the registry: an htpasswd file with bcrypt hashes, checked anew when it changes.

A check takes a good part of a second on purpose, so what was right is remembered (as a keyed hash, for
as long as the file stays), two checks run at a time, and a name nobody has takes as long as one that exists.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import secrets
from pathlib import Path

import bcrypt

from trivet.base.error import InvalidArgument
from trivet.registry.server.error import Code, Refusal

REMEMBERED = 1000
_LINE = re.compile(r"([^:\s][^:]{0,254}):(\$2[aby]\$\d\d\$[./A-Za-z0-9]{53})")


class Accounts:
    """The accounts of an htpasswd file. Raises `InvalidArgument` for one that can't be used."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, str] = {}
        self._slots = asyncio.Semaphore(2)
        self._stamp = _stamp(file)
        self._hashes = _read(file)
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10))

    async def hashed(self, user: str) -> bytes | None:
        """Find a user's hash; None for nobody."""
        await asyncio.to_thread(self._refresh)
        return self._hashes.get(user)

    async def check(self, header: str) -> tuple[str, bytes]:
        """Return whose name and password an Authorization header has, and the hash. Raises `Refusal`."""
        await asyncio.to_thread(self._refresh)
        mark = hmac.digest(self._key, header.encode(errors="replace"), hashlib.sha256)
        if known := self._right.get(mark):
            return known, self._hashes[known]
        user, password = _basic(header)
        hashed = self._hashes.get(user, self._nobody)
        async with self._slots:
            right = await asyncio.to_thread(_matches, password, hashed)
        if not right or user not in self._hashes:
            raise Refusal(Code.UNAUTHORIZED, "name or password is wrong")
        if self._hashes.get(user) != hashed:  # the file changed meanwhile
            raise Refusal(Code.UNAUTHORIZED, "name or password is wrong")
        if len(self._right) >= REMEMBERED:
            self._right.clear()
        self._right[mark] = user
        return user, hashed

    def _refresh(self) -> None:
        """Read the file again if it has changed; a broken one lets nobody in rather than whoever was in the last."""
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp, self._hashes = stamp, {}
        self._right.clear()
        self._hashes = _read(self._file)


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise InvalidArgument(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(file: Path) -> dict[str, bytes]:
    """Read `NAME:HASH` lines; comments and empty lines are passed over."""
    hashes: dict[str, bytes] = {}
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {file}: {error}") from error
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            hint = "write lines with htpasswd -B: NAME:$2y$..."
            raise InvalidArgument(f"{file}:{number}: not a name and a bcrypt hash", hint=hint)
        hashes[match[1]] = match[2].encode()
    return hashes


def _basic(header: str) -> tuple[str, bytes]:
    """Take `Basic ...` apart. Raises `Refusal`."""
    scheme, _, text = header.partition(" ")
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).partition(b":")
        if scheme.lower() == "basic" and colon:
            return user.decode(), password
    except (binascii.Error, ValueError):
        pass
    raise Refusal(Code.UNAUTHORIZED, "a login is needed")


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:  # over 72 bytes, which bcrypt would not look at
        return False
