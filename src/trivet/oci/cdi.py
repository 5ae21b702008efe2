"""The Container Device Interface, specification 1.0: what a device is for a container, as its vendor describes it."""

from __future__ import annotations

from typing import Any

import msgspec

from trivet.base.error import Corrupt


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of the shapes below."""


class DeviceNode(Record, frozen=True, kw_only=True):
    """A node at `path` inside; what isn't said is as the host has it at `host_path`, or else at the same path."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


class CdiMount(Record, frozen=True, kw_only=True):
    """A path of the host that is shown."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


class Edits(Record, frozen=True, kw_only=True):
    """What a container needs besides its own. Only whether there are `hooks` and the like matters here."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[CdiMount, ...] = ()
    additional_gids: tuple[int, ...] = msgspec.field(name="additionalGids", default=())
    hooks: tuple[Any, ...] = ()
    net_devices: tuple[Any, ...] = ()
    intel_rdt: Any = None


class CdiDevice(Record, frozen=True, kw_only=True):
    """One device of a kind."""

    name: str
    annotations: dict[str, str] = {}
    container_edits: Edits = Edits()


class Spec(Record, frozen=True, kw_only=True):
    """One file: devices of one kind (`vendor.com/class`), and what any of them needs."""

    cdi_version: str
    kind: str
    annotations: dict[str, str] = {}
    devices: tuple[CdiDevice, ...] = ()
    container_edits: Edits = Edits()


def parse(raw: bytes, *, subject: str) -> Spec:
    """Read a file, JSON or YAML. Raises `Corrupt` naming the `subject` and the field that is wrong."""
    try:
        return msgspec.yaml.decode(raw, type=Spec)
    except (msgspec.DecodeError, ValueError) as error:
        raise Corrupt(f"cannot read the device specification {subject}: {error}") from error
