"""The configuration that `spec` writes: a shell, contained as usual."""

from __future__ import annotations

import msgspec

from trivet.oci import runtime as oci

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_SAFE = ("nosuid", "noexec", "nodev")


def spec() -> oci.Spec:
    """Build it."""
    return oci.Spec(
        oci_version=oci.VERSION,
        process=oci.Process(
            terminal=True,
            args=("sh",),
            env=("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"),
            cwd="/",
            capabilities=oci.Capabilities(bounding=_CAPABILITIES, effective=_CAPABILITIES, permitted=_CAPABILITIES),
            rlimits=(oci.Rlimit(type="RLIMIT_NOFILE", soft=1024, hard=1024),),
            no_new_privileges=True,
        ),
        root=oci.Root(path="rootfs", readonly=True),
        hostname="trivet",
        mounts=(
            _mount("/proc", "proc"),
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
            _mount("/dev/shm", "tmpfs", *_SAFE, "mode=1777", "size=65536k"),
            _mount("/dev/mqueue", "mqueue", *_SAFE),
            _mount("/sys", "sysfs", *_SAFE, "ro"),
            _mount("/sys/fs/cgroup", "cgroup", *_SAFE, "relatime", "ro"),
        ),
        linux=oci.Linux(
            resources=oci.Resources(devices=(oci.DeviceRule(allow=False, access="rwm"),)),
            namespaces=tuple(oci.Namespace(type=kind) for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")),
            masked_paths=(
                *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/scsi"),
                *("/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware"),
            ),
            readonly_paths=("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
        ),
    )


def rootless(uid: int, gid: int) -> oci.Spec:
    """Build one for an ordinary user: it is root inside, has the host's network and no limits."""
    made = spec()
    hidden = ("/sys", "/sys/fs/cgroup")
    mounts = [_without_groups(mount) for mount in made.mounts if mount.destination not in hidden]
    kinds: tuple[oci.NamespaceType, ...] = ("pid", "ipc", "uts", "mount", "cgroup", "user")
    linux = msgspec.structs.replace(
        made.linux or oci.Linux(),
        resources=None,
        namespaces=tuple(oci.Namespace(type=kind) for kind in kinds),
        uid_mappings=(oci.IdMapping(container_id=0, host_id=uid, size=1),),
        gid_mappings=(oci.IdMapping(container_id=0, host_id=gid, size=1),),
    )
    # A new sysfs may only be mounted by whoever owns the network namespace.
    system = oci.Mount(destination="/sys", type="none", source="/sys", options=("rbind", *_SAFE, "rro"))
    return msgspec.structs.replace(made, mounts=(*mounts, system), linux=linux)


def _without_groups(mount: oci.Mount) -> oci.Mount:
    """Leave out whose files those are to be: only one's own ids are mapped."""
    return msgspec.structs.replace(mount, options=tuple(o for o in mount.options if o[:4] not in ("uid=", "gid=")))


def _mount(target: str, kind: str, *words: str) -> oci.Mount:
    return oci.Mount(destination=target, type=kind, source=kind, options=words)
