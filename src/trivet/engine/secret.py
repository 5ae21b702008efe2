"""Secrets: small files that instances are given, and nobody is shown.

    ROOT/secret/ID              the content, 0600
    STATE/secret/N              an instance's N-th, with its owner and mode, there while the instance runs

No answer, record, plan or log holds a content; what a secret is called, and who uses it, is no secret.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from trivet.base.error import AlreadyExists, Conflict, InvalidArgument, NotFound
from trivet.base.identity import new_id
from trivet.client.schema import SecretGrant
from trivet.client.schema_secret import Secret, SecretRequest
from trivet.isolation.plan import Mount
from trivet.store.record import Records

LARGEST = 500 << 10
PLACE = "/run/secrets"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_HOME = "secret"


class NoSuchSecret(NotFound):
    """A name that no secret has."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such secret: {name}", hint=f"trivet secret create {name} FILE")


class Secrets:
    """The secrets of one engine. Methods may be called from any thread."""

    def __init__(self, records: Records, root: Path) -> None:
        self._table = records.table("secret", Secret)
        self._home = root / _HOME
        self._lock = threading.Lock()
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)

    def create(self, request: SecretRequest) -> Secret:
        """Keep a secret. Raises `InvalidArgument`, `AlreadyExists`."""
        if not _NAME.fullmatch(request.name):
            raise InvalidArgument(f"secret name {request.name!r} is invalid: up to 64 letters, digits, '_', '.', '-'")
        if not 0 < len(request.data) <= LARGEST:
            raise InvalidArgument(f"secret {request.name} has {len(request.data)} bytes: 1 to {LARGEST} are possible")
        made = Secret(
            id=new_id(),
            name=request.name,
            created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            labels=request.labels,
        )
        with self._lock:
            if self._table.by_name(request.name):
                raise AlreadyExists(f"secret {request.name} exists already", hint=f"trivet secret rm {request.name}")
            _write(self._home / made.id, request.data)
            self._table.insert(made.id, made, name=made.name)
        return made

    def list(self, users: Mapping[str, Sequence[str]]) -> list[Secret]:
        """List them with who uses them, oldest first."""
        return [msgspec.structs.replace(each, users=list(users.get(each.name, ()))) for each in self._table.all()]

    def find(self, reference: str) -> Secret:
        """Look one up by name or id. Raises `NoSuchSecret`."""
        try:
            return self._table.find(reference)
        except NotFound as error:
            raise NoSuchSecret(reference) from error

    def remove(self, reference: str, users: Mapping[str, Sequence[str]]) -> Secret:
        """Forget a secret that no instance has. Raises `NoSuchSecret`, `Conflict`."""
        with self._lock:
            found = self.find(reference)
            if using := users.get(found.name):
                raise Conflict(f"secret {found.name} is in use by instance {using[0]}", hint=f"trivet rm {using[0]}")
            self._table.delete(found.id)
            (self._home / found.id).unlink(missing_ok=True)
            return found

    def mounts(self, grants: Sequence[SecretGrant], state: Path) -> tuple[Mount, ...]:
        """Describe where an instance finds what it is given. Raises `NoSuchSecret`, `InvalidArgument`."""
        found = []
        for number, grant in enumerate(grants):
            self.find(grant.source)
            target = grant.target or grant.source
            target = target if target.startswith("/") else f"{PLACE}/{target}"
            if ".." in Path(target).parts or target == "/":
                raise InvalidArgument(f"secret {grant.source} cannot be at {target}")
            source = str(state / _HOME / str(number))
            found.append(Mount(kind="bind", source=source, target=target, read_only=True, recursive=False))
        return tuple(found)

    def give(self, grants: Sequence[SecretGrant], state: Path) -> None:
        """Write an instance's secrets where its mounts begin. Raises `NoSuchSecret`."""
        if not grants:
            return
        take(state)
        (state / _HOME).mkdir(mode=0o700)
        for number, grant in enumerate(grants):
            content = (self._home / self.find(grant.source).id).read_bytes()
            path = state / _HOME / str(number)
            _write(path, content)
            os.chown(path, grant.uid, grant.gid)
            path.chmod(grant.mode)


def take(state: Path) -> None:
    """Take an instance's secrets off the disk. Idempotent."""
    shutil.rmtree(state / _HOME, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read at any moment, all of it or none."""
    fresh = path.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
