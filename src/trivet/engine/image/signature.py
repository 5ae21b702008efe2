"""Signatures as cosign makes them with a key: a small JSON text about a digest, signed, kept beside the image.

They are found at the tag `sha256-….sig` and among the image's referrers (OCI 1.1); each layer of such a manifest is a
text ("simple signing"), its annotation the signature. Nobody but the registry and the key's file is asked.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from trivet.base.error import NotFound
from trivet.engine.image.policy import Identity, Requirement, UnusableKey
from trivet.oci import manifest as manifests
from trivet.oci import reference as references
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Index, Manifest
from trivet.oci.reference import MalformedReference, Reference
from trivet.registry.client import RegistryClient

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
MOST, LARGEST = 32, 1 << 16  # signatures of an image, and bytes of one, that are looked at


class Signature(msgspec.Struct, frozen=True):
    """A text and its signature (ASN.1 in base64, as it came)."""

    payload: bytes
    signature: str


class _Image(msgspec.Struct, frozen=True):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Name(msgspec.Struct, frozen=True):
    reference: str = msgspec.field(name="docker-reference")


class _Critical(msgspec.Struct, frozen=True):
    identity: _Name
    image: _Image
    type: Literal["cosign container image signature", "atomic container signature"]


class _Payload(msgspec.Struct, frozen=True):
    critical: _Critical


async def fetch(registry: RegistryClient, repository: str, digest: str) -> list[Signature]:
    """Get the signatures of a digest; none is an empty list. Raises what the registry's errors say."""
    found: list[Signature] = []
    for manifest in await _manifests(registry, repository, digest):
        for layer in manifest.layers:
            if layer.media_type == PAYLOAD and layer.size <= LARGEST and len(found) < MOST:
                text = (layer.annotations or {}).get(ANNOTATION, "")
                found.append(Signature(await registry.small_blob(repository, layer, LARGEST), text))
    return found


async def _manifests(registry: RegistryClient, repository: str, digest: str) -> list[Manifest]:
    named = [digest.replace(":", "-") + ".sig"]
    named += [each.digest for each in await registry.referrers(repository, digest) if _is_signature(each)]
    found = []
    for identifier in named[:MOST]:
        try:
            raw = (await registry.manifest(repository, identifier)).raw
        except NotFound:
            continue
        parsed = manifests.parse(raw, subject=f"signature {identifier}")
        if not isinstance(parsed, Index):
            found.append(parsed)
    return found


def _is_signature(descriptor: Descriptor) -> bool:
    return descriptor.artifact_type == ARTIFACT


def unmet(
    requirement: Requirement, reference: Reference, digests: tuple[str, ...], signatures: list[Signature]
) -> str | None:
    """Tell why an image doesn't meet a requirement; None if it does. `digests` are its index's and its manifest's."""
    if requirement.type == "insecureAcceptAnything":
        return None
    if requirement.type == "reject":
        return "its name is rejected"
    if not signatures:
        return "it has no signature"
    from trivet.engine.image.key import load, verified  # megabytes that an engine without a policy never needs

    keys = [load(*named) for named in _pems(requirement)]

    def check(signature: Signature) -> bool:
        return any(verified(key, signature.payload, signature.signature) for key in keys)

    reasons = [_invalid(each, check, requirement.signed_identity, reference, digests) for each in signatures]
    return None if None in reasons else str(reasons[0])


def _invalid(
    signature: Signature,
    check: Callable[[Signature], bool],
    identity: Identity,
    reference: Reference,
    digests: tuple[str, ...],
) -> str | None:
    if not check(signature):
        return "its signature was not made with the key that is asked for"
    try:
        payload = msgspec.json.decode(signature.payload, type=_Payload)
        signed = references.parse(payload.critical.identity.reference)
    except (msgspec.DecodeError, MalformedReference):
        return "its signature says nothing that is understood"
    if payload.critical.image.digest not in digests:
        return f"its signature is for {payload.critical.image.digest}"
    if not _same(identity, reference, signed):
        return f"its signature is for the name {payload.critical.identity.reference}"
    return None


def _same(identity: Identity, reference: Reference, signed: Reference) -> bool:
    """Compare names as containers-policy.json(5) says, "signedIdentity". A name without a tag is one here."""
    match identity.type:
        case "matchExact":
            return bool(reference.tag) and (reference.name, reference.tag) == (signed.name, signed.tag)
        case "matchRepoDigestOrExact":
            by_tag = not reference.digest
            return reference.name == signed.name and (not by_tag or reference.tag == signed.tag)
        case "matchRepository":
            return reference.name == signed.name
        case "exactReference":
            wanted = references.parse(identity.docker_reference)
            return (wanted.name, wanted.tag) == (signed.name, signed.tag)
        case "exactRepository":
            return references.parse(identity.docker_repository).name == signed.name
        case _:
            prefix, name = identity.prefix, reference.name
            if name == prefix or name.startswith(prefix + "/"):
                name = identity.signed_prefix + name.removeprefix(prefix)
            return (name, reference.tag) == (signed.name, signed.tag)


def _pems(requirement: Requirement) -> list[tuple[str, bytes]]:
    found = []
    for path in (requirement.key_path, *requirement.key_paths):
        if path:
            try:
                found.append((path, Path(path).read_bytes()))
            except OSError as error:
                raise UnusableKey(path, error.strerror or str(error)) from error
    if requirement.key_data:
        try:
            found.append(("keyData", base64.b64decode(requirement.key_data)))
        except binascii.Error as error:
            raise UnusableKey("keyData", str(error)) from error
    return found
