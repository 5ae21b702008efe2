"""The runtime-spec's config.json and state as records (github.com/opencontainers/runtime-spec, 1.3.0).

Names are snake_case here and camelCase on the wire. A field that isn't here (another platform's, a later
version's) is ignored when it is read, as the specification asks of unknown properties. What each field does is
held against the specification by tests/conformance/test_runtime_fields.py.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from trivet.base.error import InvalidArgument

VERSION = "1.3.0"

NamespaceType = Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]


class InvalidSpec(InvalidArgument):
    """A config.json that isn't one; the message ends with the JSON path of the first mistake."""

    def __init__(self, origin: str, problem: str) -> None:
        super().__init__(f"{origin} is not a valid runtime configuration: {problem}")


class Record(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of the shapes below."""


class Box(Record, frozen=True, kw_only=True):
    """The size of a terminal."""

    height: int = 0
    width: int = 0


class User(Record, frozen=True, kw_only=True):
    """Numeric identity inside the container."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()
    username: str = ""


class Capabilities(Record, frozen=True, kw_only=True):
    """The five sets, by name (CAP_...)."""

    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Rlimit(Record, frozen=True, kw_only=True):
    """A POSIX limit, RLIMIT_..."""

    type: str
    soft: int
    hard: int


class Scheduler(Record, frozen=True, kw_only=True):
    """Scheduling (sched_setattr(2)); times are nanoseconds."""

    policy: str
    nice: int = 0
    priority: int = 0
    flags: tuple[str, ...] = ()
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(Record, frozen=True, kw_only=True):
    """Priority of input and output (ioprio_set(2))."""

    class_: str = msgspec.field(name="class")
    priority: int = 0


class ExecAffinity(Record, frozen=True, kw_only=True):
    """Processors of a program that exec adds, as lists ("0-3,7"): while it is set up, and then."""

    initial: str = ""
    final: str = ""


class Process(Record, frozen=True, kw_only=True):
    """The program, and what it may do."""

    cwd: str
    terminal: bool = False
    console_size: Box | None = None
    user: User = User()
    args: tuple[str, ...] = ()
    command_line: str = ""
    env: tuple[str, ...] = ()
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str = ""
    selinux_label: str = ""
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    exec_cpu_affinity: ExecAffinity | None = msgspec.field(default=None, name="execCPUAffinity")


class Root(Record, frozen=True, kw_only=True):
    """Where the root file system is, relative to the bundle."""

    path: str
    readonly: bool = False


class Namespace(Record, frozen=True, kw_only=True):
    """A namespace of the container's own, or with `path` one to join."""

    type: NamespaceType
    path: str = ""


class IdMapping(Record, frozen=True, kw_only=True):
    """A range of ids mapped into a user namespace."""

    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(Record, frozen=True, kw_only=True):
    """A mount as mount(8) would be told: options are its words."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class TimeOffset(Record, frozen=True, kw_only=True):
    """How far a clock of a time namespace is ahead."""

    secs: int = 0
    nanosecs: int = 0


class NetDevice(Record, frozen=True, kw_only=True):
    """A network interface of the host that moves into the container."""

    name: str = ""


class Personality(Record, frozen=True, kw_only=True):
    """The execution domain (personality(2))."""

    domain: str
    flags: tuple[str, ...] = ()


class MemoryPolicy(Record, frozen=True, kw_only=True):
    """Where memory is taken from (set_mempolicy(2)); `nodes` is a list as "0-3,7"."""

    mode: str
    nodes: str = ""
    flags: tuple[str, ...] = ()


class IntelRdt(Record, frozen=True, kw_only=True):
    """Cache and memory bandwidth (resctrl)."""

    clos_id: str = msgspec.field(default="", name="closID")
    schemata: tuple[str, ...] = ()
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False
    enable_cmt: bool = msgspec.field(default=False, name="enableCMT")
    enable_mbm: bool = msgspec.field(default=False, name="enableMBM")


class Device(Record, frozen=True, kw_only=True):
    """A device node to make."""

    type: Literal["c", "b", "u", "p"]
    path: str
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int = 0
    gid: int = 0


class DeviceRule(Record, frozen=True, kw_only=True):
    """A rule of the device cgroup; None is every number."""

    allow: bool
    type: Literal["a", "b", "c"] = "a"
    major: int | None = None
    minor: int | None = None
    access: str = ""  # none is every one


class Memory(Record, frozen=True, kw_only=True):
    """Limits in bytes, -1 unlimited; `swap` is memory and swap together."""

    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    kernel: int | None = None
    kernel_tcp: int | None = msgspec.field(default=None, name="kernelTCP")
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class Cpu(Record, frozen=True, kw_only=True):
    """`quota` of every `period` microseconds, `burst` of them saved up; `idle` 1 is SCHED_IDLE for all."""

    shares: int | None = None
    quota: int | None = None
    burst: int | None = None
    period: int | None = None
    realtime_runtime: int | None = None
    realtime_period: int | None = None
    idle: int | None = None
    cpus: str = ""
    mems: str = ""


class Pids(Record, frozen=True, kw_only=True):
    """How many tasks there may be; -1 is no limit. Before version 1.3.0 of the specification 0 was none, too."""

    limit: int | None = None


class WeightDevice(Record, frozen=True, kw_only=True):
    """The share of one block device."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class ThrottleDevice(Record, frozen=True, kw_only=True):
    """A limit for one block device, in bytes or operations a second."""

    major: int
    minor: int
    rate: int


class BlockIo(Record, frozen=True, kw_only=True):
    """The share of block devices, 10 to 1000, and limits."""

    weight: int | None = None
    leaf_weight: int | None = None
    weight_device: tuple[WeightDevice, ...] = ()
    throttle_read_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_write_bps_device: tuple[ThrottleDevice, ...] = ()
    throttle_read_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(default=(), name="throttleReadIOPSDevice")
    throttle_write_iops_device: tuple[ThrottleDevice, ...] = msgspec.field(default=(), name="throttleWriteIOPSDevice")


class HugepageLimit(Record, frozen=True, kw_only=True):
    """Bytes in huge pages of a size ("2MB")."""

    page_size: str
    limit: int


class InterfacePriority(Record, frozen=True, kw_only=True):
    """The priority of traffic on an interface."""

    name: str
    priority: int


class NetworkResources(Record, frozen=True, kw_only=True):
    """What net_cls and net_prio mark packets with."""

    class_id: int | None = msgspec.field(default=None, name="classID")
    priorities: tuple[InterfacePriority, ...] = ()


class Rdma(Record, frozen=True, kw_only=True):
    """Limits of an RDMA device."""

    hca_handles: int | None = None
    hca_objects: int | None = None


class Resources(Record, frozen=True, kw_only=True):
    """What the control groups enforce."""

    devices: tuple[DeviceRule, ...] = ()
    memory: Memory | None = None
    cpu: Cpu | None = None
    pids: Pids | None = None
    block_io: BlockIo | None = msgspec.field(default=None, name="blockIO")
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    network: NetworkResources | None = None
    rdma: dict[str, Rdma] = {}
    unified: dict[str, str] = {}


class SyscallArgument(Record, frozen=True, kw_only=True):
    """A condition on one argument of a system call."""

    index: int
    value: int
    value_two: int = 0
    op: Literal[
        "SCMP_CMP_NE",
        "SCMP_CMP_LT",
        "SCMP_CMP_LE",
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_MASKED_EQ",
    ]


class SyscallRule(Record, frozen=True, kw_only=True):
    """What happens to the named calls when all conditions hold."""

    names: tuple[str, ...]
    action: str
    errno_ret: int | None = None
    args: tuple[SyscallArgument, ...] = ()


class Seccomp(Record, frozen=True, kw_only=True):
    """A system call filter."""

    default_action: str
    default_errno_ret: int | None = None
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""
    syscalls: tuple[SyscallRule, ...] = ()


class Linux(Record, frozen=True, kw_only=True):
    """Everything that is Linux's own."""

    namespaces: tuple[Namespace, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    resources: Resources | None = None
    rootfs_propagation: str = ""
    seccomp: Seccomp | None = None
    sysctl: dict[str, str] = {}
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    mount_label: str = ""
    net_devices: dict[str, NetDevice] = {}
    intel_rdt: IntelRdt | None = None
    personality: Personality | None = None
    memory_policy: MemoryPolicy | None = None
    time_offsets: dict[Literal["monotonic", "boottime"], TimeOffset] = {}


class Hook(Record, frozen=True, kw_only=True):
    """A program run at a point of the container's life."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout: int | None = None


class Hooks(Record, frozen=True, kw_only=True):
    """The six kinds, in the order they run."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Spec(Record, frozen=True, kw_only=True):
    """A config.json."""

    oci_version: str
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux | None = None
    vm: dict[str, object] | None = None
    freebsd: dict[str, object] | None = None
    solaris: dict[str, object] | None = None
    windows: dict[str, object] | None = None
    zos: dict[str, object] | None = None


class State(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `state` prints and hooks read."""

    oci_version: str
    id: str
    status: Literal["creating", "created", "running", "paused", "stopped"]
    pid: int
    bundle: str
    annotations: dict[str, str] = {}


_DECODER = msgspec.json.Decoder(Spec)


def decode(raw: bytes, origin: str = "config.json") -> Spec:
    """Read a config.json. Raises `InvalidSpec` with the JSON path of the first mistake."""
    try:
        return _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSpec(origin, str(error)) from error


def encode(spec: Spec) -> bytes:
    """Write a config.json, indented."""
    return msgspec.json.format(msgspec.json.encode(spec), indent=2)


def since(version: str, wanted: tuple[int, int]) -> bool:
    """Tell whether a configuration's ociVersion ("1.0.2-dev") is at least this major and minor one."""
    numbers = version.split(".")[:2]
    return len(numbers) == 2 and all(n.isdigit() for n in numbers) and tuple(map(int, numbers)) >= wanted
