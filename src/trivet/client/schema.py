"""The wire shapes of /v1, shared by the client and the door: instances, and what is common. A file per noun beside it.

Sizes are bytes, durations seconds, times RFC 3339 strings in UTC, unless a name says otherwise.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from trivet.client.schema_health import Health, HealthCheck
from trivet.client.schema_limit import RlimitRequest as RlimitRequest
from trivet.client.schema_machine import MachineRequest
from trivet.client.schema_network import EndpointRequest, LinkRequest, NetworkUse, Port, PortRequest, RateRequest
from trivet.client.schema_progress import Problem as Problem
from trivet.client.schema_progress import Progress as Progress
from trivet.client.schema_removal import PruneRequest as PruneRequest
from trivet.client.schema_removal import Removed as Removed

LevelName = Literal["process", "container", "vm"]


class MountRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One `-v` or `--mount`: kind bind (source: host path), volume (name, "" anonymous), image (its name) or tmpfs.

    `subpath` is shown instead of the whole volume or image. Without `recursive` what is mounted below the source isn't
    shown, with `shallow` it may be written though the rest is read-only. A volume that isn't there is made with
    `options` and `labels`. `uid` and `gid` are a tmpfs's, -1: root's. `mine` exchanges the owner of a bind's source and
    the instance's user: each finds the other's files to be its own.
    """

    kind: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str = ""
    read_only: bool = False
    propagation: str = "rprivate"
    size: int = 0
    mode: int = 0o1777
    no_copy: bool = False
    subpath: str = ""
    recursive: bool = True
    shallow: bool = False
    uid: int = -1
    gid: int = -1
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    mine: bool = False
    create_source: bool = False  # -v makes a missing host directory, --mount does not


class SecretGrant(msgspec.Struct, frozen=True, kw_only=True):
    """One `--secret`: the engine's secret `source` as file `target`, below /run/secrets if it isn't absolute."""

    source: str
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`--device`: the host's node `source`, or all below a directory, at `target` ("": the same path).

    `access` is of r, w and m (mknod).
    """

    source: str
    target: str = ""
    access: str = "rwm"


class BlockLimitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`--device-read-bps` and its like: what may be read and written of a block device, a second; 0 is no limit."""

    device: str
    read_bytes: int = 0
    write_bytes: int = 0
    read_operations: int = 0
    write_operations: int = 0


class LogRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`--log-driver` and `--log-opt`: json-file and local keep the log here, journald, syslog and fluentd are sent it
    besides, none keeps nothing."""

    driver: str = "json-file"
    options: dict[str, str] = {}


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """`--restart`: no, always, unless-stopped, on-failure[:retries]."""

    name: Literal["no", "always", "unless-stopped", "on-failure"] = "no"
    maximum: int = 0


class InstanceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `trivet run` and `create` can say; what is None or empty comes from the image."""

    image: str
    isolation: LevelName = "container"
    name: str = ""
    command: list[str] = []
    entrypoint: list[str] | None = None
    env: list[str] = []
    cwd: str = ""
    user: str = ""
    groups: list[str] = []
    umask: int = -1  # what isn't permitted to whom for new files; -1 as the launcher has it, 022
    hostname: str = ""
    terminal: bool = False
    stdin: bool = False
    rows: int = 0
    columns: int = 0
    mounts: list[MountRequest] = []
    secrets: list[SecretGrant] = []
    ports: list[PortRequest] = []
    publish_all: bool = False
    exposed: list[str] = []  # "80/tcp": ports others may use, for -P and to look at
    networks: list[EndpointRequest] = []
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    extra_hosts: list[str] = []
    links: list[LinkRequest] = []
    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    cpuset: str = ""
    cpuset_mems: str = ""
    swappiness: int = -1  # 0 to 100; -1: as the host has it
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    block_limits: list[BlockLimitRequest] = []
    pids_limit: int = 0
    shm_size: int = 64 << 20
    storage_size: int = 0  # bytes of the writable layer at most; 0: no limit, of a machine 10 GiB
    rlimits: list[RlimitRequest] = []
    sysctls: dict[str, str] = {}
    read_only: bool = False
    devices: list[DeviceRequest] = []
    device_rules: list[str] = []  # "c 1:3 rwm": what may be done with a node that the program makes, or is given
    system_paths: Literal["masked", "unconfined"] = "masked"  # what of /proc and /sys is hidden
    cap_add: list[str] = []
    cap_drop: list[str] = []
    privileged: bool = False
    userns: Literal["", "private", "host"] = ""
    pid: str = ""  # "", "private", "host", "container:NAME"
    ipc: str = ""  # "", "private", "shareable", "none" (no shared memory), "host", "container:NAME"
    uts: str = ""  # "", "private", "host"
    cgroupns: str = ""  # "", "private", "host"
    cgroup_parent: str = ""  # below which its control group is made; "": below the engine's own
    seccomp: str = "default"
    no_new_privileges: bool = True
    init: bool = False
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int = 10
    restart: RestartPolicy = RestartPolicy()
    health: HealthCheck | None = None
    health_on_failure: Literal["none", "kill", "restart", "stop"] = "none"
    auto_remove: bool = False
    pull: Literal["missing", "always", "never"] = "missing"
    platform: str = ""
    log: LogRequest = LogRequest()
    log_size: int = 64 << 20
    log_files: int = 1
    machine: MachineRequest | None = None  # one with an operating system of its own; `image` is what its disk begins as


class MountUse(msgspec.Struct, frozen=True, kw_only=True):
    """A mount as it is; `name` is the volume's, `image` an image's, `subpath` what of them is shown."""

    kind: str
    source: str
    target: str
    read_only: bool
    name: str = ""
    image: str = ""
    subpath: str = ""
    propagation: str = "rprivate"


class UserRange(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of the host that stand for an instance's: 0 inside is `first`, and so on."""

    first: int
    size: int


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """An instance, in lists and in `inspect`. `reference` is the name the image was asked for by."""

    id: str
    name: str
    image: str
    image_id: str
    isolation: LevelName
    acceleration: str
    status: str  # created, running, paused, restarting, exited, dead
    pid: int
    exit_code: int
    exit_signal: int
    out_of_memory: bool
    error: str
    created: str
    started: str
    finished: str
    restarts: int
    command: list[str]
    ports: list[Port]
    networks: list[NetworkUse]
    mounts: list[MountUse]
    labels: dict[str, str]
    request: InstanceRequest
    log_path: str
    health: Health | None = None  # None: it isn't checked
    users: UserRange | None = None  # None: the host's own, or a machine's
    origin: str = ""  # how a machine began: "forked", or "booted" and why
    size: int = -1  # bytes of the writable layer, only when asked for (-s)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A path of an instance that isn't as in its image; `kind` is changed, added or deleted."""

    path: str
    kind: str


class UpdateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`update`: what is None stays.

    `unpublish` is taken back before `publish` is published, in one step; host port 0 and address "" there mean any.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    restart: RestartPolicy | None = None
    publish: list[PortRequest] = []
    unpublish: list[PortRequest] = []
    rates: list[RateRequest] = []


class TakeoverRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Take over what `source` publishes: new connections reach the one that asks, those under way their old end.

    `ports` is what is published then; what the two have in common changes hands in one step. `drain` is for how many
    seconds, at most, the answer waits for the end of connections that `source` still has.
    """

    source: str
    ports: list[PortRequest]
    drain: float = 0


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a creation; with dry_run `id` is empty, `plan` and `operations` tell what would be done."""

    id: str
    warnings: list[str] = []
    plan: dict[str, Any] | None = None
    operations: list[str] = []


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One `exec`; `detach_keys` are what an attached terminal is left by, in Docker's spelling."""

    command: list[str]
    env: list[str] = []
    cwd: str = ""
    user: str = ""
    terminal: bool = False
    stdin: bool = False
    privileged: bool = False
    detach: bool = False
    rows: int = 0
    columns: int = 0
    detach_keys: str = ""


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How an instance ended; the answer to wait."""

    code: int
    signal: int = 0
    out_of_memory: bool = False
    error: str = ""


class PressureSample(msgspec.Struct, frozen=True, kw_only=True):
    """How long some tasks, or all, waited: percent of the last ten seconds."""

    kind: Literal["cpu", "memory", "io"]
    some: float
    full: float


class FileSystemSample(msgspec.Struct, frozen=True, kw_only=True):
    """A file system of a guest, in bytes."""

    path: str
    size: int
    used: int


class InsideSample(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel of a guest says: its memory in bytes, what its tasks wait for, its file systems."""

    memory: int
    available: int
    pressure: list[PressureSample] = []
    systems: list[FileSystemSample] = []


class ProcessorSample(msgspec.Struct, frozen=True, kw_only=True):
    """How processors were used, in seconds since the start: of so many `periods` of a limit it had to wait in
    `throttled_periods`, for `throttled` in all."""

    user: float = 0.0
    kernel: float = 0.0
    periods: int = 0
    throttled_periods: int = 0
    throttled: float = 0.0


class TrafficSample(msgspec.Struct, frozen=True, kw_only=True):
    """What one interface carried since the start."""

    name: str
    received: int = 0
    received_packets: int = 0
    received_errors: int = 0
    received_dropped: int = 0
    sent: int = 0
    sent_packets: int = 0
    sent_errors: int = 0
    sent_dropped: int = 0


class StatsSample(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `stats`: cpu_percent 100 is one core busy; `inside` is a machine's own view."""

    id: str
    name: str
    isolation: str
    cpu_percent: float
    cpu_total: float
    memory: int
    memory_limit: int
    pids: int
    read: int
    written: int
    received: int
    sent: int
    inside: InsideSample | None = None
    processor: ProcessorSample = ProcessorSample()
    traffic: list[TrafficSample] = []


class TopRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process of an instance: `cpu` is its share of a core over its life, in percent, `used` the seconds it had."""

    pid: int
    ppid: int
    user: str
    command: str
    cpu: float
    started: str
    used: float = 0.0


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to an object; `time_ns` orders them."""

    time: str
    time_ns: int
    kind: str  # instance, image, volume, network, system, build
    action: str
    id: str
    name: str
    attributes: dict[str, str] = {}
    labels: dict[str, str] = {}  # the object's own


class PathStat(msgspec.Struct, frozen=True, kw_only=True):
    """A file inside an instance, for `cp`: `mode` is st_mode, `link` a symbolic link's target."""

    name: str
    mode: int
    size: int
    modified: str
    link: str = ""
