"""From an instance's plan to a runtime-spec configuration, the words in which the runtime is spoken to.

`contained` is a container's (a VM's guest uses it too, with fewer namespaces), `bare` a process's.
"""

from __future__ import annotations

from typing import Any

from trivet.isolation import belonging
from trivet.isolation.plan import Attachment, Device, DeviceRule, Limits, Mount, Owner, Plan, Program, Security
from trivet.kernel import capability
from trivet.launch.operation import AddAddress, AddRoute, LinkUp, Operation, Sysctl
from trivet.oci import runtime as oci
from trivet.runtime import device, profile

NAMESPACES: tuple[oci.NamespaceType, ...] = ("mount", "pid", "uts", "ipc", "cgroup")

MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def contained(
    plan: Plan,
    namespaces: tuple[oci.NamespaceType, ...] = NAMESPACES,
    devices: tuple[oci.Device, ...] = (),
) -> oci.Spec:
    """Describe a container: namespaces of its own, /dev of its own, only the rights the plan gives."""
    privileged, masked = plan.security.privileged, plan.security.masked and not plan.security.privileged
    own = tuple(kind for kind in namespaces if not any(each.kind == kind for each in plan.shared))
    network = _network(plan)
    sysctl = (network_sysctl(plan.owner) if network else {}) | dict(plan.sysctls)
    return oci.Spec(
        oci_version=oci.VERSION,
        process=process(plan.program, plan.security, plan),
        root=oci.Root(path="root", readonly=plan.root.read_only),
        hostname=plan.hostname if "uts" in own else "",
        mounts=(
            *_system(plan, privileged),
            *(_device(each) for each in plan.devices if plan.owner),
            *_files(plan),
            *(_mount(mount, plan.owner) for mount in plan.mounts),
        ),
        linux=oci.Linux(
            namespaces=(*(oci.Namespace(type=kind) for kind in own), *_joined(plan), *network, *_user(plan)),
            devices=devices,
            cgroups_path=plan.cgroup,
            resources=allowed(plan),
            sysctl=sysctl,
            seccomp=filtering(plan.security),
            masked_paths=MASKED if masked else (),
            readonly_paths=READ_ONLY if masked else (),
        ),
    )


def bare(plan: Plan) -> oci.Spec:
    """Describe a process: the image's root, and everything else the host's own."""
    shown = tuple(_mount(Mount(kind="bind", source=path, target=path, propagation="rslave")) for path in HOST)
    return oci.Spec(
        oci_version=oci.VERSION,
        process=bare_process(plan.program, plan),
        root=oci.Root(path="root", readonly=plan.root.read_only),
        mounts=(*shown, *_files(plan), *(_mount(mount) for mount in plan.mounts)),
        linux=oci.Linux(
            namespaces=(oci.Namespace(type="mount"),), cgroups_path=plan.cgroup, resources=resources(plan.limits, ())
        ),
    )


HOST = ("/proc", "/sys", "/dev")


def bare_process(program: Program, plan: Plan) -> oci.Process:
    """Describe a program with all the rights its user has on the host."""
    return oci.Process(
        user=oci.User(umask=program.umask if program.umask >= 0 else None),
        cwd=program.cwd,
        args=program.argv,
        env=program.env,
        rlimits=_rlimits(plan),
        oom_score_adj=plan.limits.oom_score or None,
        **_tty(program),
    )


def process(program: Program, security: Security, plan: Plan) -> oci.Process:
    """Describe a contained program: the instance's own, or one added by exec. The user is looked up inside, later."""
    privileged = security.privileged or program.privileged
    names = capability.ALL if privileged else security.capabilities  # the launcher drops what the host lacks
    return oci.Process(
        user=oci.User(umask=program.umask if program.umask >= 0 else None),
        cwd=program.cwd,
        args=program.argv,
        env=program.env,
        capabilities=oci.Capabilities(bounding=names, effective=names, permitted=names),
        rlimits=_rlimits(plan),
        no_new_privileges=security.no_new_privileges and not privileged,
        oom_score_adj=plan.limits.oom_score or None,
        **_tty(program),
    )


def filtering(security: Security, *, privileged: bool = False) -> oci.Seccomp | None:
    """Choose the system call filter."""
    if security.privileged or privileged or security.seccomp == "unconfined":
        return None
    return profile.default(security.capabilities)


def allowed(plan: Plan) -> oci.Resources:
    """Describe what of the machine a container may use."""
    privileged = plan.security.privileged
    return resources(plan.limits, device.EVERYTHING if privileged else (*device.RULES, *_given(plan)))


def resources(limits: Limits, devices: tuple[oci.DeviceRule, ...], *, reset: bool = False) -> oci.Resources:
    """Translate limits; with `reset` what isn't limited is freed, for a group that was limited before."""
    none = -1 if reset else None
    swap = limits.memory_swap or (2 * limits.memory if limits.memory else none)
    return oci.Resources(
        devices=devices,
        memory=oci.Memory(
            limit=limits.memory or none,
            swap=swap,
            reservation=limits.memory_reservation or none,
            swappiness=limits.swappiness if limits.swappiness >= 0 else None,
            disable_oom_killer=limits.no_oom_killer or None,
        ),
        cpu=oci.Cpu(
            shares=limits.cpu_shares or (1024 if reset else None),
            quota=round(limits.cpus * _PERIOD) if limits.cpus else none,
            period=_PERIOD if limits.cpus else None,
            cpus=limits.cpuset,
            mems=limits.mems,
        ),
        block_io=_block(limits) if limits.block else None,
        pids=oci.Pids(limit=limits.pids or -1) if limits.pids or reset else None,
    )


def network_sysctl(owner: Owner | None = None) -> dict[str, str]:
    """What a network namespace of one's own makes safe: any port, and ping without raw sockets for all groups."""
    last = owner.size - 1 if owner else (1 << 31) - 1
    return {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last}"}


def network(attachments: tuple[Attachment, ...]) -> tuple[Operation, ...]:
    """Spell out how interfaces that wait in the instance's network namespace are named, addressed and brought up."""
    steps: list[Operation] = [LinkUp("lo")] if any(a.kind == "netns" for a in attachments) else []
    for attachment in attachments:
        if attachment.kind == "netns" and attachment.device:
            steps += interface(attachment.device, attachment)
    return tuple(steps)


def interface(device: str, attachment: Attachment) -> list[Operation]:
    """Spell out how one interface, known as `device` (name or MAC address) until then, is made as planned."""
    name, addresses = attachment.name, [address.address for address in attachment.addresses]
    gateways = [address.gateway for address in attachment.addresses if address.gateway]
    # Until now an interface has no IPv6 at all; with an address it still believes no router (CVE-2020-13401).
    settings = (("disable_ipv6", "0"), ("accept_ra", "0")) if any(":" in address for address in addresses) else ()
    return [
        LinkUp(device, name, attachment.mtu),
        *(Sysctl(f"net/ipv6/conf/{name}/{key}", value) for key, value in settings),
        *(AddAddress(name, address) for address in addresses),
        *(AddRoute(name, "", gateway) for gateway in gateways),
    ]


_PERIOD = 100_000


def _network(plan: Plan) -> tuple[oci.Namespace, ...]:
    if any(attachment.kind == "host" for attachment in plan.attachments):
        return ()
    ready = plan.owner.network if plan.owner else ""
    path = next((attachment.path for attachment in plan.attachments if attachment.kind == "netns"), ready)
    return (oci.Namespace(type="network", path=path),)


def _block(limits: Limits) -> oci.BlockIo:
    def of(what: str) -> tuple[oci.ThrottleDevice, ...]:
        return tuple(
            oci.ThrottleDevice(major=each.major, minor=each.minor, rate=each.rate)
            for each in limits.block
            if each.what == what
        )

    return oci.BlockIo(
        throttle_read_bps_device=of("rbps"),
        throttle_write_bps_device=of("wbps"),
        throttle_read_iops_device=of("riops"),
        throttle_write_iops_device=of("wiops"),
    )


def _given(plan: Plan) -> tuple[oci.DeviceRule, ...]:
    """Allow what the plan gives of the host's devices, and what its rules say."""
    wishes: tuple[Device | DeviceRule, ...] = (*plan.devices, *plan.device_rules)
    return tuple(
        oci.DeviceRule(allow=True, type=each.kind, major=each.major, minor=each.minor, access=each.access)
        for each in wishes
    )


def _device(wish: Device) -> oci.Mount:
    """Show a device of the host where nobody can make one: in a user namespace (user_namespaces(7))."""
    options = ("bind", "rprivate", "nosuid", "noexec")
    return oci.Mount(destination=wish.path, type="bind", source=wish.source or wish.path, options=options)


def _joined(plan: Plan) -> tuple[oci.Namespace, ...]:
    return tuple(oci.Namespace(type=each.kind, path=each.path) for each in plan.shared if each.path)


def _user(plan: Plan) -> tuple[oci.Namespace, ...]:
    return (oci.Namespace(type="user", path=plan.owner.path),) if plan.owner else ()


def _system(plan: Plan, privileged: bool) -> tuple[oci.Mount, ...]:
    access = "rw" if privileged else "ro"
    safe = ("nosuid", "noexec", "nodev")
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    return (
        _special("/proc", "proc", *safe),
        _special("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _special("/dev/pts", "devpts", *pts),
        *_memory(plan, safe),
        _sysfs(plan, (*safe, access)),
        _special("/sys/fs/cgroup", "cgroup", *safe, access),
    )


def _memory(plan: Plan, safe: tuple[str, ...]) -> tuple[oci.Mount, ...]:
    """Show shared memory and message queues: the instance's own, or the host's; no memory where none is wanted."""
    queues = _special("/dev/mqueue", "mqueue", *safe)
    if plan.memory:
        shown = oci.Mount(destination="/dev/shm", type="bind", source=plan.memory, options=("bind", "rprivate", *safe))
    elif not plan.shm_size:
        return (queues,)
    elif any(each.kind == "ipc" and not each.path for each in plan.shared):
        shown = _mount(Mount(kind="bind", source="/dev/shm", target="/dev/shm"))
    else:
        shown = _special("/dev/shm", "tmpfs", *safe, "mode=1777", f"size={plan.shm_size}")
    return shown, queues


def _sysfs(plan: Plan, words: tuple[str, ...]) -> oci.Mount:
    """Show /sys: a new one belongs to a network, which has to be one of the user namespace's own (sysfs(5))."""
    if plan.owner and any(attachment.kind == "host" for attachment in plan.attachments):
        return oci.Mount(destination="/sys", type="bind", source="/sys", options=("rbind", "rslave", "rro", *words))
    return _special("/sys", "sysfs", *words)


def _special(target: str, kind: str, *words: str) -> oci.Mount:
    return oci.Mount(destination=target, type=kind, source=kind, options=words)


def _files(plan: Plan) -> tuple[oci.Mount, ...]:
    shown = (Mount(kind="bind", source=file.source, target=file.target, recursive=False) for file in plan.files)
    return tuple(_mount(mount, plan.owner) for mount in shown)


def _mount(mount: Mount, owner: Owner | None = None) -> oci.Mount:
    if mount.kind == "tmpfs":
        size = (f"size={mount.size}",) if mount.size else ()
        owner_words = (f"{key}={value}" for key, value in (("uid", mount.uid), ("gid", mount.gid)) if value >= 0)
        access = "ro" if mount.read_only else "rw"
        words = ("nosuid", "nodev", access, f"mode={mount.mode:o}", *size, *owner_words)
        return oci.Mount(destination=mount.target, type="tmpfs", source="tmpfs", options=words)
    deep = "ro" if mount.shallow else "rro"  # what is mounted below it, too
    access_words = (deep,) if mount.read_only else ()
    mapped = () if owner is None and not mount.mine else ("ridmap",) if mount.recursive else ("idmap",)
    words = ("rbind" if mount.recursive else "bind", mount.propagation, *access_words, *mapped)
    users, groups = belonging.maps(mount.mine, owner) if mount.mine else ((), ())
    return oci.Mount(
        destination=mount.target,
        type="bind",
        source=mount.source,
        options=words,
        uid_mappings=users,
        gid_mappings=groups,
    )


def _rlimits(plan: Plan) -> tuple[oci.Rlimit, ...]:
    return tuple(
        oci.Rlimit(type=f"RLIMIT_{limit.name.upper()}", soft=_unsigned(limit.soft), hard=_unsigned(limit.hard))
        for limit in plan.rlimits
    )


def _unsigned(value: int) -> int:
    return (1 << 64) - 1 if value < 0 else value


def _tty(program: Program) -> dict[str, Any]:
    if not program.terminal:
        return {}
    return {"terminal": True, "console_size": oci.Box(height=program.rows, width=program.columns)}
