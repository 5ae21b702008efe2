"""Who refers to a manifest, in registries that don't keep the list: it stands in an index at a tag (distribution-spec,
"Referrers Tag Schema"), which whoever pushes a manifest with a subject brings up to date.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from trivet.base.error import TrivetError
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci.descriptor import OCI_INDEX, Descriptor
from trivet.oci.manifest import Index, Manifest
from trivet.registry.answer import body_of, expect
from trivet.registry.transport import Transport

MOST = 1000  # referrers of one manifest that are listed


class Note(NamedTuple):
    """A line of the list: a manifest, and what it refers to."""

    subject: str
    descriptor: Descriptor


def tag_of(subject: str) -> str:
    """Name the tag where a manifest's referrers are listed."""
    algorithm, digits = digests.split(subject)
    return f"{algorithm}-{digits[:64]}"


def noted(raw: bytes, media_type: str, digest: str) -> Note | None:
    """Make the line for a manifest; None for one without a subject, or that only the registry understands."""
    try:
        parsed = manifests.parse(raw, media_type=media_type, subject=digest)
    except TrivetError:
        return None
    if parsed.subject is None:
        return None
    kind = parsed.artifact_type or (parsed.config.media_type if isinstance(parsed, Manifest) else None)
    about = Descriptor(
        media_type=media_type, digest=digest, size=len(raw), artifact_type=kind, annotations=parsed.annotations
    )
    return Note(parsed.subject.digest, about)


async def note(transport: Transport, domain: str, repository: str, line: Note) -> None:
    """Add a line to the list at the subject's tag."""
    tag = tag_of(line.subject)
    listed = await _listed(transport, domain, repository, tag)
    if any(each.digest == line.descriptor.digest for each in listed):
        return
    index = Index(schema_version=2, media_type=OCI_INDEX, manifests=(*listed[-MOST:], line.descriptor))
    raw = msgspec.json.encode(index, order="deterministic")
    url = await transport.url(repository, f"manifests/{tag}")
    async with transport.request("PUT", repository, url, {"Content-Type": OCI_INDEX}, raw) as answer:
        await expect(answer, domain, repository, f"the list of referrers at {tag}", {201})


async def _listed(transport: Transport, domain: str, repository: str, tag: str) -> tuple[Descriptor, ...]:
    async with transport.get(repository, f"manifests/{tag}", {"Accept": OCI_INDEX}) as answer:
        if answer.status == 404:
            return ()
        await expect(answer, domain, repository, f"the list of referrers at {tag}")
        raw = await body_of(answer, domain, manifests.LIMIT)
    parsed = manifests.parse(raw, subject=tag)
    return parsed.manifests if isinstance(parsed, Index) else ()
