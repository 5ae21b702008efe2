"""Containers of an ordinary user: what must be asked for, by whom their ids are mapped, and what they can't have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trivet.base.error import Denied, InvalidArgument, Unavailable, Unsupported
from trivet.oci.runtime import IdMapping, Linux, Mount, Spec
from trivet.runtime import namespace

_EVERYBODY = (0, 0, 4294967295)  # the initial user namespace's map


class NeedsRoot(Unsupported):
    """What an ordinary user can't be given."""

    def __init__(self, what: str, path: str) -> None:
        super().__init__(f"{what} needs root - at `{path}`")


class MappingRefused(Denied):
    """Ids that this user was not given."""

    def __init__(self, program: str, words: str) -> None:
        super().__init__(f"cannot map the ids: {words or program}", hint=f"man {program}: /etc/subuid, /etc/subgid")


def ordinary() -> bool:
    """Tell whether this process is not root, not even of a user namespace."""
    return os.geteuid() != 0


def applies(word: str) -> bool:
    """Tell whether `--rootless` WORD means that control groups are optional: "auto" looks at who we are."""
    if word == "auto":
        return ordinary() or _confined()
    return word == "true"


def home() -> Path:
    """Give the place where state is kept: /run for root, the session's directory for others."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not runtime or not (ordinary() or (_confined() and os.environ.get("USER") != "root")):
        return Path("/run/trivet-runtime")
    return Path(runtime, "trivet-runtime")


def _confined() -> bool:
    """Tell whether this process is in a user namespace below the first one."""
    lines = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return [tuple(map(int, line)) for line in lines] != [_EVERYBODY]


def check(spec: Spec) -> None:
    """Refuse what the kernel keeps from an ordinary user. Raises `NeedsRoot` or `InvalidArgument`."""
    linux = spec.linux or Linux()
    if not namespace.has(linux.namespaces, "user"):
        raise InvalidArgument(
            "a container of an ordinary user needs a user namespace - at `$.linux.namespaces`",
            hint="trivet-runtime spec --rootless",
        )
    if namespace.has(linux.namespaces, "time", new=True):
        raise NeedsRoot("a new time namespace", "$.linux.namespaces")
    if linux.net_devices:
        raise NeedsRoot("moving a network interface", "$.linux.netDevices")
    for place, mount in enumerate(spec.mounts):
        if mount.uid_mappings or mount.gid_mappings or {"idmap", "ridmap"} & set(mount.options):
            raise NeedsRoot("a mount with other owners", f"$.mounts[{place}]")
        _check_owners(linux, mount, place)


def _check_owners(linux: Linux, mount: Mount, place: int) -> None:
    for word, mappings in (("uid=", linux.uid_mappings), ("gid=", linux.gid_mappings)):
        for option in mount.options:
            number = option.removeprefix(word)
            if mappings and number != option and number.isdigit() and not _maps(mappings, int(number)):
                raise InvalidArgument(f"{option} is not mapped - at `$.mounts[{place}].options`")


def without_groups(spec: Spec) -> Spec:
    """Show an empty directory where control groups are to be seen: of those there are none is the container's."""
    linux = spec.linux or Linux()
    if namespace.has(linux.namespaces, "cgroup"):
        return spec
    empty = {"type": "tmpfs", "source": "tmpfs"}
    kinds = ("cgroup", "cgroup2")
    mounts = tuple(msgspec.structs.replace(one, **empty) if one.type in kinds else one for one in spec.mounts)
    return msgspec.structs.replace(spec, mounts=mounts)


def _maps(mappings: tuple[IdMapping, ...], number: int) -> bool:
    return any(one.container_id <= number < one.container_id + one.size for one in mappings)


def write_maps(pid: int, linux: Linux) -> None:
    """Map the ids of a process's new user namespace, as far as this user may: by itself, or by newuidmap(1).

    Raises `MappingRefused`, or `Unavailable` without the program.
    """
    # Group ids first: newuidmap(1) changes nothing about groups, while who may write gid_map depends on setgroups.
    _write(pid, "gid", linux.gid_mappings, os.getegid())
    _write(pid, "uid", linux.uid_mappings, os.geteuid())


def _write(pid: int, kind: str, mappings: tuple[IdMapping, ...], own: int) -> None:
    if [(one.host_id, one.size) for one in mappings] == [(own, 1)]:
        directory = Path("/proc", str(pid))
        if kind == "gid":  # who drops a group could get rights that the group was kept from (user_namespaces(7))
            (directory / "setgroups").write_text("deny")
        (directory / f"{kind}_map").write_text(f"{mappings[0].container_id} {own} 1\n")
        return
    import shutil  # only here: every start would pay
    import subprocess

    program = f"new{kind}map"
    if shutil.which(program) is None:
        raise Unavailable(f"there is no {program}, which maps more ids than one's own", hint="apt install uidmap")
    words = [program, str(pid), *_numbers(mappings)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise MappingRefused(program, done.stderr.strip().partition("\n")[0])


def _numbers(mappings: tuple[IdMapping, ...]) -> Iterator[str]:
    for one in mappings:
        yield from (str(one.container_id), str(one.host_id), str(one.size))
