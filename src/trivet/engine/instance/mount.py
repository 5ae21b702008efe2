"""Mount requests, image volumes and generated files → the plan's mounts and files."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path

import msgspec

from trivet.base.error import InvalidArgument, NotFound
from trivet.client.schema import MountRequest
from trivet.client.schema_volume import VolumeRequest
from trivet.engine.volume.volume import Volumes
from trivet.isolation.plan import Mine, Mount


class SourceMissing(NotFound):
    """A host path that was to be mounted does not exist."""

    def __init__(self, source: str, target: str) -> None:
        super().__init__(
            f"cannot mount {source} at {target}: there is no such path on the host",
            hint=f"mkdir -p {source}, or use -v, which makes it",
        )


class Mounts(msgspec.Struct, frozen=True, kw_only=True):
    """What resolving gave: the mounts, the volumes used, the anonymous ones among them, those made just now.

    `fill` pairs each empty volume with the directory its content comes from, of an image or with "" the instance's.
    `images` are the ids of those that are mounted.
    """

    mounts: tuple[Mount, ...]
    volumes: tuple[str, ...]
    anonymous: tuple[str, ...]
    made: tuple[str, ...]
    fill: tuple[tuple[str, str, str], ...]
    images: tuple[str, ...] = ()


Find = Callable[[str], tuple[str, Path]]
"""Finds an image by its name: its id, and a directory that shows all of it."""

Person = Callable[[], tuple[int, int]]
"""Tells the numbers of the instance's user and group."""


def resolve(
    requests: list[MountRequest],
    image_volumes: list[str],
    volumes: Volumes,
    find: Find,
    person: Person = lambda: (0, 0),
) -> Mounts:
    """Turn requests into mounts, creating volumes and `-v` directories that do not exist yet.

    An image that is to be written is a new anonymous volume with its content.

    A request for a target wins over the image's VOLUME there; two requests for one target are refused.
    """
    targets = [_target(request.target) for request in requests]
    for target in targets:
        if targets.count(target) > 1:
            raise InvalidArgument(f"two mounts have the same target {target}")
    implied = [MountRequest(kind="volume", target=path) for path in image_volumes if _target(path) not in targets]
    mounts: list[Mount] = []
    used: list[str] = []
    anonymous: list[str] = []
    made: list[str] = []
    fill: list[tuple[str, str, str]] = []
    images: list[str] = []
    for request in [*requests, *implied]:
        target = _target(request.target)
        if request.kind == "volume":
            known = volumes.get(request.source) if request.source else None
            if known:
                volumes.check_open(known.name)
                volumes.ready(known.name)
            volume = known or volumes.create(
                VolumeRequest(name=request.source, options=request.options, labels=request.labels)
            )
            if known is None:
                made.append(volume.name)
            used.append(volume.name)
            if volume.anonymous:
                anonymous.append(volume.name)
            if not (request.no_copy or request.subpath) and (known is None or volumes.is_empty(known)):
                fill.append((volume.name, target, ""))
            mounts.append(_mount(request, target, source=volume.mountpoint, name=volume.name))
        elif request.kind == "image":
            identity, directory = find(request.source)
            images.append(identity)
            if request.read_only:
                mounts.append(_mount(request, target, source=str(directory), image=request.source))
                continue
            copy = volumes.create(VolumeRequest())
            made.append(copy.name)
            used.append(copy.name)
            anonymous.append(copy.name)
            fill.append((copy.name, "/", request.source))
            mounts.append(_mount(request, target, source=copy.mountpoint, name=copy.name, image=request.source))
        elif request.kind == "bind":
            source = _bind_source(request)
            shown = _mount(request, target, source=source)
            mounts.append(msgspec.structs.replace(shown, mine=_mine(source, person)) if request.mine else shown)
        else:
            mounts.append(_mount(request, target))
    mounts.sort(key=lambda mount: mount.target.count("/"))  # a parent before what is mounted inside it
    return Mounts(
        mounts=tuple(mounts),
        volumes=tuple(used),
        anonymous=tuple(anonymous),
        made=tuple(made),
        fill=tuple(fill),
        images=tuple(images),
    )


def _mine(source: str, person: Person) -> Mine:
    """Say who owns a source on the host, and who is to own it inside."""
    status = Path(source).stat()
    user, group = person()
    return Mine(uid=status.st_uid, gid=status.st_gid, user=user, group=group)


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"mount target {path!r} is not an absolute path")
    clean = posixpath.normpath(path)
    if clean in ("/", "//"):
        raise InvalidArgument("cannot mount over the root directory of an instance")
    return clean


def _mount(request: MountRequest, target: str, source: str = "", name: str = "", image: str = "") -> Mount:
    if request.subpath and request.kind not in ("volume", "image"):
        raise InvalidArgument(f"a mount of type {request.kind} has no sub-path, so no {request.subpath}")
    if request.mine and request.kind != "bind":
        raise InvalidArgument(f"the mount at {target} cannot be mine: only a directory of the host has an owner there")
    return msgspec.convert(
        {
            "kind": "tmpfs" if request.kind == "tmpfs" else "bind",
            "target": target,
            "source": source,
            "name": name,
            "image": image,
            "base": source if request.subpath else "",
            "subpath": request.subpath,
            "recursive": request.recursive,
            "shallow": request.shallow,
            "uid": request.uid,
            "gid": request.gid,
            "read_only": request.read_only,
            "propagation": request.propagation,
            "size": request.size,
            "mode": request.mode,
        },
        Mount,
    )


def _bind_source(request: MountRequest) -> str:
    source = Path(request.source)
    if not source.is_absolute():
        raise InvalidArgument(f"mount source {request.source!r} is not an absolute path")
    if not source.exists():
        if not request.create_source:
            raise SourceMissing(request.source, request.target)
        source.mkdir(parents=True)
    return str(source)
