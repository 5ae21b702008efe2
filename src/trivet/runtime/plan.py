"""From a runtime-spec configuration to a launch plan: every step as an operation, in the order that works.

    launcher   Monitor · trees · join a pid namespace · Spawn
    between    with a user namespace: trees · limits · cgroups · join network and user namespace · Spawn
    child      cgroups · namespaces · network · root · mounts · devices · masks · pivot
               limits · user · working directory · capabilities · filter · Wait · Exec

Pure: nothing is looked up on the host, so a plan can be printed, compared and kept as a golden file.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from trivet.base.error import InvalidArgument, Unsupported
from trivet.launch.operation import (
    Become,
    Builtin,
    Chroot,
    Console,
    Descriptors,
    Exec,
    Find,
    Fork,
    Hostname,
    Identity,
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
    Sync,
    WorkingDirectory,
    WriteFile,
)
from trivet.launch.operation import Wait as WaitOperation
from trivet.oci.runtime import Box, Linux, Process, Spec
from trivet.runtime import device, devicefilter, identity, mount, namespace, schedule, sysctl
from trivet.runtime.setting import Setting

MAPS, JOIN, HOOKS = "maps", "join", "hooks"
"""Points at which a conducted launch stops: for its ids, to be put into its control groups, and for the hooks."""


class Incomplete(InvalidArgument):
    """A configuration without a part that a launch needs."""

    def __init__(self, part: str) -> None:
        super().__init__(f"the configuration has no {part}")


def launch(spec: Spec, setting: Setting) -> list[Operation]:
    """Compute the plan that starts a container. Raises `InvalidArgument` or `Unsupported` naming what can't be done."""
    process, linux = _process(spec), spec.linux or Linux()
    if spec.vm is not None:
        raise Unsupported(
            "containers are made here, not virtual machines - at `$.vm`", hint="trivet run --isolation vm"
        )
    namespace.check(linux)
    refuse_unsupported(process, linux, setting)
    own = namespace.has(linux.namespaces, "user")
    maps = _maps(linux, setting) if own else None
    between = own and not setting.conducted
    group = setting.group if setting.group and not namespace.has(linux.namespaces, "cgroup") else None
    mounts = mount.operations(
        spec.mounts,
        setting.hierarchies,
        setting.bundle,
        group=group,
        own=None if setting.ordinary else maps,
        first=setting.mount,
        shown=bool(setting.owners),
    )
    limits = [*identity.limits(process), *schedule.operations(process, linux)]
    return [
        *before(setting),
        *devicefilter.operations(linux.resources.devices if linux.resources else (), setting),
        *([Fork(setting.mounts)] if between else []),
        *mounts.trees,
        *(limits if own else []),
        *(_groups(setting) if between else []),
        *namespace.before_spawn(linux.namespaces, linux.time_offsets, ordinary=setting.ordinary),
        _spawn(process, linux, setting, maps),
        *([Sync(MAPS)] if setting.ordinary and namespace.has(linux.namespaces, "user", new=True) else []),
        *_join(setting, own),
        *namespace.in_child(linux.namespaces),
        *_network(linux, setting),
        *_root(spec, linux, setting, mounts.steps, own=own),
        *_host(spec, linux),
        *program(process, linux, setting, () if own else limits, read_only=bool(spec.root and spec.root.readonly)),
    ]


def before(setting: Setting) -> list[Operation]:
    """Compute how a plan begins: who watches, and what the program inherits."""
    found: list[Operation] = [setting.monitor] if setting.monitor else []
    return [*found, Descriptors(setting.preserved)] if setting.conducted else found


def program(
    process: Process,
    linux: Linux,
    setting: Setting,
    limits: Iterable[Operation] = (),
    *,
    read_only: bool = False,
    late: Iterable[Operation] = (),
) -> list[Operation]:
    """Compute the last stretch, inside the root: limits, identity, working directory, rights, exec."""
    return [
        *limits,
        identity.user(process, setting.user, setting.groups),
        WorkingDirectory(process.cwd, make=1),
        *([RemountRoot(mount.READ_ONLY)] if read_only else []),
        *([Keyring()] if setting.keyring else []),
        *late,
        *identity.become(process, linux.seccomp),
        *([Init()] if setting.init else []),
        *([Find(process.args, process.env)] if setting.wait and setting.conducted and process.args else []),
        *([WaitOperation()] if setting.wait else []),
        _exec(process, setting),
    ]


def _process(spec: Spec) -> Process:
    if spec.process is None:
        raise Incomplete("process")
    if not posixpath.isabs(spec.process.cwd):
        raise InvalidArgument(f"the working directory {spec.process.cwd!r} is not an absolute path")
    return spec.process


def refuse_unsupported(process: Process, linux: Linux, setting: Setting) -> None:
    """Refuse what would otherwise be left out in silence: every one of these keeps something from happening."""
    asked = {
        "process.apparmorProfile": bool(process.apparmor_profile) and process.apparmor_profile != "unconfined",
        "process.selinuxLabel": bool(process.selinux_label),
        "linux.mountLabel": bool(linux.mount_label),
        "linux.intelRdt": linux.intel_rdt is not None,
        "linux.netDevices": bool(linux.net_devices) and not setting.conducted,
    }
    for path, wanted in asked.items():
        if wanted:
            raise Unsupported(f"the configuration asks for something not supported here - at `$.{path}`")


def _spawn(process: Process, linux: Linux, setting: Setting, maps: mount.Maps | None) -> Spawn:
    size = process.console_size or Box()
    new_user = namespace.has(linux.namespaces, "user", new=True) and not setting.ordinary
    return Spawn(
        flags=namespace.clone_flags(linux.namespaces),
        terminal=int(process.terminal),
        rows=size.height,
        columns=size.width,
        stdin=int(setting.stdin),
        cgroup="" if maps and setting.conducted else setting.unified,
        uid_map=maps.users if maps and new_user else "",
        gid_map=maps.groups if maps and new_user else "",
        owner=setting.owner,
    )


def _join(setting: Setting, own_user: bool) -> list[Operation]:
    """Join the control groups; who is root of a user namespace only may not, and becomes that root afterwards."""
    if own_user:
        return [*([Sync(JOIN)] if setting.conducted else []), Identity(0, 0), Become()]
    return _groups(setting)


def _groups(setting: Setting) -> list[Operation]:
    return [WriteFile(write.path, write.value.encode()) for write in setting.joins]


def _maps(linux: Linux, setting: Setting) -> mount.Maps:
    if setting.owners:
        return mount.Maps(setting.owners, setting.owners, setting.owner)
    return mount.maps(linux.uid_mappings, linux.gid_mappings)


def _network(linux: Linux, setting: Setting) -> list[Operation]:
    loopback = [LinkUp("lo")] if namespace.has(linux.namespaces, "network", new=True) else []
    return [*loopback, *setting.network]


def _root(spec: Spec, linux: Linux, setting: Setting, mounts: list[Operation], *, own: bool) -> list[Operation]:
    if not namespace.has(linux.namespaces, "mount"):
        raise Unsupported("a container without a mount namespace of its own is not supported")
    wanted = linux.rootfs_propagation
    if wanted and wanted not in mount.PROPAGATION:
        raise InvalidArgument(f"{wanted!r} is unknown - at `$.linux.rootfsPropagation`")
    shown = len(setting.mount)
    terminal = bool(spec.process and spec.process.terminal)
    own_terminals = device.own_terminals(spec.mounts)
    return [
        *([Root("/"), Console("")] if terminal and setting.conducted and not own_terminals else []),
        *_apart(wanted, setting),
        *mounts[:shown],
        Root(setting.root),
        *mounts[shown:],
        *(device.operations(linux.devices, bound=own or setting.confined) if device.own_dev(spec.mounts) else []),
        *([Console()] if terminal and own_terminals else []),
        *sysctl.operations(linux.sysctl, linux.namespaces, own_kernel=setting.own_kernel),
        *(ReadOnly(path) for path in linux.readonly_paths),
        *(Mask(path) for path in linux.masked_paths),
        *([Sync(HOOKS)] if setting.hooked else []),
        Pivot() if setting.pivot else Chroot(),
        *([Propagation("/", mount.PROPAGATION[wanted])] if wanted else []),
    ]


def _apart(wanted: str, setting: Setting) -> list[Operation]:
    """Keep what is mounted here from showing on the host.

    Slave, not private: what the host unmounts later goes away here too. A root that is to be shared needs mounts
    that still are, so that binds of them can be: then only the mount we work on is set apart.
    """
    if wanted in ("shared", "rshared") and setting.parent:
        return [Propagation(setting.parent, mount.PROPAGATION["private"])]
    return [Propagation("/", mount.PROPAGATION["rslave"])]


def _host(spec: Spec, linux: Linux) -> list[Operation]:
    if not spec.hostname and not spec.domainname:
        return []
    if not namespace.has(linux.namespaces, "uts"):
        raise InvalidArgument("a hostname or domainname needs a uts namespace")
    return [Hostname(spec.hostname, spec.domainname)]


def _exec(process: Process, setting: Setting) -> Operation:
    if setting.builtin:
        return Builtin(setting.builtin, process.args)
    if not process.args:
        raise Incomplete("process.args")
    return Exec(process.args, process.env)
