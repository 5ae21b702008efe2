"""The records handed down to a level: printable, comparable, complete.

The engine folds an image's configuration and the user's options into one `Plan`; a driver needs
nothing else to start, find, signal, measure and remove the instance. A plan is stored with the
instance and is what `trivet run --dry-run` prints. Paths are host paths unless a field says "inside".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from trivet.isolation.hardware import Hardware


class Level(StrEnum):
    """How far an instance is kept apart from the host."""

    PROCESS = "process"
    CONTAINER = "container"
    VM = "vm"


class Mine(msgspec.Struct, frozen=True, kw_only=True):
    """Whose files a mount shows as the instance's own: `uid` and `gid` on disk are `user` and `group` inside."""

    uid: int
    gid: int
    user: int = 0
    group: int = 0


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """Something shown inside the instance at `target`.

    `bind` shows host path `source` (file or directory); `tmpfs` is memory, `size` bytes (0: kernel default).
    `name` is the volume's name where the source is a named or anonymous volume, `image` an image's where it is that.
    With a `subpath` the source is what that leads to in `base`, found at the start. `shallow` leaves what is mounted
    below a read-only source as it is.
    """

    kind: Literal["bind", "tmpfs"]
    target: str
    source: str = ""
    name: str = ""
    read_only: bool = False
    image: str = ""
    base: str = ""
    subpath: str = ""
    recursive: bool = True
    shallow: bool = False
    uid: int = -1
    gid: int = -1
    propagation: Literal["private", "rprivate", "slave", "rslave", "shared", "rshared"] = "rprivate"
    size: int = 0
    mode: int = 0o1777
    mine: Mine | None = None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A small file the engine writes for the instance (/etc/hosts, /etc/resolv.conf, /etc/hostname).

    `source` is the engine's copy on the host; container and process show it by a bind mount, a VM
    gets `content` written into its root before the program starts.
    """

    target: str
    source: str
    content: bytes
    mode: int = 0o644


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """The instance's root file system, in the form its level asked the snapshotter for.

    form `mount`: overlay of `lowers` (topmost first) under `upper`, with `work`; `copied`: `upper` alone, which
    began as a copy of them.
    form `drive`: `lowers` holds one read-only EROFS image file, `upper` is a raw ext4 image file.
    form `disk`: `upper` is a directory of disks, the first over the raw image that `lowers` holds, if any.
    """

    form: Literal["mount", "drive", "disk"]
    lowers: tuple[str, ...]
    upper: str
    work: str = ""
    read_only: bool = False
    volatile: bool = False
    copied: bool = False


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address in CIDR form, and the gateway of its default route ("" for none)."""

    address: str
    gateway: str = ""


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """One network interface of an instance, made by `engine/network` before the start.

    kind `netns`: `path` is a network namespace holding interface `device`, to be named `name`.
    kind `tap`: `device` is a persistent tap device on the host, already on its bridge, or a macvtap, whose character
    device is `path`.
    kind `host`: the host's own network. kind `none`: loopback only.
    """

    kind: Literal["netns", "tap", "host", "none"]
    network: str
    name: str = "eth0"
    device: str = ""
    path: str = ""
    mac: str = ""
    mtu: int = 1500
    addresses: tuple[Address, ...] = ()


class BlockLimit(msgspec.Struct, frozen=True, kw_only=True):
    """What may be done with a block device in a second: `what` is rbps, wbps, riops or wiops."""

    what: Literal["rbps", "wbps", "riops", "wiops"]
    major: int
    minor: int
    rate: int


class DeviceRule(msgspec.Struct, frozen=True, kw_only=True):
    """Devices, given or made, that may be used; None is every number."""

    kind: Literal["a", "b", "c"]
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Resource limits; 0 means none. Memory in bytes, cpus in cores, shares as in cpu.shares (1024 = 1).

    `swappiness` -1 is the host's; `oom_score` is added to the kernel's own when it looks whom to kill.
    """

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    cpus: float = 0.0
    cpu_shares: int = 0
    cpuset: str = ""
    mems: str = ""
    swappiness: int = -1
    no_oom_killer: bool = False
    oom_score: int = 0
    block: tuple[BlockLimit, ...] = ()
    pids: int = 0


class Rlimit(msgspec.Struct, frozen=True):
    """A POSIX resource limit, by its name without RLIMIT_, e.g. NOFILE; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Security(msgspec.Struct, frozen=True, kw_only=True):
    """What the program may do. Levels apply what they can (see the expectation table in the contract suite)."""

    capabilities: tuple[str, ...]
    no_new_privileges: bool = True
    seccomp: Literal["default", "unconfined"] = "default"
    masked: bool = True
    privileged: bool = False


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The user namespace of an instance: ids 0 to `size` - 1 inside are `first` and up on the host.

    `path` is the namespace's file, made before the start. Files keep the ids they have inside. What is `borrowed` is
    another instance's. `network` is a network namespace that was made with it, for an instance on no network.
    """

    path: str
    first: int
    size: int = 65536
    borrowed: bool = False
    network: str = ""


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace that is not the instance's own: another's, by its file's `path`, or with "" the host's."""

    kind: Literal["pid", "ipc", "uts", "cgroup"]
    path: str = ""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device node of the host, at `path` inside; `access` of r, w and m is what the program may do with it.

    `source` is where the host has it, "" at `path` too.
    """

    kind: Literal["c", "b"]
    path: str
    source: str = ""
    major: int
    minor: int
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Where the monitor writes output: CRI format, rotated at `size` bytes, keeping `files` old ones."""

    path: str
    size: int = 64 << 20
    files: int = 1


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What to run, as whom, where: the instance's own program, or one `exec` adds.

    `user` is Docker's "name|uid[:group|gid]", looked up inside the instance; "" is root. `umask` -1 is 022.
    `builtin` replaces `argv[0]` by a function of the launcher that runs after everything else was
    set up (archive-read, archive-write, stat): nothing of the image is executed.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[str, ...] = ()
    umask: int = -1
    terminal: bool = False
    rows: int = 0
    columns: int = 0
    stdin: bool = False
    privileged: bool = False
    builtin: str = ""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a driver needs to know about one instance.

    `memory` is a place on the host where /dev/shm is kept for others to share, "" when it is the instance's own; it
    is another instance's unless it is in `directory`. With `shm_size` 0 there is no /dev/shm.
    `directory` (run directory, mode 0700) holds monitor.sock, pid, exit; it is on tmpfs and its
    absence means "not started since boot". `cgroup` is the path below every controller's mount.
    `hardware` is a machine's that has an operating system of its own.
    """

    id: str
    name: str
    level: Level
    program: Program
    root: Root
    directory: str
    cgroup: str
    log: Log
    security: Security
    hostname: str = ""
    mounts: tuple[Mount, ...] = ()
    files: tuple[File, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    limits: Limits = Limits()
    rlimits: tuple[Rlimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    shm_size: int = 64 << 20
    memory: str = ""
    init: bool = False
    owner: Owner | None = None
    shared: tuple[Shared, ...] = ()
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    stop_signal: str = "TERM"
    hardware: Hardware | None = None
