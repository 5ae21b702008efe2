"""The registry's configuration file, `--config FILE`: TOML, read again when it changes.

    [[allow]]                who may do what, see `right`
    [[limit]]                quotas and retention, see `retention`
    [[webhook]]              who is told, see `webhook`
    [[upstream]]             whose images are passed on, see `upstream`

A file that can't be read or understood lets nobody in until it is mended.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import msgspec

from trivet.base.error import InvalidArgument
from trivet.registry.server.right import Allow, Rights, fits

LARGEST = 1 << 20
_SIZE = re.compile(r"([0-9]+)\s*([kKMGT]?)i?[bB]?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_Words = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much these repositories may hold, and for how long; the first table that fits a repository counts.

    `quota` is the size of all blobs of one repository. Of tags the newest `keep_tags` stay, and those younger than
    `keep_days`; a manifest without a tag goes after `untagged_days`. Left out means without limit.
    """

    repository: _Words
    quota: str = ""
    keep_tags: Annotated[int, msgspec.Meta(ge=1)] | None = None
    keep_days: Annotated[float, msgspec.Meta(ge=0)] | None = None
    untagged_days: Annotated[float, msgspec.Meta(ge=0)] | None = None

    def bytes(self) -> int | None:
        """Read `quota` ("10G", "500MiB"). Raises `InvalidArgument`."""
        if not self.quota:
            return None
        match = _SIZE.fullmatch(self.quota)
        if match is None:
            raise InvalidArgument(f"quota {self.quota[:40]!r} is not a size", hint="write 500M or 10G")
        return int(match[1]) * _UNITS[match[2].upper()]


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Somebody to be told what happened. `secret` is a file; its content is the key of the signature."""

    url: Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://")]
    repository: _Words = ("**",)
    events: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("push", "delete")
    secret: str = ""


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A registry whose images are here below `prefix`/, fetched when they are asked for.

    `location` is HOST[:PORT] or HOST/PATH; `fresh` are the seconds a tag is believed.
    """

    prefix: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9]+([._-][a-z0-9]+)*\Z")]
    location: str
    insecure: bool = False
    fresh: float = 60.0


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    group: dict[str, tuple[str, ...]] = {}
    allow: tuple[Allow, ...] = ()
    limit: tuple[Limit, ...] = ()
    webhook: tuple[Webhook, ...] = ()
    upstream: tuple[Upstream, ...] = ()

    def rights(self) -> Rights:
        """Take what says who may do what."""
        return Rights(self.allow, self.group)

    def limit_of(self, repository: str) -> Limit | None:
        """Find the table that counts for a repository."""
        return next((each for each in self.limit if fits(each.repository, repository)), None)

    def upstream_of(self, repository: str) -> Upstream | None:
        """Find whose image a repository's are."""
        first, slash, _ = repository.partition("/")
        return next((each for each in self.upstream if slash and each.prefix == first), None)


class PolicyFile:
    """A configuration file that may change; without a file the policy is empty. Raises `InvalidArgument`."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._stamp: object = None
        self._policy: Policy | None = Policy()
        self.current()

    def current(self) -> Policy:
        """Return the policy, read anew if the file has changed. Raises `InvalidArgument` until a bad one is mended."""
        if self._file is not None:
            try:
                found = self._file.stat()
                stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            except OSError as error:
                raise InvalidArgument(f"cannot read {self._file}: {(error.strerror or str(error)).lower()}") from error
            if stamp != self._stamp:
                self._policy, self._stamp = None, None
                self._policy, self._stamp = _read(self._file), stamp
        assert self._policy is not None
        return self._policy


def _read(file: Path) -> Policy:
    try:
        with file.open("rb") as source:
            policy = msgspec.toml.decode(source.read(LARGEST), type=Policy)
        for limit in policy.limit:
            limit.bytes()
    except OSError as error:
        raise InvalidArgument(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file} is malformed: {error}", hint="see docs/registry.md") from error
    return policy
