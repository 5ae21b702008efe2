"""Manifests and indexes, OCI 1.1 and Docker schema 2.

The bytes are the truth: a document is parsed to be understood, and stored, hashed and sent as it came.
A document that could be read as two different types is refused (CVE-2021-41190): what it says about
itself, what the other side called it, and what it is made of must agree.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from trivet.base.error import Corrupt, Unsupported
from trivet.oci.descriptor import INDEXES, MANIFESTS, OCI_INDEX, OCI_MANIFEST, Descriptor

LIMIT = 4 << 20
"""Largest manifest or index we read, as registries do."""

MAXIMUM_LAYERS = 500


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One image (or artifact) for one platform: a configuration and its layers, bottom first."""

    schema_version: Literal[2]
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Several manifests, usually one per platform."""

    schema_version: Literal[2]
    media_type: str | None = None
    artifact_type: str | None = None
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class MalformedManifest(Corrupt):
    """A manifest or index that breaks its specification; `subject` names where it came from."""

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(f"manifest of {subject} is malformed: {problem}")


class UnsupportedManifest(Unsupported):
    """A manifest of a kind nobody should use any more, or that we don't know."""

    def __init__(self, subject: str, kind: str) -> None:
        super().__init__(f"manifest of {subject} has the unsupported type {kind}")


def parse(raw: bytes, *, media_type: str = "", subject: str) -> Manifest | Index:
    """Parse a manifest or index. `media_type` is what the other side called it ("" if it didn't say).

    Raises `MalformedManifest` for broken or ambiguous documents, `UnsupportedManifest` for other types.
    """
    if len(raw) > LIMIT:
        raise MalformedManifest(subject, f"it is larger than {LIMIT >> 20} MiB")
    document = _object(raw, subject)
    kind = _kind(document, media_type, subject)
    try:
        parsed = msgspec.convert(document, Index) if kind in INDEXES else msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        raise MalformedManifest(subject, str(error)) from error
    if isinstance(parsed, Manifest) and len(parsed.layers) > MAXIMUM_LAYERS:
        raise MalformedManifest(subject, f"it has {len(parsed.layers)} layers, more than {MAXIMUM_LAYERS}")
    return parsed


def media_type_of(parsed: Manifest | Index) -> str:
    """Name a parsed document's type; OCI documents need not say it themselves."""
    return parsed.media_type or (OCI_INDEX if isinstance(parsed, Index) else OCI_MANIFEST)


def _object(raw: bytes, subject: str) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedManifest(subject, str(error)) from error
    if not isinstance(document, dict):
        raise MalformedManifest(subject, "it is not a JSON object")
    return document


def _kind(document: dict[str, Any], told: str, subject: str) -> str:
    """Decide the type from structure, its own claim and the sender's claim, which must not contradict."""
    if document.get("schemaVersion") == 1:
        raise UnsupportedManifest(subject, "Docker schema 1")
    is_index = "manifests" in document
    if is_index == ("layers" in document or "config" in document):
        both = "both an index and a manifest" if is_index else "neither an index nor a manifest"
        raise MalformedManifest(subject, f"it is {both}")
    structure = INDEXES if is_index else MANIFESTS
    claims = [claim for claim in (document.get("mediaType"), told.partition(";")[0].strip()) if claim]
    for claim in claims:
        if not isinstance(claim, str) or claim not in INDEXES | MANIFESTS:
            raise UnsupportedManifest(subject, str(claim)[:100])
        if claim not in structure:
            raise MalformedManifest(subject, f"it is called {claim} but has the structure of another type")
    if len(set(claims)) > 1:
        raise MalformedManifest(subject, f"it calls itself {claims[0]} but was sent as {claims[1]}")
    return claims[0] if claims else (OCI_INDEX if is_index else OCI_MANIFEST)
