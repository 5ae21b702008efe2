"""From a runtime-spec configuration to a launch plan: every step as an operation, in the order that works.

    launcher   Monitor · join a pid namespace · Spawn
    child      cgroups · namespaces · network · root · mounts · devices · masks · pivot
               limits · user · working directory · capabilities · filter · Wait · Exec

Pure: nothing is looked up on the host, so a plan can be printed, compared and kept as a golden file.
"""

from __future__ import annotations

import posixpath

from trivet.base.error import InvalidArgument, Unsupported
from trivet.kernel.cgroup_record import Write
from trivet.launch.operation import (
    Builtin,
    Chroot,
    Console,
    Exec,
    Hostname,
    Init,
    Keyring,
    LinkUp,
    Mask,
    Operation,
    Pivot,
    Propagation,
    ReadOnly,
    RemountRoot,
    Root,
    Spawn,
    WorkingDirectory,
    WriteFile,
)
from trivet.launch.operation import Wait as WaitOperation
from trivet.oci.runtime import Box, Hooks, Linux, Process, Spec
from trivet.runtime import device, identity, mount, namespace, sysctl
from trivet.runtime.setting import Setting


class Incomplete(InvalidArgument):
    """A configuration without a part that a launch needs."""

    def __init__(self, part: str) -> None:
        super().__init__(f"the configuration has no {part}")


def launch(spec: Spec, setting: Setting) -> list[Operation]:
    """Compute the plan that starts a container. Raises `InvalidArgument` or `Unsupported` naming what can't be done."""
    process, linux = _process(spec), spec.linux or Linux()
    _refuse_unsupported(spec, process, linux)
    return [
        *([setting.monitor] if setting.monitor else []),
        *namespace.before_spawn(linux.namespaces),
        _spawn(process, setting, namespace.clone_flags(linux.namespaces)),
        *_joins(setting.joins),
        *namespace.in_child(linux.namespaces),
        *_network(linux, setting),
        *_root(spec, linux, setting),
        *_host(spec, linux),
        *program(process, linux, setting, read_only=bool(spec.root and spec.root.readonly)),
    ]


def program(process: Process, linux: Linux, setting: Setting, *, read_only: bool = False) -> list[Operation]:
    """Compute the last stretch, inside the root: limits, identity, working directory, rights, exec."""
    return [
        *identity.limits(process),
        identity.user(process, setting.user, setting.groups),
        WorkingDirectory(process.cwd, make=1),
        *([RemountRoot(mount.READ_ONLY)] if read_only else []),
        Keyring(),
        *identity.become(process, linux.seccomp),
        *([Init()] if setting.init else []),
        *([WaitOperation()] if setting.wait else []),
        _exec(process, setting),
    ]


def _process(spec: Spec) -> Process:
    if spec.process is None:
        raise Incomplete("process")
    if not posixpath.isabs(spec.process.cwd):
        raise InvalidArgument(f"the working directory {spec.process.cwd!r} is not an absolute path")
    return spec.process


def _refuse_unsupported(spec: Spec, process: Process, linux: Linux) -> None:
    """Refuse what would otherwise be left out in silence: every one of these keeps something from happening."""
    asked = {
        "user namespace": namespace.has(linux.namespaces, "user"),
        "time namespace": namespace.has(linux.namespaces, "time"),
        "hooks": spec.hooks not in (None, Hooks()),
        "AppArmor profile": bool(process.apparmor_profile),
        "SELinux label": bool(process.selinux_label or linux.mount_label),
    }
    for name, wanted in asked.items():
        if wanted:
            raise Unsupported(f"the configuration asks for something not supported yet: {name}")


def _spawn(process: Process, setting: Setting, flags: int) -> Spawn:
    size = process.console_size or Box()
    return Spawn(
        flags=flags,
        terminal=int(process.terminal),
        rows=size.height,
        columns=size.width,
        stdin=int(setting.stdin),
        cgroup=setting.unified,
    )


def _joins(joins: tuple[Write, ...]) -> list[Operation]:
    return [WriteFile(write.path, write.value.encode()) for write in joins]


def _network(linux: Linux, setting: Setting) -> list[Operation]:
    loopback = [LinkUp("lo")] if namespace.has(linux.namespaces, "network", new=True) else []
    return [*loopback, *setting.network]


def _root(spec: Spec, linux: Linux, setting: Setting) -> list[Operation]:
    if not namespace.has(linux.namespaces, "mount"):
        raise Unsupported("a container without a mount namespace of its own is not supported")
    propagation = linux.rootfs_propagation or "rslave"
    if propagation not in mount.PROPAGATION:
        raise InvalidArgument(f"rootfs propagation {propagation!r} is unknown")
    own_dev = device.own_dev(spec.mounts)
    terminal = bool(spec.process and spec.process.terminal) and device.own_terminals(spec.mounts)
    return [
        # Slave, not private: what the host unmounts later goes away here too, and nothing of ours shows there.
        Propagation("/", mount.PROPAGATION[propagation]),
        *setting.mount,
        Root(setting.root),
        *mount.operations(spec.mounts, setting.hierarchies),
        *(device.operations(linux.devices) if own_dev else []),
        *([Console()] if terminal else []),
        *sysctl.operations(linux.sysctl, linux.namespaces, own_kernel=setting.own_kernel),
        *(ReadOnly(path) for path in linux.readonly_paths),
        *(Mask(path) for path in linux.masked_paths),
        Pivot() if setting.pivot else Chroot(),
    ]


def _host(spec: Spec, linux: Linux) -> list[Operation]:
    if not spec.hostname:
        return []
    if not namespace.has(linux.namespaces, "uts"):
        raise InvalidArgument("a hostname needs a uts namespace")
    return [Hostname(spec.hostname)]


def _exec(process: Process, setting: Setting) -> Operation:
    if setting.builtin:
        return Builtin(setting.builtin, process.args)
    if not process.args:
        raise Incomplete("process.args")
    return Exec(process.args, process.env)
