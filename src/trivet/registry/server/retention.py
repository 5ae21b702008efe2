"""What goes by itself: old tags and untagged manifests, by the `[[limit]]` tables of the configuration.

    [[limit]]
    repository = ["ci/**"]
    quota = "20G"
    keep_tags = 10           the newest ten tags stay,
    keep_days = 30           and every tag of the last thirty days
    untagged_days = 7        what has no tag goes after a week

A manifest that an index here lists, or whose subject is here, counts as tagged: it goes with those.
"""

from __future__ import annotations

import re
import time

from trivet.base.error import TrivetError
from trivet.oci import manifest as manifests
from trivet.oci.manifest import Index
from trivet.registry.server.policy import Limit, Policy
from trivet.registry.server.repository import Repositories, Stored, Tag

DAY = 86400.0
_NOTE = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})(?:\..*)?")


def expire(repositories: Repositories, policy: Policy, now: float | None = None) -> list[str]:
    """Remove what the tables say; tell which, as NAME:TAG and NAME@DIGEST. Blocks."""
    now, gone = time.time() if now is None else now, []
    for name in [each.name for each in repositories.names.all()]:
        limit = policy.limit_of(name)
        if limit is not None:
            gone += _expire_one(repositories, name, limit, now)
    return gone


def _expire_one(repositories: Repositories, name: str, limit: Limit, now: float) -> list[str]:
    with repositories.records.transaction():
        tags = repositories.tags.below(f"{name} ")
        old = _old_tags(tags, limit, now, {each.digest for each in repositories.manifests.below(f"{name} ")})
        for tag in old:
            repositories.delete(name, tag.tag)
        gone = [f"{name}:{tag.tag}" for tag in old]
        if limit.untagged_days is not None:
            for stored in _untagged(repositories, name):
                if now - stored.since > limit.untagged_days * DAY:
                    repositories.delete(name, stored.digest)
                    gone.append(f"{name}@{stored.digest}")
    return gone


def _old_tags(tags: list[Tag], limit: Limit, now: float, present: set[str]) -> list[Tag]:
    """List the tags that go; what clients note about a manifest under a tag of its digest stays with it."""
    if limit.keep_tags is None and limit.keep_days is None:
        return []
    noted = {tag.tag for tag in tags if (match := _NOTE.fullmatch(tag.tag)) and f"{match[1]}:{match[2]}" in present}
    newest = sorted((tag for tag in tags if tag.tag not in noted), key=lambda tag: (tag.since, tag.tag), reverse=True)
    rest = newest[limit.keep_tags or 0 :]
    return [tag for tag in rest if limit.keep_days is None or now - tag.since > limit.keep_days * DAY]


def _untagged(repositories: Repositories, name: str) -> list[Stored]:
    """List the manifests that nothing in their repository speaks of."""
    stored = {each.digest: each for each in repositories.manifests.below(f"{name} ")}
    spoken = {tag.digest for tag in repositories.tags.below(f"{name} ")}
    spoken |= {each.digest for each in stored.values() if each.subject in stored}
    for digest in stored:
        try:
            parsed = manifests.parse(repositories.content.read(digest, limit=manifests.LIMIT), subject=digest)
        except TrivetError:
            continue
        if isinstance(parsed, Index):
            spoken |= {each.digest for each in parsed.manifests}
    return [each for digest, each in stored.items() if digest not in spoken]
