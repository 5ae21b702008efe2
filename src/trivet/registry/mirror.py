"""Where a repository is really asked for: mirrors, other locations and blocked registries.

The file is the one podman, skopeo and CRI-O read, containers-registries.conf(5), version 2:

    [[registry]]
    prefix = "docker.io"                     a host, or a host and the beginning of a path
    location = "registry.example/hub"        asked instead (default: the prefix)
    blocked = false
    [[registry.mirror]]                      asked before, in this order
    location = "127.0.0.1:5000/hub"
    insecure = true                          plain http will do where https doesn't answer
    pull-from-mirror = "all"                 or digest-only, tag-only

The longest prefix counts. Prefixes with a wildcard are passed over. A certificate is always verified.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from trivet.base.error import Denied, InvalidArgument
from trivet.oci import reference as references
from trivet.oci.reference import MalformedReference, Reference

MAIN = Path("/etc/containers/registries.conf")
LARGEST = 1 << 20

_Few = Annotated[tuple["_Mirror", ...], msgspec.Meta(max_length=50)]


class _Mirror(msgspec.Struct, frozen=True, rename="kebab"):
    location: str
    insecure: bool = False
    pull_from_mirror: Literal["all", "digest-only", "tag-only"] = "all"


class _Entry(msgspec.Struct, frozen=True, rename="kebab"):
    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: _Few = ()


class _File(msgspec.Struct, frozen=True):
    registry: Annotated[tuple[_Entry, ...], msgspec.Meta(max_length=1000)] = ()


class Place(msgspec.Struct, frozen=True):
    """A repository of a registry; `insecure` allows plain http."""

    domain: str
    path: str
    insecure: bool = False


class RegistryBlocked(Denied):
    """A registry this machine's administrator doesn't want to be asked."""

    def __init__(self, prefix: str) -> None:
        super().__init__(f"registry {prefix} is blocked on this machine", hint=f"see {_main()}")


def places(reference: Reference) -> list[Place]:
    """List where to ask for a reference: its mirrors in order, then the registry itself, which pushes go to.

    Raises `RegistryBlocked`, and `InvalidArgument` for a configuration that can't be read.
    """
    prefix, entry = _longest(reference.name)
    if entry is None:
        return [Place(reference.domain, reference.path)]
    if entry.blocked:
        raise RegistryBlocked(prefix)
    rest, unsuitable = reference.name[len(prefix) :], "tag-only" if reference.digest else "digest-only"
    mirrors = [each for each in entry.mirror if each.pull_from_mirror != unsuitable]
    if entry.mirror_by_digest_only and not reference.digest:
        mirrors = []
    found = [_place(each.location + rest, each.insecure) for each in mirrors]
    return [*found, _place((entry.location or prefix) + rest, entry.insecure)]


def _longest(name: str) -> tuple[str, _Entry | None]:
    entries = {entry.prefix or entry.location: entry for file in _files() for entry in _read(file)}
    fitting = [prefix for prefix in entries if prefix and (name == prefix or name.startswith(f"{prefix}/"))]
    prefix = max(fitting, key=len, default="")
    return prefix, entries.get(prefix)


def _main() -> Path:
    return Path(os.environ.get("CONTAINERS_REGISTRIES_CONF") or MAIN)


def _files() -> list[Path]:
    """List the files in the order in which later ones replace entries of earlier ones."""
    main = _main()
    more = sorted(MAIN.with_name("registries.conf.d").glob("*.conf")) if main == MAIN else []
    return [file for file in (main, *more) if file.is_file()]


def _read(file: Path) -> tuple[_Entry, ...]:
    try:
        with file.open("rb") as source:
            return msgspec.toml.decode(source.read(LARGEST), type=_File).registry
    except OSError as error:
        raise InvalidArgument(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{file} is malformed: {error}", hint="see containers-registries.conf(5)") from error


def _place(text: str, insecure: bool) -> Place:
    try:
        found = references.parse(text)
    except MalformedReference as error:
        raise InvalidArgument(f"{_main()} leads to a malformed location: {error.message}") from error
    return Place(found.domain, found.path, insecure)
