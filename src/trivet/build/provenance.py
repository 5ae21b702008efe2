"""How an image was made: a statement of in-toto v1 with SLSA's provenance v1.

It tells no times and no values of build arguments, so the same build has the same statement and no secret is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from trivet.base.error import NotFound
from trivet.build.session import Session
from trivet.engine.image import attestation
from trivet.engine.image.attestation import IN_TOTO, SPDX
from trivet.engine.image.model import ImageRecord
from trivet.oci import manifest as manifests
from trivet.oci.manifest import Index

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD = "urn:trivet:build:dockerfile:v1"


def attest(session: Session, sessions: Sequence[Session], record: ImageRecord, names: Sequence[str]) -> None:
    """Attach what the request asks for to a build's images: the bill to the one that runs here, provenance to all."""
    request, images = session.request, session.tools.images
    own = next((name for name in record.names if name.familiar in names), None)
    top, manifest = (own.digest, own.manifest) if own else (record.digest, record.manifest)
    title = names[0] if names else record.id
    if request.sbom:
        body = attestation.bill(images, record, manifest, title)
        images.attestations.attach(images, manifest, SPDX, body, session.lease)
    if request.provenance:
        for digest, each in zip(_manifests(session, top), sessions, strict=True):
            body = msgspec.json.encode(statement(each, digest, title))
            images.attestations.attach(images, digest, IN_TOTO, body, session.lease)


def statement(session: Session, digest: str, name: str) -> dict[str, Any]:
    """Say what an image was built from."""
    request = session.request
    algorithm, _, digits = digest.partition(":")
    parameters = {
        "dockerfile": request.dockerfile,
        "target": request.target,
        "platform": session.platform,
        "buildArguments": sorted(request.build_args),
        "labels": dict(sorted(request.labels.items())),
        "remote": request.remote,
    }
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {algorithm: digits}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": {key: value for key, value in parameters.items() if value},
                "resolvedDependencies": _dependencies(session),
            },
            "runDetails": {"builder": {"id": "urn:trivet:engine"}},
        },
    }


def _dependencies(session: Session) -> list[dict[str, Any]]:
    """List the images that were built upon or copied from, by the manifests they had."""
    found = {}
    for key in session.done:
        word, _, rest = key.partition(" ")
        if word != "image":
            continue
        reference = rest.rpartition(" ")[0]
        try:
            record, name = session.tools.images.catalog.find(reference)
        except NotFound:
            continue
        digest = name.manifest if name else record.manifest
        found[reference] = {"uri": f"docker-image:{reference}", "digest": {digest.partition(":")[0]: digest[7:]}}
    return [found[reference] for reference in sorted(found)]


def _manifests(session: Session, top: str) -> list[str]:
    parsed = manifests.parse(session.tools.images.content.read(top, limit=manifests.LIMIT), subject=top)
    return [each.digest for each in parsed.manifests] if isinstance(parsed, Index) else [top]
