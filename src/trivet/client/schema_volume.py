"""Wire shapes of volumes and their snapshots."""

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


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume; `size` is -1 unless asked for."""

    name: str
    driver: str
    mountpoint: str
    created: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    anonymous: bool = False
    users: list[str] = []
    size: int = -1


class VolumeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`volume create`; an empty name makes an anonymous one."""

    name: str = ""
    driver: str = "local"
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
