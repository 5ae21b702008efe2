"""The image configuration: what runs by default, how the image came about, what its layers unpack to.

Docker writes `null` where others leave a field out, so most fields may be None. Labels, variables and
annotations are data of the image's author: nothing of trivet's own is ever steered by them (CVE-2026-53488).
"""

from __future__ import annotations

import msgspec

from trivet.base.error import Corrupt
from trivet.oci.digest import Digest
from trivet.oci.platform import Platform

LIMIT = 8 << 20
"""Largest configuration we read."""


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """How to find out whether an instance works; durations in nanoseconds, 0 inherits."""

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Empty(msgspec.Struct, frozen=True):
    """`{}`, the value of every entry in ExposedPorts and Volumes."""


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Defaults for instances of the image."""

    user: str = ""
    exposed_ports: dict[str, Empty] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, Empty] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    args_escaped: bool | None = None
    healthcheck: Healthcheck | None = None
    on_build: tuple[str, ...] | None = None
    shell: tuple[str, ...] | None = None


class RootFS(msgspec.Struct, frozen=True, kw_only=True):
    """The digests of the layers' uncompressed tars, bottom first."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one layer came about; `empty_layer` marks a step that changed only the configuration."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class Image(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image configuration (OCI image-spec config.md; Docker's superset is accepted)."""

    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")
    created: str | None = None
    author: str | None = None
    config: Config | None = None
    rootfs: RootFS
    history: tuple[History, ...] | None = None

    @property
    def platform(self) -> Platform:
        """The platform the image was made for."""
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)

    @property
    def defaults(self) -> Config:
        """The defaults for instances; empty ones if the image gives none."""
        return self.config or Config()


class MalformedConfig(Corrupt):
    """A configuration that breaks its specification."""

    def __init__(self, subject: str, problem: str) -> None:
        super().__init__(f"configuration of {subject} is malformed: {problem}")


def parse(raw: bytes, *, subject: str) -> Image:
    """Parse a configuration. Raises `MalformedConfig` with the path of the first mistake."""
    if len(raw) > LIMIT:
        raise MalformedConfig(subject, f"it is larger than {LIMIT >> 20} MiB")
    try:
        return msgspec.json.decode(raw, type=Image)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedConfig(subject, str(error)) from error


def encode(image: Image) -> bytes:
    """Write a configuration of our own: the same image gives the same bytes."""
    return msgspec.json.encode(image, order="deterministic")
