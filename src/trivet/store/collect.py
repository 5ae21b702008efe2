"""Garbage collection: blobs that no root reaches are deleted.

    roots: images, instances' images, leases, build cache    (label, digest) each
      └─▶ index ─▶ manifest ─▶ configuration, layers, subject
                                        everything else goes

A blob is followed if it reads as an index or manifest, whatever it is called: keeping too much is
the mistake that can be made good.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from trivet.base.error import TrivetError
from trivet.oci import manifest as manifests
from trivet.oci.manifest import Index
from trivet.store.content import ContentStore


class Root(msgspec.Struct, frozen=True):
    """Content that must stay, and who says so ("image debian:bookworm")."""

    label: str
    digest: str


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection deleted, or would."""

    digests: tuple[str, ...]
    freed: int


def reach(content: ContentStore, roots: Iterable[Root]) -> dict[str, str]:
    """Map every digest that must stay to what keeps it: a root's label, or the digest that refers to it."""
    kept: dict[str, str] = {}
    queue = [(root.digest, root.label) for root in roots]
    while queue:
        digest, reason = queue.pop()
        if digest not in kept:
            kept[digest] = reason
            queue += [(child, digest) for child in children(content, digest)]
    return kept


def children(content: ContentStore, digest: str) -> Iterator[str]:
    """List what an index or manifest refers to; nothing for other blobs and for missing ones."""
    try:
        if content.size(digest) > manifests.LIMIT:
            return
        parsed = manifests.parse(content.read(digest, limit=manifests.LIMIT), subject=digest)
    except TrivetError:
        return
    if isinstance(parsed, Index):
        yield from (each.digest for each in parsed.manifests)
    else:
        yield parsed.config.digest
        yield from (each.digest for each in parsed.layers)
    if parsed.subject:
        yield parsed.subject.digest


def collect(content: ContentStore, roots: Iterable[Root], *, dry_run: bool = False) -> Collected:
    """Delete what no root reaches. The caller holds the record file's transaction, in which `roots` were read."""
    kept = reach(content, roots)
    garbage = [(digest, size) for digest, size in content.walk() if digest not in kept]
    if not dry_run:
        for digest, _ in garbage:
            content.delete(digest)
    return Collected(digests=tuple(sorted(digest for digest, _ in garbage)), freed=sum(size for _, size in garbage))


def why(content: ContentStore, roots: Iterable[Root], digest: str) -> list[str]:
    """Tell what keeps a blob: the chain from the blob up to a root's label; empty if nothing does."""
    kept = reach(content, roots)
    chain: list[str] = []
    while digest in kept:
        chain.append(digest)
        digest = kept[digest]
    return [*chain, digest] if chain else []
