"""RUN --device: devices of the host by their CDI names, as the files in /etc/cdi and /var/run/cdi describe them.

`vendor.com/class=name` is one device, `vendor.com/class=*` all of a kind, `vendor.com/class` the first of it; a name
that no device has may be a class that devices are annotated with.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from trivet.base.error import InvalidArgument
from trivet.build.error import BuildError
from trivet.isolation.plan import Device, Mount
from trivet.oci import cdi

DIRECTORIES = (Path("/etc/cdi"), Path("/var/run/cdi"))  # of two that describe the same device the last one counts
GRANT = "device"
CLASS = "org.mobyproject.buildkit.device.class"
ALLOWED = "org.mobyproject.buildkit.device.autoallow"
_NAME = re.compile(r"[A-Za-z][\w.-]*/[A-Za-z][\w.-]*(=(\*|[A-Za-z0-9][\w.:-]*))?", re.ASCII)


class DeviceError(InvalidArgument):
    """A --device that makes no sense."""


class RunDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One --device; a step whose device isn't there fails if it is `required`, and else runs without."""

    name: str
    required: bool = False


class Given(NamedTuple):
    """What a step is given: the devices' whole names, and what comes of them."""

    names: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()
    groups: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Found(NamedTuple):
    """A device that is described: its whole name, its own edits and those of its kind."""

    name: str
    annotations: dict[str, str]
    edits: tuple[cdi.Edits, ...]


def parse_device(text: str) -> RunDevice:
    """Read the value of --device. Raises `DeviceError`."""
    name, required = "", False
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key.lower() == "required":
            if value.lower() not in ("", "true", "1", "false", "0"):
                raise DeviceError(f"--device: required={value} is neither true nor false")
            required = not equals or value.lower() in ("true", "1")
        elif name:
            raise DeviceError(f"--device has no option {part}", hint="write --device=VENDOR/CLASS=NAME[,required]")
        else:
            name = value if key.lower() == "name" else part
    if not is_name(name):
        hint = "write --device=VENDOR/CLASS=NAME, as `nvidia.com/gpu=all`"
        raise DeviceError(f"--device={name[:100]} is no name of a CDI device", hint=hint)
    return RunDevice(name=name, required=required)


def is_name(text: str) -> bool:
    """Tell whether a text names a device, or a kind of them."""
    return _NAME.fullmatch(text) is not None


def give(wishes: Sequence[RunDevice], directories: Iterable[Path], allowed: Sequence[str]) -> Given:
    """Find what a step is to be given. Raises `BuildError` for what isn't there or isn't granted."""
    if not wishes:
        return Given()
    known = _known(directories)
    found, missing = dict[str, Found](), []
    for wish in wishes:
        matching = _matching(wish.name, known)
        if not matching and wish.required:
            hint = f"describe it in a file in {' or '.join(map(str, DIRECTORIES))}"
            raise BuildError(f"there is no device {wish.name} on this machine", hint=hint)
        missing += [] if matching else [wish.name]
        found.update((each.name, each) for each in matching)
    for each in found.values():
        _check(each, allowed)
    return _given(list(found.values()), missing)


def _known(directories: Iterable[Path]) -> dict[str, Found]:
    """Read all files there are. Raises `Corrupt` for one that is none of the kind."""
    known: dict[str, Found] = {}
    for directory in directories:
        for path in sorted(directory.glob("*")) if directory.is_dir() else ():
            if path.suffix not in (".json", ".yaml", ".yml"):
                continue
            spec = cdi.parse(path.read_bytes(), subject=str(path))
            for each in spec.devices:
                name = f"{spec.kind}={each.name}"
                notes = {**spec.annotations, **each.annotations}
                known[name] = Found(name, notes, (spec.container_edits, each.container_edits))
    return known


def _matching(wanted: str, known: dict[str, Found]) -> list[Found]:
    kind, _, name = wanted.partition("=")
    of_kind = [found for key, found in known.items() if key.startswith(f"{kind}=")]
    if not name:
        return of_kind[:1]
    if name == "*":
        return of_kind
    return [known[wanted]] if wanted in known else [each for each in of_kind if each.annotations.get(CLASS) == name]


def _check(found: Found, allowed: Sequence[str]) -> None:
    grants = {GRANT, f"{GRANT}={found.name}", f"{GRANT}={found.name.partition('=')[0]}"}
    if not grants & set(allowed) and found.annotations.get(ALLOWED, "").lower() not in ("true", "1"):
        hint = f"grant it to the build, if you trust it with the device: --allow device={found.name}"
        raise BuildError(f"RUN --device={found.name} is not granted", hint=hint)
    for edits in found.edits:
        if edits.hooks or edits.net_devices or edits.intel_rdt:
            what = "hooks that run on the host" if edits.hooks else "more than nodes, mounts and variables"
            raise BuildError(f"device {found.name} cannot be given to a build: its description asks for {what}")


def _given(found: list[Found], missing: list[str]) -> Given:
    edits = list(dict.fromkeys(each for device in found for each in device.edits))
    return Given(
        names=tuple(device.name for device in found),
        env=tuple(text for each in edits for text in each.env),
        devices=tuple(_node(node) for each in edits for node in each.device_nodes),
        mounts=tuple(_mount(mount) for each in edits for mount in each.mounts),
        groups=tuple(str(group) for each in edits for group in each.additional_gids),
        missing=tuple(missing),
    )


def _node(node: cdi.DeviceNode) -> Device:
    source = node.host_path or node.path
    try:
        status = Path(source).stat()
    except OSError as error:
        raise BuildError(f"cannot give device {source}: {(error.strerror or str(error)).lower()}") from error
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise BuildError(f"cannot give device {source}: it is not a device")
    kind: Literal["b", "c"] = "b" if stat.S_ISBLK(status.st_mode) else "c"
    return Device(
        kind=kind,
        path=node.path,
        source=source,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode if node.file_mode is None else node.file_mode),
        uid=status.st_uid if node.uid is None else node.uid,
        gid=status.st_gid if node.gid is None else node.gid,
        access=node.permissions,
    )


def _mount(mount: cdi.CdiMount) -> Mount:
    if not Path(mount.host_path).exists():
        raise BuildError(f"cannot show {mount.host_path} beside a device: no such file on the host")
    return Mount(
        kind="bind",
        source=mount.host_path,
        target=mount.container_path,
        read_only="ro" in mount.options,
        recursive="rbind" in mount.options,
    )
