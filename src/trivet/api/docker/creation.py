"""The body of `POST /containers/create` → `InstanceRequest`. Pure, but for volumes of other containers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from trivet.api.docker import endpoint, health, link, mount
from trivet.base.error import InvalidArgument, Unsupported
from trivet.client.schema import (
    BlockLimitRequest,
    DeviceRequest,
    InstanceRequest,
    LevelName,
    LogRequest,
    MountRequest,
    RestartPolicy,
    RlimitRequest,
)
from trivet.client.schema_network import PortRequest
from trivet.oci.config import Healthcheck
from trivet.shipper import option

LABEL = "trivet.isolation"
MOST_PORT = 65535
RUNTIMES: dict[str, LevelName] = {
    "": "container",
    "container": "container",
    "runc": "container",
    "io.containerd.runc.v2": "container",
    "process": "process",
    "vm": "vm",
}
_Users = Literal["", "private", "host"]


class PortBinding(msgspec.Struct, frozen=True, rename="pascal"):
    """Where one port is published."""

    host_ip: str = ""
    host_port: str = ""


class Ulimit(msgspec.Struct, frozen=True, rename="pascal"):
    """One `--ulimit`."""

    name: str
    soft: int
    hard: int


class Policy(msgspec.Struct, frozen=True, rename="pascal"):
    """`--restart`."""

    name: str = "no"
    maximum_retry_count: int = 0


class LogConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """`--log-driver` and `--log-opt`."""

    type: str = ""
    config: dict[str, str] = {}


class DeviceMapping(msgspec.Struct, frozen=True, rename="pascal"):
    """One `--device`."""

    path_on_host: str
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"

    def request(self) -> DeviceRequest:
        """Translate."""
        return DeviceRequest(source=self.path_on_host, target=self.path_in_container, access=self.cgroup_permissions)


class Throttle(msgspec.Struct, frozen=True, rename="pascal"):
    """One `--device-read-bps`, or its like."""

    path: str
    rate: int


class Resources(msgspec.Struct, frozen=True, rename="pascal"):
    """What is limited, and can be changed later."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    nano_cpus: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0


class HostConfig(Resources, frozen=True, rename="pascal"):
    """What of HostConfig is understood; every other field is in REFUSED or without effect (docs/docker.md)."""

    binds: list[str] = []
    mounts: list[mount.Mount] = []
    tmpfs: dict[str, str] = {}
    volumes_from: list[str] = []
    port_bindings: dict[str, list[PortBinding] | None] = {}
    publish_all_ports: bool = False
    network_mode: str = ""
    restart_policy: Policy = Policy()
    auto_remove: bool = False
    cap_add: list[str] = []
    cap_drop: list[str] = []
    privileged: bool = False
    readonly_rootfs: bool = False
    ulimits: list[Ulimit] = []
    sysctls: dict[str, str] = {}
    shm_size: int = 0
    storage_opt: dict[str, str] | None = None
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    extra_hosts: list[str] = []
    group_add: list[str] = []
    security_opt: list[str] = []
    init: bool | None = None
    runtime: str = ""
    log_config: LogConfig = LogConfig()
    links: list[str] = []
    devices: list[DeviceMapping] = []
    device_requests: list[Any] = []
    pid_mode: str = ""
    ipc_mode: str = ""
    userns_mode: str = ""
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    volume_driver: str = ""
    oom_score_adj: int = 0
    oom_kill_disable: bool = False
    memory_swappiness: int = -1
    blkio_device_read_bps: list[Throttle] = []
    blkio_device_write_bps: list[Throttle] = []
    blkio_device_read_iops: list[Throttle] = msgspec.field(default=[], name="BlkioDeviceReadIOps")
    blkio_device_write_iops: list[Throttle] = msgspec.field(default=[], name="BlkioDeviceWriteIOps")
    device_cgroup_rules: list[str] = []
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    console_size: list[int] = []
    cgroupns_mode: str = ""
    cgroup_parent: str = ""


class NetworkingConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The networks wanted, by name."""

    endpoints_config: dict[str, endpoint.Endpoint | None] = {}


class Creation(msgspec.Struct, frozen=True, rename="pascal"):
    """The whole body."""

    image: str = ""
    cmd: list[str] | str | None = None
    entrypoint: list[str] | str | None = None
    env: list[str] = []
    working_dir: str = ""
    user: str = ""
    hostname: str = ""
    tty: bool = False
    open_stdin: bool = False
    exposed_ports: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    mac_address: str = ""
    network_disabled: bool = False
    healthcheck: Healthcheck | None = None
    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


REFUSED: tuple[tuple[str, tuple[object, ...], str], ...] = (
    # field of HostConfig, what is fine, what to say of anything else
    ("device_requests", ([],), "devices of drivers (--gpus) cannot be given to instances"),
    ("volume_driver", ("", "local"), "the only volume driver is local"),
)


def request(wish: Creation, name: str, platform: str, more: list[MountRequest]) -> InstanceRequest:
    """Translate; `more` are the mounts of --volumes-from. Raises `InvalidArgument` or `Unsupported`."""
    host, labels = wish.host_config, wish.labels or {}
    for field, fine, words in REFUSED:
        if (getattr(host, field) or fine[0]) not in fine:
            raise Unsupported(words)
    if not wish.image:
        raise InvalidArgument("no image specified")
    endpoints = wish.networking_config.endpoints_config or {}
    mode = "none" if wish.network_disabled and not endpoints else host.network_mode
    rows, columns = host.console_size if len(host.console_size or ()) == 2 else (0, 0)
    return InstanceRequest(
        image=wish.image,
        isolation=_level(host.runtime, labels),
        name=name,
        command=_words(wish.cmd) or [],
        entrypoint=_words(wish.entrypoint),
        env=wish.env or [],
        cwd=wish.working_dir,
        user=wish.user,
        groups=host.group_add or [],
        hostname=wish.hostname,
        terminal=wish.tty,
        rows=rows,
        columns=columns,
        stdin=wish.open_stdin,
        mounts=mount.requests(host.binds, host.mounts, host.tmpfs, wish.volumes, more),
        ports=_ports(wish),
        publish_all=host.publish_all_ports,
        exposed=[_exposed(key) for key in wish.exposed_ports or {}],
        networks=endpoint.requests(mode, endpoints, wish.mac_address),
        dns=host.dns or [],
        dns_search=host.dns_search or [],
        dns_options=host.dns_options or [],
        extra_hosts=host.extra_hosts or [],
        links=link.requests(host.network_mode, [*(host.links or ()), *endpoint.links(endpoints)]),
        memory=host.memory or 0,
        memory_swap=host.memory_swap or 0,
        memory_reservation=host.memory_reservation or 0,
        cpus=cpus(host.nano_cpus, host.cpu_quota, host.cpu_period),
        cpu_shares=host.cpu_shares or 0,
        cpuset=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        swappiness=host.memory_swappiness,
        oom_kill_disable=host.oom_kill_disable,
        oom_score_adj=host.oom_score_adj,
        block_limits=_throttles(host),
        device_rules=host.device_cgroup_rules or [],
        system_paths="unconfined" if host.masked_paths == [] and host.readonly_paths == [] else "masked",
        pids_limit=host.pids_limit or 0,
        shm_size=host.shm_size or 64 << 20,
        storage_size=_storage(host.storage_opt or {}),
        rlimits=[RlimitRequest(limit.name, limit.soft, limit.hard) for limit in host.ulimits or ()],
        sysctls=host.sysctls or {},
        read_only=host.readonly_rootfs,
        pid=_mode("PID", host.pid_mode, ("private", "host")),
        ipc=_mode("IPC", host.ipc_mode, ("private", "shareable", "none", "host")),
        cgroupns=host.cgroupns_mode,
        cgroup_parent=host.cgroup_parent,
        uts=_mode("UTS", host.uts_mode, ("private", "host"), joined=False),
        devices=[each.request() for each in host.devices or ()],
        cap_add=host.cap_add or [],
        cap_drop=host.cap_drop or [],
        privileged=host.privileged,
        userns=msgspec.convert(_mode("user namespace", host.userns_mode, ("private", "host"), joined=False), _Users),
        init=bool(host.init),
        labels=labels,
        stop_signal=wish.stop_signal,
        stop_timeout=10 if wish.stop_timeout is None else wish.stop_timeout,
        restart=policy(host.restart_policy),
        health=health.request(wish.healthcheck),
        auto_remove=host.auto_remove,
        pull="never",
        platform=platform,
        **_security(host.security_opt or []),
        **_log(host.log_config),
    )


WITHOUT_EFFECT = (
    # fields of HostConfig that are taken and change nothing: who asks for them is told so
    *("BlkioWeight", "BlkioWeightDevice", "Cgroup", "CpuRealtimePeriod", "CpuRealtimeRuntime"),
    *("KernelMemory", "KernelMemoryTCP", "CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"),
)


def _throttles(host: HostConfig) -> list[BlockLimitRequest]:
    lists = {
        "read_bytes": host.blkio_device_read_bps,
        "write_bytes": host.blkio_device_write_bps,
        "read_operations": host.blkio_device_read_iops,
        "write_operations": host.blkio_device_write_iops,
    }
    return [
        msgspec.convert({"device": each.path, field: each.rate}, BlockLimitRequest)
        for field, throttles in lists.items()
        for each in throttles or ()
    ]


def warnings(wish: HostConfig, names: frozenset[str]) -> list[str]:
    """Tell what was asked for and has no effect, or a doubtful one; `names` are the fields that say something."""
    said = [f"{name} has no effect here. It was discarded." for name in WITHOUT_EFFECT if name in names]
    if wish.network_mode == "host" and wish.port_bindings:
        said.append("Published ports are discarded when using host network mode")
    if wish.oom_kill_disable and not wish.memory:
        words = "no memory limit is set, this can result in the system running out of resources."
        said.append(f"OOM killer is disabled for the container, but {words}")
    return said


def policy(wish: Policy) -> RestartPolicy:
    """Translate a restart policy. Raises `InvalidArgument`."""
    name = wish.name or "no"
    retries = wish.maximum_retry_count or 0
    if name not in ("no", "always", "unless-stopped", "on-failure"):
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if retries < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if retries and name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    return msgspec.convert({"name": name, "maximum": retries}, RestartPolicy)


def cpus(nano: int | None, quota: int | None, period: int | None) -> float:
    """Tell how many processors NanoCpus, or CpuQuota and CpuPeriod, mean."""
    if nano and (quota or period):
        other = "CPU Quota" if quota else "CPU Period"
        raise InvalidArgument(f"Conflicting options: Nano CPUs and {other} cannot both be set.")
    return nano / 1e9 if nano else max(quota or 0, 0) / (period or 100_000)


def _mode(kind: str, text: str, words: tuple[str, ...], *, joined: bool = True) -> str:
    """Check how a namespace is chosen. Raises `InvalidArgument`."""
    other = text.removeprefix("container:")
    if text and text not in words and not (joined and other and other != text):
        raise InvalidArgument(f"invalid {kind} mode: {text}")
    return text


def _storage(options: dict[str, str]) -> int:
    """Read the size of the writable layer, in bytes."""
    if unknown := set(options) - {"size"}:
        raise InvalidArgument(f"unknown storage option {sorted(unknown)[0]}", hint="known is size")
    return mount.size(options["size"]) if options else 0


def _level(runtime: str, labels: dict[str, str]) -> LevelName:
    wanted = runtime or labels.get(LABEL, "")
    if wanted not in RUNTIMES:
        raise InvalidArgument(f"unknown or invalid runtime name: {wanted}")
    return RUNTIMES[wanted]


def _words(command: list[str] | str | None) -> list[str] | None:
    """Docker takes a string for a list of one; an empty list is no wish, [""] an entry point taken away."""
    if command is None or command == []:
        return None
    words = [command] if isinstance(command, str) else command
    return [] if words == [""] else words


def _ports(wish: Creation) -> list[PortRequest]:
    bindings = wish.host_config.port_bindings or {}
    found = []
    for key, places in bindings.items():
        number, protocol = _port(key)
        for place in places or [PortBinding()]:
            first, dash, last = (place.host_port or "0").partition("-")
            numbers = [int(each) if each.isdigit() else MOST_PORT + 1 for each in ((first, last) if dash else (first,))]
            if numbers != sorted(numbers) or numbers[-1] > MOST_PORT:
                raise InvalidArgument(f'invalid port specification: "{place.host_port}"')
            found.append(_published(number, protocol, int(first), place.host_ip or "", int(last or 0)))
    return found


def _exposed(key: str) -> str:
    number, protocol = _port(key)
    return f"{number}/{protocol}"


def _published(number: int, protocol: str, host_port: int, address: str, last: int) -> PortRequest:
    fields = {
        "container_port": number,
        "protocol": protocol,
        "host_port": host_port,
        "host_address": address,
        "last": last,
    }
    return msgspec.convert(fields, PortRequest)


def _port(key: str) -> tuple[int, str]:
    number, _, protocol = key.partition("/")
    if not number.isdigit() or protocol not in ("", "tcp", "udp"):
        raise InvalidArgument(f"invalid port specification: {key}")
    return int(number), protocol or "tcp"


def _security(options: list[str]) -> dict[str, Any]:
    """Docker's default is that privileges can be gained (sudo works)."""
    found: dict[str, Any] = {"no_new_privileges": False, "seccomp": "default"}
    for text in options:
        key, _, value = text.replace("=", ":", 1).partition(":")
        if key == "no-new-privileges":
            found["no_new_privileges"] = value in ("", "true")
        elif key == "seccomp" and value in ("unconfined", "builtin", "default"):
            found["seccomp"] = "unconfined" if value == "unconfined" else "default"
        elif key not in ("apparmor", "label", "systempaths"):
            raise InvalidArgument(f"invalid --security-opt: {text[:80]!r}")
    return found


def _log(config: LogConfig) -> dict[str, Any]:
    """Translate a log driver; what bounds the log kept here is spelled differently for those that send it away."""
    driver, options = config.type or "json-file", config.config or {}
    option.check(driver, options)
    found: dict[str, Any] = {"log": LogRequest(driver=driver, options=options)}
    bound = "cache-max-" if driver in option.SHIPPED else "max-"
    if size := options.get(f"{bound}size"):
        found["log_size"] = mount.size(size)
    if count := options.get(f"{bound}file"):
        found["log_files"] = max(int(count) - 1 if count.isdigit() else 0, 1)
    return found
