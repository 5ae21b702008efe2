"""Layers as a stack: the blob each is stored as, what it unpacks to, and the name of the pile so far."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from trivet.oci import digest
from trivet.oci.descriptor import Descriptor, Size
from trivet.oci.digest import Digest


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: `digest`, `size`, `media_type` of the stored blob, `diff_id` of the tar inside it."""

    digest: Digest
    size: Size
    media_type: str
    diff_id: Digest

    @property
    def descriptor(self) -> Descriptor:
        """The layer as a manifest lists it."""
        return Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """Name every pile of layers from the bottom up (image-spec config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest.of(f"{chain[-1]} {diff_id}".encode()) if chain else digest.check(diff_id))
    return chain
