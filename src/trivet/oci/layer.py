"""Layers as a stack: the blob each is stored as, what it unpacks to, and the name of the pile so far."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

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
        chain.append(_onto(chain[-1], diff_id) if chain else digest.check(diff_id))
    return chain


@lru_cache(1024)  # each step of a build names the pile once more
def _onto(chain: str, diff_id: str) -> str:
    return digest.of(f"{chain} {diff_id}".encode())
