"""Wire shapes of volumes' snapshots."""

from __future__ import annotations

import msgspec


class VolumeSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of a volume. `size` is its content's, `added` what it took on disk (bytes), `pause` how long
    the instances that used the volume stood still (s)."""

    volume: str
    name: str
    digest: str
    created: str
    size: int
    added: int
    pause: float
