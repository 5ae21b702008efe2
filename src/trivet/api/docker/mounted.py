"""`MountRequest` → how Docker shows it, such that who asks for the same again gets the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trivet.client.schema import MountRequest


def host_config(mounts: Iterable[MountRequest]) -> dict[str, Any]:
    """Show mounts as the fields of HostConfig: short where that says all of it."""
    wanted = list(mounts)
    return {
        "Binds": [_bind(each) for each in wanted if _short(each)] or None,
        "Mounts": [_mount(each) for each in wanted if each.kind != "tmpfs" and not _short(each)] or None,
        "Tmpfs": {each.target: _memory(each) for each in wanted if each.kind == "tmpfs"} or None,
    }


def _short(mount: MountRequest) -> bool:
    """Tell whether `-v` can say it; who names a directory that must be there doesn't use it."""
    if mount.kind == "bind":
        return mount.create_source and mount.recursive and not mount.shallow
    return mount.kind == "volume" and not (mount.subpath or mount.options or mount.labels)


def _bind(mount: MountRequest) -> str:
    words = ["ro"] if mount.read_only else []
    words += ["nocopy"] if mount.no_copy else []
    words += [mount.propagation] if mount.propagation != "rprivate" else []
    return ":".join(part for part in (mount.source, mount.target, ",".join(words)) if part)


def _mount(mount: MountRequest) -> dict[str, Any]:
    options: dict[str, Any] = {}
    match mount.kind:
        case "bind":
            options = {
                **({"Propagation": mount.propagation} if mount.propagation != "rprivate" else {}),
                **({"NonRecursive": True} if not mount.recursive else {}),
                **({"ReadOnlyNonRecursive": True} if mount.shallow else {}),
                **({"CreateMountpoint": True} if mount.create_source else {}),
            }
        case "volume":
            options = {
                **({"NoCopy": True} if mount.no_copy else {}),
                **({"Labels": mount.labels} if mount.labels else {}),
                **({"DriverConfig": {"Name": "local", "Options": mount.options}} if mount.options else {}),
                **({"Subpath": mount.subpath} if mount.subpath else {}),
            }
        case "image":
            options = {"Subpath": mount.subpath} if mount.subpath else {}
    return {
        "Type": mount.kind,
        **({"Source": mount.source} if mount.source else {}),
        "Target": mount.target,
        **({"ReadOnly": True} if mount.read_only and mount.kind != "image" else {}),
        **({f"{mount.kind.title()}Options": options} if options else {}),
    }


def _memory(mount: MountRequest) -> str:
    words = ["ro"] if mount.read_only else []
    words += [f"size={mount.size}"] if mount.size else []
    words += [f"mode={mount.mode:o}"] if mount.mode != 0o1777 else []
    words += [f"{name}={number}" for name, number in (("uid", mount.uid), ("gid", mount.gid)) if number >= 0]
    return ",".join(words)
