"""Docker's five ways to ask for a mount → `MountRequest`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.error import InvalidArgument, Unsupported
from trivet.client.schema import MountRequest

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
WITHOUT_EFFECT = ("", "rw", "z", "Z", "consistent", "cached", "delegated")
UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class BindOptions(msgspec.Struct, frozen=True, rename="pascal"):
    """Options of a bind."""

    propagation: str = ""
    create_mountpoint: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False


class DriverConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """How a volume is made that isn't there."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(msgspec.Struct, frozen=True, rename="pascal"):
    """Options of a volume."""

    no_copy: bool = False
    subpath: str = ""
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None


class ImageOptions(msgspec.Struct, frozen=True, rename="pascal"):
    """Options of an image."""

    subpath: str = ""


class TmpfsOptions(msgspec.Struct, frozen=True, rename="pascal"):
    """Options of a tmpfs."""

    size_bytes: int = 0
    mode: int = 0


class Mount(msgspec.Struct, frozen=True, rename="pascal"):
    """One `--mount`."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None


def requests(
    binds: list[str] | None,
    mounts: list[Mount] | None,
    tmpfs: dict[str, str] | None,
    volumes: dict[str, Any] | None,
    more: list[MountRequest],
) -> list[MountRequest]:
    """Fold all of them; what only names a place for an anonymous volume gives way to a real wish for the place."""
    found = [_bind(text) for text in binds or ()]
    found += [_mount(each) for each in mounts or ()]
    found += [_tmpfs(target, options) for target, options in (tmpfs or {}).items()]
    taken = {each.target.rstrip("/") for each in found}
    if len(taken) < len(found):
        targets = [each.target.rstrip("/") for each in found]
        raise InvalidArgument(f"Duplicate mount point: {next(each for each in targets if targets.count(each) > 1)}")
    found += [each for each in more if each.target.rstrip("/") not in taken]
    for target in volumes or ():
        spelled = _bind(target)
        if spelled.target.rstrip("/") not in taken:
            found.append(spelled)
    return found


def shared_mode(text: str, mode: str) -> bool:
    """Tell whether mounts taken over from another container are read-only (`--volumes-from NAME:ro,z`).

    Raises `InvalidArgument`.
    """
    if not text:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    words = mode.split(",") if mode else []
    known = ("ro", "rw", *WITHOUT_EFFECT)
    if not all(words.count(word) == 1 and word and word in known for word in words) or {"ro", "rw"} <= set(words):
        raise InvalidArgument(f"invalid mode: {mode}")
    return "ro" in words


def size(text: str) -> int:
    """Read `64m` as bytes. Raises `InvalidArgument`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([bkmgt]?)(?:i?b)?", text.lower())
    if not match:
        raise InvalidArgument(f"invalid size: '{text}'")
    return int(float(match[1]) * UNITS[match[2]])


def _bind(text: str) -> MountRequest:
    """Read one `-v`: [SOURCE:]TARGET[:OPTIONS]."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts[:2]):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target = ("", parts[0]) if len(parts) == 1 else parts[:2]
    if not target.startswith("/"):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': invalid mount path: '{target}' mount path must be absolute"
        )
    fields: dict[str, Any] = {
        "kind": "bind" if source.startswith("/") else "volume",
        "source": source,
        "target": target,
    }
    if len(parts) == 3 and {"ro", "rw"} <= set(parts[2].split(",")):
        raise InvalidArgument(f"invalid mode: {parts[2]}")
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option == "ro":
            fields["read_only"] = True
        elif option in ("nocopy", "mine"):
            fields["no_copy" if option == "nocopy" else option] = True
        elif option in PROPAGATIONS:
            fields["propagation"] = option
        elif option not in WITHOUT_EFFECT:
            raise InvalidArgument(f"invalid mode: {parts[2]}")
    return msgspec.convert({**fields, "create_source": fields["kind"] == "bind"}, MountRequest)


def _check(wish: Mount) -> None:
    """Check what any kind of mount must have. Raises `InvalidArgument`."""
    problem = ""
    if not wish.target:
        problem = "field Target must not be empty"
    elif not wish.target.startswith("/"):
        problem = f"invalid mount path: '{wish.target}' mount path must be absolute"
    elif stray := _stray(wish):
        raise InvalidArgument(f'{stray} must not be specified on mount type "{wish.type}"')
    elif wish.volume_options and ".." in wish.volume_options.subpath.split("/"):
        problem = "subpath must be a relative path within the volume"
    elif wish.type == "bind" and wish.source and not wish.source.startswith("/"):
        problem = f"invalid mount path: '{wish.source}' mount path must be absolute"
    elif wish.bind_options and wish.bind_options.propagation not in ("", *PROPAGATIONS):
        problem = f"invalid propagation mode: {wish.bind_options.propagation}"
    elif wish.type == "tmpfs" and wish.source:
        problem = "field Source must not be specified"
    elif wish.type == "bind" and not wish.source:
        problem = "field Source must not be empty"
    elif wish.type == "bind" and wish.source.startswith("/") and not _there(wish):
        problem = f"bind source path does not exist: {wish.source}"
    if problem:
        raise InvalidArgument(f'invalid mount config for type "{wish.type}": {problem}')


def _stray(wish: Mount) -> str:
    """Name options of another kind of mount; "" where there are none."""
    options = {"bind": wish.bind_options, "volume": wish.volume_options, "tmpfs": wish.tmpfs_options}
    return next((f"{kind.title()}Options" for kind, each in options.items() if each and kind != wish.type), "")


def _there(wish: Mount) -> bool:
    """Tell whether a bind's source is there, or will be."""
    return (wish.bind_options or BindOptions()).create_mountpoint or Path(wish.source).exists()


def _mount(wish: Mount) -> MountRequest:
    if wish.type in ("bind", "volume", "tmpfs"):
        _check(wish)
    match wish.type:
        case "bind":
            options = wish.bind_options or BindOptions()
            return MountRequest(
                kind="bind",
                source=wish.source,
                target=wish.target,
                read_only=wish.read_only,
                propagation=options.propagation or "rprivate",
                create_source=options.create_mountpoint,
                recursive=not options.non_recursive,
                shallow=options.read_only_non_recursive,
            )
        case "volume":
            volume = wish.volume_options or VolumeOptions()
            config = volume.driver_config or DriverConfig()
            if config.name not in ("", "local"):
                raise Unsupported(f'error looking up volume plugin {config.name}: plugin "{config.name}" not found')
            return MountRequest(
                kind="volume",
                source=wish.source,
                target=wish.target,
                read_only=wish.read_only,
                no_copy=volume.no_copy,
                subpath=volume.subpath,
                options=config.options or {},
                labels=volume.labels or {},
            )
        case "image":
            part = (wish.image_options or ImageOptions()).subpath
            return MountRequest(kind="image", source=wish.source, target=wish.target, read_only=True, subpath=part)
        case "tmpfs":
            memory = wish.tmpfs_options or TmpfsOptions()
            return MountRequest(kind="tmpfs", target=wish.target, size=memory.size_bytes, mode=memory.mode or 0o1777)
    raise InvalidArgument(f'invalid mount config for type "{wish.type}": mount type unknown')


def _tmpfs(target: str, options: str) -> MountRequest:
    """Read one `--tmpfs`; options that only say what is so anyway have no effect."""
    fields: dict[str, Any] = {"kind": "tmpfs", "target": target}
    for option in options.split(","):
        key, _, value = option.partition("=")
        if key == "size":
            fields["size"] = size(value)
        elif key == "mode" and re.fullmatch(r"[0-7]{1,4}", value):
            fields["mode"] = int(value, 8)
        elif key == "ro":
            fields["read_only"] = True
        elif key in ("uid", "gid") and value.isdigit():
            fields[key] = int(value)
        elif key not in ("", "rw", "noexec", "exec", "nosuid", "suid", "nodev", "dev"):
            raise InvalidArgument(f"invalid tmpfs option {option!r}")
    return msgspec.convert(fields, MountRequest)
