"""From an instance's plan to what its guest agent does: the same compilation as a container's, on other devices.

    /run/lower    the image: EROFS on /dev/vda, read-only
    /run/upper    the instance's own drive, ext4 on /dev/vdb: directories `upper` and `work` of the overlay
    /run/root     overlay of the two: the program's root
    /run/share    what virtiofsd serves: one entry per bind mount, named by its number
    /run/program  link to /proc/PID of the program, made by the agent

All but the last are mounted in the program's mount namespace and gone with it, so that the drives are at rest
before the machine powers off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from trivet.hypervisor.template import PORTS
from trivet.isolation import specification
from trivet.isolation.plan import Attachment, Mount, Plan, Program
from trivet.kernel.cgroup_record import Hierarchy
from trivet.launch.operation import (
    Builtin,
    Directory,
    File,
    JoinPath,
    Operation,
    Root,
    Spawn,
    Wait,
    WriteFile,
)
from trivet.launch.operation import Mount as MountOperation
from trivet.oci import runtime as oci
from trivet.runtime import enter as runtime_enter
from trivet.runtime import namespace
from trivet.runtime import plan as runtime
from trivet.runtime.mount import READ_ONLY
from trivet.runtime.setting import Setting

LOWER, UPPER, ROOT, SHARE = "/run/lower", "/run/upper", "/run/root", "/run/share"
IMAGE, DRIVE = "/dev/vda", "/dev/vdb"
SHARE_TAG = "share"
GROUP = "/sys/fs/cgroup/program"
MACHINE_ID = "/etc/machine-id"

_NAMESPACES: tuple[oci.NamespaceType, ...] = ("mount", "pid", "uts", "cgroup")
"""Of the guest's kernel; its network and its shared memory are nobody else's, and making namespaces takes time."""
_HIERARCHIES = (Hierarchy(version=2, mount="/sys/fs/cgroup", controllers=("memory", "pids", "cpu")),)
_RESCAN = WriteFile("/sys/bus/pci/rescan", b"1")
_MOUNT_NAMESPACE = "/run/program/ns/mnt"


def shared(plan: Plan) -> tuple[Mount, ...]:
    """List the mounts that come from the host, in the order that numbers them."""
    return tuple(mount for mount in plan.mounts if mount.kind == "bind")


def launch(plan: Plan, *, forked: bool = False) -> list[Operation]:
    """Compute what the agent does as session 0; a forked machine's interfaces are new to its kernel."""
    spec = _specification(plan)
    setting = _setting(plan.program, mount=(*_root(), *_share(plan), *_files(plan)), network=_network(plan.attachments))
    found = _looking(plan) if forked else []
    return [*found, *_group(plan), *runtime.launch(spec, msgspec.structs.replace(setting, init=plan.init))]


def lost(use: Attachment) -> list[Operation]:
    """Compute what it does with an interface that is to be unplugged, unless the program has renamed it."""
    return beside([WriteFile(f"/sys/class/net/{use.name}/device/../remove", b"1", optional=1)])


def _looking(plan: Plan) -> list[Operation]:
    """Look for what was plugged in behind the ports that have something, or further ones on the bus they are on.

    To look at all ports takes an emulated guest 20 ms. The buses behind them are numbered in their order.
    """
    taken = len([use for use in plan.attachments if use.kind == "tap"]) + bool(shared(plan))
    if taken > PORTS.count:
        return [_RESCAN]
    return [WriteFile(f"/sys/class/pci_bus/0000:{number:02x}/rescan", b"1") for number in range(1, taken + 1)]


def reading(*, written: bool = False) -> list[Operation]:
    """Compute what the agent does to write the root as a tar, without anything that is mounted in it for a program.

    With `written` it is a layer, of what was written only.
    """
    if written:
        drive = MountOperation("ext4", DRIVE, UPPER, host=1)
        return [drive, Spawn(), Root(f"{UPPER}/upper"), Wait(), Builtin("layer-read", ("/",))]
    return [*_root(), Spawn(), Root(ROOT), Wait(), Builtin("archive-read", ("/",))]


def installation(plan: Plan) -> bytes:
    """Give the content of /etc/machine-id (machine-id(5)): no other instance's, and the same whenever it starts."""
    return f"{hashlib.sha256(f'machine {plan.id}'.encode()).hexdigest()[:32]}\n".encode()


def write(path: str, value: str) -> list[Operation]:
    """Compute what the agent does to write a file of its kernel's, out of the program's namespaces and its group."""
    return beside([WriteFile(path, value.encode())])


def beside(steps: Iterable[Operation]) -> list[Operation]:
    """Compute what the agent does to carry something out by itself, beside the program."""
    return [*steps, Spawn(), Wait(), Builtin("nothing", ("/",))]


def found(use: Attachment) -> list[Operation]:
    """Compute what it does with an interface that was plugged in, without routes, which follow from all there are."""
    bare = tuple(msgspec.structs.replace(address, gateway="") for address in use.addresses)
    return beside([_RESCAN, *_network((msgspec.structs.replace(use, addresses=bare),))])


def enter(plan: Plan, program: Program) -> list[Operation]:
    """Compute what the agent does as a further session: join the program's namespaces, then run.

    The mount namespace comes right after the spawn and by path: behind it the agent's own files are gone.
    """
    process = specification.process(program, plan.security, plan)
    linux = oci.Linux(seccomp=specification.filtering(plan.security, privileged=program.privileged))
    steps = runtime_enter.operations(process, linux, _setting(program), 0, set(_NAMESPACES) - {"mount"})
    behind = next(place for place, step in enumerate(steps, start=1) if isinstance(step, Spawn))
    return [*steps[:behind], JoinPath(_MOUNT_NAMESPACE, namespace.FLAGS["mount"]), *steps[behind:]]


def _specification(plan: Plan) -> oci.Spec:
    """Describe the program as a contained one; network and limits are the machine's, the kernel is its own."""
    inside = msgspec.structs.replace(
        plan,
        files=(),
        mounts=_inside(plan),
        attachments=(Attachment(kind="host", network=""),),
        sysctls=tuple((specification.network_sysctl() | dict(plan.sysctls)).items()),
    )
    spec = specification.contained(inside, _NAMESPACES)
    own = msgspec.structs.replace(spec.linux or oci.Linux(), masked_paths=(), readonly_paths=())
    return msgspec.structs.replace(spec, linux=own)


def _setting(program: Program, *, mount: tuple[Operation, ...] = (), network: tuple[Operation, ...] = ()) -> Setting:
    return Setting(
        root=ROOT,
        mount=mount,
        unified=GROUP,
        hierarchies=_HIERARCHIES,
        own_kernel=True,
        network=network,
        user=program.user,
        groups=program.groups,
        stdin=program.stdin,
        builtin=program.builtin,
    )


def _group(plan: Plan) -> list[Operation]:
    """Give the program's cgroup, which the agent has made, the limits it was promised.

    The machine around it is a little larger.
    """
    limits = {
        "memory.max": plan.limits.memory,
        "memory.low": plan.limits.memory_reservation,
        "pids.max": plan.limits.pids,
    }
    return [WriteFile(f"{GROUP}/{name}", str(value).encode()) for name, value in limits.items() if value]


def _root() -> tuple[Operation, ...]:
    layers = (f"lowerdir={LOWER}", f"upperdir={UPPER}/upper", f"workdir={UPPER}/work")
    return (
        MountOperation("erofs", IMAGE, LOWER, READ_ONLY, ("ro",), host=1),
        # What mke2fs put off is zero already: the file is sparse. No bitmap is read before it is needed.
        MountOperation("ext4", DRIVE, UPPER, options=("noinit_itable", "no_prefetch_block_bitmaps"), host=1),
        Directory(f"{UPPER}/upper", host=1),
        Directory(f"{UPPER}/work", host=1),
        MountOperation("overlay", "overlay", ROOT, options=layers, host=1),
    )


def _share(plan: Plan) -> tuple[Operation, ...]:
    return (MountOperation("virtiofs", SHARE_TAG, SHARE, host=1),) if shared(plan) else ()


def _files(plan: Plan) -> tuple[Operation, ...]:
    """Write the engine's small files into the root: a link among the image's directories can't lead out of it."""
    if not plan.files:
        return ()
    own = File(MACHINE_ID, installation(plan), 0o444)
    return (Root(ROOT), *(File(file.target, file.content, file.mode) for file in plan.files), own)


def _inside(plan: Plan) -> tuple[Mount, ...]:
    numbers = {id(mount): number for number, mount in enumerate(shared(plan))}
    return tuple(
        msgspec.structs.replace(mount, source=f"{SHARE}/{numbers[id(mount)]}", recursive=False, mine=None)
        if mount.kind == "bind"
        else mount
        for mount in plan.mounts
    )


def _network(attachments: tuple[Attachment, ...]) -> tuple[Operation, ...]:
    """Name and address the interfaces, which are known by their MAC addresses until then; the agent has lo up."""
    steps: list[Operation] = []
    for attachment in attachments:
        if attachment.kind != "tap":
            continue
        steps += specification.interface(attachment.mac, attachment)
    return tuple(steps)
