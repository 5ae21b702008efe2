"""What a registry has under a name, without getting it."""

from __future__ import annotations

import asyncio

import msgspec

from trivet.base.error import Corrupt
from trivet.oci import config as configs
from trivet.oci import manifest as manifests
from trivet.oci.manifest import Index
from trivet.oci.platform import Platform
from trivet.oci.reference import Reference
from trivet.registry import mirror
from trivet.registry.client import RegistryClient


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest or index a name stands for, and the platforms it can be had for."""

    media_type: str
    digest: str
    size: int
    platforms: tuple[Platform, ...]


async def look_up(reference: Reference) -> Listed:
    """Ask the registry itself, not its mirrors. Raises what the registry's errors say, and `Corrupt`."""
    place = (await asyncio.to_thread(mirror.places, reference))[-1]
    subject = reference.familiar
    async with RegistryClient(place.domain, insecure=place.insecure) as registry:
        fetched = await registry.manifest(place.path, reference.identifier)
        parsed = manifests.parse(fetched.raw, media_type=fetched.media_type, subject=subject)
        if isinstance(parsed, Index):
            platforms = tuple(each.platform for each in parsed.manifests if each.platform)
        else:
            if parsed.config.size > configs.LIMIT:
                raise Corrupt(f"image {subject} has a configuration of {parsed.config.size} bytes")
            raw = await registry.small_blob(place.path, parsed.config, configs.LIMIT)
            platforms = (configs.parse(raw, subject=subject).platform,)
    return Listed(
        media_type=manifests.media_type_of(parsed), digest=fetched.digest, size=len(fetched.raw), platforms=platforms
    )
