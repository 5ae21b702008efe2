"""Repositories: which blobs, manifests and tags belong to whom. Contents are in the content store, once.

    record.db
    ├── repository  NAME                       for the catalog
    ├── link        NAME DIGEST                a blob of the repository
    ├── manifest    NAME DIGEST                and of what type it is
    ├── tag         NAME TAG                   the digest meant
    └── referrer    NAME SUBJECT DIGEST        the descriptor a referrers request lists

No name holds a space, so a key's parts can't run into each other. Records come before the bytes they
speak of (links) or in one transaction with them (manifests): a collection, which is a transaction too,
can't come between. Everything here blocks; call it in threads.
"""

from __future__ import annotations

import time

import msgspec

from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci.descriptor import DOCKER_FOREIGN_LAYER, OCI_INDEX, Descriptor
from trivet.oci.digest import Digest
from trivet.oci.manifest import Index, Manifest
from trivet.registry.server.error import Code, Refusal
from trivet.store.content import ContentStore
from trivet.store.record import Records


class Named(msgspec.Struct, frozen=True):
    """A repository that exists."""

    name: str


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A blob of a repository, and since when (Unix time)."""

    repository: str
    digest: Digest
    since: float
    size: int = 0


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or index of a repository."""

    repository: str
    digest: Digest
    media_type: str
    size: int
    subject: str = ""
    since: float = 0.0


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A name for a manifest, and since when."""

    tag: str
    digest: Digest
    since: float = 0.0


class Repositories:
    """All repositories of one registry."""

    def __init__(self, content: ContentStore, records: Records) -> None:
        self.content = content
        self.records = records
        self.names = records.table("repository", Named)
        self.links = records.table("link", Link)
        self.manifests = records.table("manifest", Stored)
        self.tags = records.table("tag", Tag)
        self.referring = records.table("referrer", Descriptor)

    def link(self, name: str, digest: str, size: int = 0, quota: int | None = None) -> None:
        """Make a blob one of the repository's; it may arrive a moment later. Raises `Refusal` where it has no room."""
        with self.records.transaction():
            if quota is not None and self.links.get(f"{name} {digest}") is None:
                self.check_room(name, size, quota)
            self.links.put(f"{name} {digest}", Link(repository=name, digest=digest, since=time.time(), size=size))

    def check_room(self, name: str, more: int, quota: int) -> None:
        """Refuse bytes that a repository's quota has no room for."""
        used = sum(each.size for each in self.links.below(f"{name} "))
        if used + more > quota:
            message = f"repository {name} has {used} bytes and may have {quota}: no room for {more} more"
            raise Refusal(Code.DENIED, message)

    def has_blob(self, name: str, digest: str) -> bool:
        """Tell whether a repository has a blob."""
        return self.links.get(f"{name} {digest}") is not None and self.content.exists(digest)

    def delete_blob(self, name: str, digest: str) -> None:
        """Take a blob from a repository. Raises `Refusal`."""
        if not self.links.delete(f"{name} {digest}"):
            raise Refusal(Code.BLOB_UNKNOWN, f"repository {name} has no blob {digest}")

    def find(self, name: str, reference: str) -> Stored:
        """Find a manifest by tag or digest. Raises `Refusal`."""
        tag = None if ":" in reference else self.tags.get(f"{name} {reference}")
        digest = reference if ":" in reference else tag.digest if tag else ""
        found = self.manifests.get(f"{name} {digest}") if digest else None
        if found is None or not self.content.exists(found.digest):
            raise Refusal(Code.MANIFEST_UNKNOWN, f"repository {name} has no manifest {reference}")
        return found

    def put(
        self, name: str, raw: bytes, media_type: str, digest: str, tags: tuple[str, ...], *, complete: bool = True
    ) -> Stored:
        """Take a manifest in, with its tags; `complete` wants everything it refers to to be here.

        Raises `Refusal`, and `Corrupt` or `Unsupported` for what is none.
        """
        parsed = manifests.parse(raw, media_type=media_type, subject=f"{name}@{digest}")
        kind = media_type or manifests.media_type_of(parsed)
        subject = parsed.subject.digest if parsed.subject else ""
        stored = Stored(
            repository=name, digest=digest, media_type=kind, size=len(raw), subject=subject, since=time.time()
        )
        with self.records.transaction():
            if complete:
                self._check_complete(name, parsed)
            if not self.content.exists(digest):
                self.content.add(raw, digest)
            self.names.put(name, Named(name))
            self.manifests.put(f"{name} {digest}", stored)
            for tag in tags:
                self.tags.put(f"{name} {tag}", Tag(tag=tag, digest=digest, since=stored.since))
            if subject:
                self.referring.put(f"{name} {subject} {digest}", _as_referrer(parsed, stored))
        return stored

    def delete(self, name: str, reference: str) -> Stored | None:
        """Delete a tag, or a manifest with all its tags, and return it. Raises `Refusal`."""
        if ":" not in reference:
            if not self.tags.delete(f"{name} {reference}"):
                raise Refusal(Code.MANIFEST_UNKNOWN, f"repository {name} has no tag {reference}")
            return None
        with self.records.transaction():
            gone = self.find(name, reference)
            self.manifests.delete(f"{name} {gone.digest}")
            for tag in self.tags.below(f"{name} "):
                if tag.digest == gone.digest:
                    self.tags.delete(f"{name} {tag.tag}")
            if gone.subject:
                self.referring.delete(f"{name} {gone.subject} {gone.digest}")
        return gone

    def list_tags(self, name: str, after: str, limit: int) -> list[str]:
        """List tags in order. Raises `Refusal` for a repository that doesn't exist."""
        if self.names.get(name) is None:
            raise Refusal(Code.NAME_UNKNOWN, f"there is no repository {name}")
        return [tag.tag for tag in self.tags.below(f"{name} ", after=after, limit=limit)]

    def catalog(self, after: str, limit: int) -> list[str]:
        """List repositories in order."""
        return [each.name for each in self.names.below("", after=after, limit=limit)]

    def referrers(self, name: str, subject: str) -> list[Descriptor]:
        """List what refers to a manifest, also what clients without the API noted under the fall-back tag."""
        found = {each.digest: each for each in self.referring.below(f"{name} {subject} ")}
        algorithm, digits = digests.split(subject)
        for each in self._index(name, f"{algorithm}-{digits[:64]}"):
            found.setdefault(each.digest, each)
        return [found[digest] for digest in sorted(found)]

    def _index(self, name: str, tag: str) -> tuple[Descriptor, ...]:
        try:
            stored = self.find(name, tag)
        except Refusal:
            return ()
        parsed = manifests.parse(self.content.read(stored.digest, limit=manifests.LIMIT), subject=stored.digest)
        return parsed.manifests if isinstance(parsed, Index) else ()

    def _check_complete(self, name: str, parsed: Manifest | Index) -> None:
        """Refuse a manifest that refers to what the repository lacks; its subject may come later."""
        if isinstance(parsed, Index):
            missing = [each for each in parsed.manifests if self.manifests.get(f"{name} {each.digest}") is None]
        else:
            parts = (parsed.config, *(each for each in parsed.layers if each.media_type != DOCKER_FOREIGN_LAYER))
            missing = [each for each in parts if not self.has_blob(name, each.digest)]
        if missing:
            raise Refusal(Code.MANIFEST_BLOB_UNKNOWN, f"repository {name} has no {missing[0].digest}")


def index_of(referrers: list[Descriptor]) -> bytes:
    """Spell the answer to a referrers request."""
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=tuple(referrers))
    return msgspec.json.encode(index)


def _as_referrer(parsed: Manifest | Index, stored: Stored) -> Descriptor:
    """Describe a manifest to those who look at its subject (distribution-spec, "Listing Referrers")."""
    kind = parsed.artifact_type or (parsed.config.media_type if isinstance(parsed, Manifest) else None)
    return Descriptor(
        media_type=stored.media_type,
        digest=stored.digest,
        size=stored.size,
        artifact_type=kind,
        annotations=parsed.annotations,
    )
