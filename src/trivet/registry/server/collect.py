"""Garbage collection while the registry works.

First each repository loses the blobs that none of its manifests reaches and that have had `grace`
seconds to be mentioned in one; then the store loses what no repository has. Both in one transaction of
the records, which every change goes through too.
"""

from __future__ import annotations

import time

from trivet.registry.server.repository import Repositories
from trivet.store import collect as store_collect
from trivet.store.collect import Collected, Root


def collect(repositories: Repositories, *, grace: float) -> Collected:
    """Delete what nothing needs. Blocks, for about a millisecond per manifest."""
    with repositories.records.transaction():
        manifests, links = repositories.manifests.all(), repositories.links.all()
        roots: dict[str, list[Root]] = {}
        for manifest in manifests:
            roots.setdefault(manifest.repository, []).append(Root(manifest.repository, manifest.digest))
        reached = {name: store_collect.reach(repositories.content, roots[name]) for name in roots}
        now, kept = time.time(), [root for group in roots.values() for root in group]
        for link in links:
            if link.digest in reached.get(link.repository, {}) or now - link.since < grace:
                kept.append(Root(link.repository, link.digest))
            else:
                repositories.links.delete(f"{link.repository} {link.digest}")
        used = {root.label for root in kept}
        for gone in {each.name for each in repositories.names.all()} - used:
            repositories.names.delete(gone)
        return store_collect.collect(repositories.content, kept)
