"""Image configuration + what the user asked for → `isolation.Plan`. Pure."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import msgspec

from trivet.base.error import InvalidArgument
from trivet.client.schema import InstanceRequest
from trivet.engine.instance import device
from trivet.isolation.hardware import Hardware
from trivet.isolation.plan import (
    Attachment,
    Device,
    File,
    Level,
    Limits,
    Log,
    Mount,
    Owner,
    Plan,
    Program,
    Rlimit,
    Root,
    Security,
    Shared,
)
from trivet.kernel.capability import ALL, DEFAULT
from trivet.oci.config import Config

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHARED_MEMORY = 64 << 20
PIDS = 4096  # what an instance gets when nothing is asked for: a fork bomb must end somewhere


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one instance lives: `state` is kept over a reboot, `run` is not, `cgroup` is below every controller."""

    state: Path
    run: Path
    cgroup: str

    @property
    def files(self) -> Path:
        """Where the engine's copies of the instance's generated files are."""
        return self.run / "file"


class NoCommand(InvalidArgument):
    """Neither the request nor the image says what to run."""

    def __init__(self, image: str) -> None:
        super().__init__(f"image {image} has no command, and none was given", hint=f"trivet run {image} COMMAND")


class UnknownCapability(InvalidArgument):
    """A word that names no capability."""

    def __init__(self, name: str, word: str) -> None:
        super().__init__(f"unknown capability {word}", hint="see capabilities(7)")
        self.name = name


def make_plan(
    request: InstanceRequest,
    image: Config,
    *,
    key: str,
    name: str,
    place: Place,
    root: Root,
    mounts: tuple[Mount, ...] = (),
    files: tuple[File, ...] = (),
    attachments: tuple[Attachment, ...] = (),
    owner: Owner | None = None,
    shared: tuple[Shared, ...] = (),
    devices: tuple[Device, ...] = (),
    memory: str = "",
    hardware: Hardware | None = None,
) -> Plan:
    """Fold everything known about an instance into the record its level works from."""
    level = Level(request.isolation)
    own_name = level is not Level.PROCESS and not any(each.kind == "uts" for each in shared)
    hostname = platform.node() if not own_name else request.hostname or key[:12]
    return Plan(
        id=key,
        name=name,
        level=level,
        program=program(request, image, hostname),
        root=msgspec.structs.replace(root, read_only=request.read_only, volatile=request.auto_remove),
        directory=str(place.run),
        cgroup=_group(request.cgroup_parent, key) if request.cgroup_parent else place.cgroup,
        log=Log(path=_log_path(request, place), size=request.log_size, files=request.log_files),
        security=security(request),
        hostname=hostname,
        mounts=mounts,
        files=files,
        attachments=attachments,
        limits=limits(request),
        rlimits=tuple(Rlimit(limit.name.upper(), limit.soft, limit.hard) for limit in request.rlimits),
        sysctls=tuple(sorted(request.sysctls.items())),
        shm_size=0 if request.ipc == "none" else request.shm_size or SHARED_MEMORY,
        memory=memory,
        init=request.init,
        owner=owner,
        shared=shared,
        devices=devices,
        device_rules=device.rules(request.device_rules, level),
        stop_signal=request.stop_signal or image.stop_signal or "TERM",
        hardware=hardware,
    )


def _group(parent: str, key: str) -> str:
    """Name the control group below a parent of the user's, which stays when the instance goes.

    Like at Docker it makes no difference whether the parent begins with a slash. Raises `InvalidArgument`.
    """
    parts = [part for part in parent.split("/") if part]
    if not {".", ".."}.isdisjoint(parts) or any(ord(letter) < ord(" ") for letter in parent):
        raise InvalidArgument(
            f"invalid parent of a control group: {parent!r} is no path below the root of control groups",
            hint="write it as in /proc/self/cgroup: /some/group",
        )
    return "/".join((*parts, key))


def _log_path(request: InstanceRequest, place: Place) -> str:
    return "" if request.log.driver == "none" else str(place.state / "log")


def program(request: InstanceRequest, image: Config, hostname: str) -> Program:
    """Apply Docker's rules for command, entry point and environment. Raises `NoCommand`."""
    entrypoint = image.entrypoint if request.entrypoint is None else request.entrypoint
    command = request.command or ([] if request.entrypoint is not None else image.cmd)
    argv = [*(entrypoint or ()), *(command or ())]
    if not argv or not argv[0]:
        raise NoCommand(request.image)
    return Program(
        argv=tuple(argv),
        env=environment(image.env or (), request, hostname),
        cwd=request.cwd or image.working_dir or "/",
        user=request.user or image.user or "",
        groups=tuple(request.groups),
        umask=request.umask,
        terminal=request.terminal,
        rows=request.rows,
        columns=request.columns,
        stdin=request.stdin,
    )


def environment(image: Sequence[str], request: InstanceRequest, hostname: str) -> tuple[str, ...]:
    """Merge PATH, HOSTNAME, TERM, the image's variables and the request's; later ones win, order is kept."""
    base = [PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if request.terminal else [])]
    merged: dict[str, str] = {}
    for item in [*base, *image, *request.env]:
        key, sign, value = item.partition("=")
        if sign:
            merged[key] = value
        else:
            merged.pop(key, None)
    return tuple(f"{key}={value}" for key, value in merged.items())


def limits(request: InstanceRequest) -> Limits:
    """Translate the request's limits; -1 pids lifts the default."""
    pids = {0: PIDS, -1: 0}.get(request.pids_limit, request.pids_limit)
    return Limits(
        memory=request.memory,
        memory_swap=request.memory_swap,
        memory_reservation=request.memory_reservation,
        cpus=request.cpus,
        cpu_shares=request.cpu_shares,
        cpuset=request.cpuset,
        mems=request.cpuset_mems,
        swappiness=request.swappiness,
        no_oom_killer=request.oom_kill_disable,
        oom_score=request.oom_score_adj,
        block=device.block_limits(request.block_limits),
        pids=pids,
    )


def security(request: InstanceRequest) -> Security:
    """Work out the capability set. Raises `InvalidArgument` for an unknown capability."""
    kept = set(ALL if request.privileged else DEFAULT)
    for words, apply in ((request.cap_add, kept.update), (request.cap_drop, kept.difference_update)):
        for word in words:
            apply(capability_names(word))
    return Security(
        capabilities=tuple(sorted(kept)),
        no_new_privileges=request.no_new_privileges and not request.privileged,
        seccomp="unconfined" if request.privileged or request.seccomp == "unconfined" else "default",
        masked=request.system_paths == "masked",
        privileged=request.privileged,
    )


def capability_names(word: str) -> list[str]:
    """Spell `net_admin`, `CAP_NET_ADMIN` or `ALL` as the kernel's names. Raises `UnknownCapability`."""
    name = word.upper()
    if name == "ALL":
        return list(ALL)
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in ALL:
        raise UnknownCapability(name, word)
    return [name]
