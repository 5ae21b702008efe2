"""Wire shapes of images, and what is said to registries about them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class CommitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`commit`; `changes` are Dockerfile instructions, `pause` lets the instance stand still meanwhile."""

    name: str = ""
    changes: list[str] = []
    author: str = ""
    message: str = ""
    pause: bool = True


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """The image that was made."""

    id: str


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the list: `id` is the digest of its configuration, `digest` of its manifest.

    Of a disk image `virtual_size` is what a machine sees, `size` what is stored (bytes).
    """

    id: str
    digest: str
    names: list[str]
    created: str
    size: int
    platform: str
    labels: dict[str, str] = {}
    kind: Literal["files", "disk"] = "files"
    virtual_size: int = 0


class ImageDetail(msgspec.Struct, frozen=True, kw_only=True):
    """`inspect` of an image: the OCI configuration as stored, and its layers."""

    id: str
    digest: str
    names: list[str]
    created: str
    size: int
    platform: str
    layers: list[dict[str, Any]]
    config: dict[str, Any]
    history: list[dict[str, Any]]
    attestations: list[dict[str, Any]] = []
    kind: Literal["files", "disk"] = "files"
    virtual_size: int = 0


class Referrer(msgspec.Struct, frozen=True, kw_only=True):
    """What refers to a manifest in a registry: signatures, bills of materials, reports."""

    subject: str
    digest: str
    artifact_type: str
    media_type: str
    size: int
    annotations: dict[str, str] = {}


class LoginRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`login`: what to try at a registry ("" is Docker's), and to remember if it is right."""

    registry: str = ""
    user: str
    password: str
