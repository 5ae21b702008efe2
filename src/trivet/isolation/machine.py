"""From an instance's plan to its machine: QEMU's record, and what the host does around it.

launcher   Monitor · Relay · Spawn (own mount and pid namespace: nothing of it shows, nothing outlives it)
child      cgroups · bind mounts staged for sharing · virtiofsd · files opened · the cell around QEMU (cell.py) · QEMU
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

import msgspec

from trivet.base.error import Unsupported
from trivet.hypervisor.device.drive import Drive
from trivet.hypervisor.device.nic import Nic
from trivet.hypervisor.device.serial import Console, Port
from trivet.hypervisor.device.share import Share
from trivet.hypervisor.machine import MEBIBYTE, Acceleration, Machine, Memory, command_line
from trivet.hypervisor.template import PORTS, shape_of
from trivet.isolation import belonging, cell, guest
from trivet.isolation.elastic import OVERHEAD, elastic
from trivet.isolation.passthrough import Given
from trivet.isolation.plan import Attachment, Mount, Plan
from trivet.kernel.cgroup_record import BlockDevice, Resources, Write
from trivet.launch.operation import (
    Background,
    Bind,
    Exec,
    Give,
    Monitor,
    OpenTree,
    Operation,
    Propagation,
    Relay,
    Spawn,
    WriteFile,
    encode,
)
from trivet.launch.operation import Mount as MountOperation
from trivet.runtime.mount import NO_DEVICE, NO_SUID, PROPAGATION, READ_ONLY, lines
from trivet.runtime.namespace import FLAGS

DEFAULT_MEMORY = 512 * MEBIBYTE
SMALLEST_MEMORY = 192 * MEBIBYTE
"""A kernel of a distribution doesn't come up with much less; a smaller limit holds inside."""
DEFAULT_CPUS = {Acceleration.KVM: 2, Acceleration.EMULATION: 1}
"""An emulated guest with two processors takes half as much time again to boot."""
GROWTH_CPUS = 8
"""To which a machine that begins with fewer can grow: a kernel keeps memory for each processor there could be."""
AGENT_PORT = "org.trivet.agent.0"
AGENT_DESCRIPTOR = 5
CONSOLE, QMP, SHARE_SOCKET, SHARE_LOG = "console.log", "qmp.sock", "share.sock", "share.log"


class NetworkUnsupported(Unsupported):
    """A kind of network a machine can't have."""

    def __init__(self, instance: str, kind: str) -> None:
        super().__init__(
            f"instance {instance} at level vm cannot use network {kind}: a machine has network interfaces of its own",
            hint="use a bridge network, or --isolation container",
        )


MEMORY_DESCRIPTOR, STATE_DESCRIPTOR = 50, 51  # far above what the monitor has open
TAP_DESCRIPTOR = 52  # and up to 63, for interfaces that are opened and not named


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What a forked machine begins with: paths of its template's memory and state, and whether it may share the former.

    A machine that shares its memory with a file server has a copy of its own, `writable`. With `changes` it is a copy
    of a machine whose program runs, to be told in what they differ: operations, for the agent. With `instead` it
    carries out those in place of the program. A `spare` machine is nobody's yet, and can be given other drives.
    One that was `frozen` is a process that goes on: `state` is all of it but `memory`.
    """

    memory: str
    state: str
    writable: bool = False
    changes: tuple[Operation, ...] | None = None
    instead: tuple[Operation, ...] | None = None
    spare: bool = False
    frozen: bool = False


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine offers a guest: programs, kernel, acceleration, CPUs; UEFI's program and swtpm if asked for.

    A machine of its own may `begin` with the state in a file, and stand `still` then; `given` are
    devices that it has to itself. `most` is the memory, in bytes,
    that a machine can be given while it runs."""

    qemu: str
    virtiofsd: str
    acceleration: Acceleration
    kernel: str
    initramfs: str
    cpus: int
    most: int = 0
    origin: Origin | None = None
    firmware: str = ""
    swtpm: str = ""
    begin: str = ""
    still: bool = False
    given: tuple[Given, ...] = ()


def memory(plan: Plan) -> int:
    """Choose the guest's memory."""
    return max(plan.limits.memory or DEFAULT_MEMORY, SMALLEST_MEMORY)


def resources(plan: Plan) -> Resources:
    """Limit QEMU itself: its guest's memory and what comes on top, and the CPU time that was promised."""
    return limited(plan, memory(plan) + OVERHEAD)


def limited(plan: Plan, limit: int) -> Resources:
    """Limit a process that is a machine to so much memory, and to the CPU time that was promised."""
    return Resources(
        memory=limit,
        swap=limit,
        shares=plan.limits.cpu_shares or None,
        quota=round(plan.limits.cpus * _PERIOD) if plan.limits.cpus else None,
        period=_PERIOD if plan.limits.cpus else None,
        cpus=plan.limits.cpuset,
        mems=plan.limits.mems,
        swappiness=plan.limits.swappiness if plan.limits.swappiness >= 0 else None,
        block_devices=tuple(
            BlockDevice(what=each.what, major=each.major, minor=each.minor, value=each.rate)
            for each in plan.limits.block
        ),
    )


def machine(plan: Plan, host: Host) -> Machine:
    """Describe the machine. Raises `Unsupported` for a network it can't have."""
    nics = tuple(
        Nic(
            name=f"net{number}",
            tap=attachment.device,
            mac=attachment.mac,
            descriptor=TAP_DESCRIPTOR + number,
        )
        for number, attachment in enumerate(_uses(plan))
        if _is_tap(plan, attachment.kind)
    )
    socket = f"{plan.directory}/{SHARE_SOCKET}"
    cpus = math.ceil(plan.limits.cpus) or min(DEFAULT_CPUS[host.acceleration], host.cpus)
    made = Machine(
        name=plan.name or plan.id,
        program=host.qemu,
        acceleration=host.acceleration,
        memory=memory(plan),
        cpus=cpus,
        most_memory=host.most if host.most > memory(plan) else 0,
        most_cpus=max(cpus, min(host.cpus, GROWTH_CPUS)),
        kernel=host.kernel,
        initramfs=host.initramfs,
        console=Console(log=f"{plan.directory}/{CONSOLE}", descriptor=cell.CONSOLE),
        qmp=f"{plan.directory}/{QMP}",
        control=cell.CONTROL,
        agent=Port(name=AGENT_PORT, fd=AGENT_DESCRIPTOR),
        drives=(
            Drive(name="image", path=plan.root.lowers[0], read_only=True, descriptor=cell.IMAGE),
            Drive(name="upper", path=plan.root.upper, descriptor=cell.UPPER),
        ),
        nics=nics,
        share=Share(tag=guest.SHARE_TAG, socket=socket) if guest.shared(plan) else None,
        elastic=elastic(plan),
    )
    return _forked(made, host.origin) if host.origin else made


def launch(plan: Plan, host: Host, joins: tuple[Write, ...], unified: str, reap: tuple[str, ...]) -> list[Operation]:
    """Compute what the launcher does on the host, the guest's own plan included."""
    made, thawing = machine(plan, host), bool(host.origin and host.origin.frozen)
    taps = [(nic.descriptor or 0, use.path, use.device) for nic, use in zip(made.nics, _uses(plan), strict=True)]
    return [
        Monitor(
            directory=plan.directory,
            log=plan.log.path,
            log_size=plan.log.size,
            log_files=plan.log.files,
            reap=reap,
        ),
        Relay(
            child_fd=AGENT_DESCRIPTOR,
            payload=_payload(plan, host.origin),
            fork=_begins(host.origin),
        ),
        *_trees(plan),
        Spawn(flags=FLAGS["mount"] | FLAGS["pid"], stdin=int(plan.program.stdin), cgroup=unified),
        *(WriteFile(write.path, write.value.encode()) for write in joins),
        Propagation("/", PROPAGATION["rslave"]),
        *_staging(plan, host),
        *_origin(host.origin),
        *cell.gifts(plan, made.console.log, made.qmp, taps),
        *cell.walls(plan, made, f"{plan.directory}/{SHARE_SOCKET}", thawing=thawing),
        Exec((cell.THAWING,) if thawing else command_line(cell.inside(made))),
    ]


_PERIOD = 100_000


def _payload(plan: Plan, origin: Origin | None) -> bytes:
    """Encode what the agent does first: start the program, or in a copy, where it runs, only what changes."""
    if origin and origin.spare:
        return b""
    if origin and origin.instead:
        return encode(list(origin.instead))
    if origin is None or origin.changes is None:
        return encode(guest.launch(plan, forked=origin is not None))
    return encode(list(origin.changes)) if origin.changes else b""


def _begins(origin: Origin | None) -> int:
    if origin is None:
        return 0
    return 3 if origin.spare else 1 if origin.changes is None else 2


def _forked(made: Machine, origin: Origin) -> Machine:
    """Give a machine what its template has, so that it can begin with its state.

    The slots are for what the template hasn't: a share, and interfaces, as many as there are slots for.
    """
    shape, copy = shape_of(made), origin.changes is not None
    plugged = tuple(
        msgspec.structs.replace(nic, name=card, slot=slot, late=not copy, movable=True)
        for nic, (card, slot) in zip(made.nics, sockets(shared=made.share is not None).items(), strict=False)
    )
    fixed = tuple(
        msgspec.structs.replace(nic, name=f"fixed-{nic.name}", movable=True) for nic in made.nics[len(plugged) :]
    )
    return msgspec.structs.replace(
        made,
        balloon=shape.balloon,
        generation=shape.generation,
        slots=shape.slots,
        share=msgspec.structs.replace(made.share, slot=PORTS.names[0]) if made.share else None,
        nics=(*plugged, *fixed),
        drives=tuple(msgspec.structs.replace(each, changeable=True) for each in made.drives)
        if origin.spare
        else made.drives,
        memory_file=Memory(path=f"/proc/self/fd/{MEMORY_DESCRIPTOR}", shared=origin.writable),
        incoming=True,
        copy=copy,
    )


def sockets(*, shared: bool) -> dict[str, str]:
    """Tell which interfaces can come and go, by their names, and the slots they have then; a share has the first."""
    return {f"net{number}": slot for number, slot in enumerate(PORTS.names) if number or not shared}


def _uses(plan: Plan) -> list[Attachment]:
    return [attachment for attachment in plan.attachments if attachment.kind != "none"]


def _origin(origin: Origin | None) -> list[Operation]:
    if origin is None:
        return []
    return [Give(origin.memory, 1, MEMORY_DESCRIPTOR), Give(origin.state, 0, STATE_DESCRIPTOR)]


def _is_tap(plan: Plan, kind: str) -> bool:
    if kind != "tap":
        raise NetworkUnsupported(plan.name or plan.id, kind)
    return True


def _staging(plan: Plan, host: Host) -> list[Operation]:
    """Gather the shared mounts in one directory that only this namespace sees, and serve it.

    Read-only is enforced here, where no guest can undo it.
    """
    mounts = guest.shared(plan)
    if not mounts:
        return []
    stage = f"{plan.directory}/share"
    trees = count(1)
    safe = NO_SUID | NO_DEVICE
    return [
        MountOperation("tmpfs", "tmpfs", stage, safe, ("mode=755", "size=1m"), host=1),
        *(_staged(mount, f"{stage}/{number}", trees) for number, mount in enumerate(mounts)),
        Background(
            argv=(
                host.virtiofsd,
                f"--socket-path={plan.directory}/{SHARE_SOCKET}",
                *("-o", f"source={stage}", "-o", "sandbox=namespace", "-o", "announce_submounts"),
                # Attributes are asked for again every time: what the host changes is seen at once.
                *("-o", "cache=auto", "-o", "timeout=0", "-o", "xattr", "--rlimit-nofile=0"),
            ),
            log=f"{plan.directory}/{SHARE_LOG}",
            ready=f"{plan.directory}/{SHARE_SOCKET}",
        ),
    ]


def _trees(plan: Plan) -> list[OpenTree]:
    """Open what shows other owners than it has; `_staged` takes them in the same order."""
    found = []
    for mount in guest.shared(plan):
        if mount.mine:
            users, groups = (lines(each) for each in belonging.maps(mount.mine, None))
            found.append(OpenTree(mount.source, int(mount.recursive), users, groups, deep=1))
    return found


def _staged(mount: Mount, target: str, trees: Iterator[int]) -> Bind:
    return Bind(
        tree=next(trees) if mount.mine else 0,
        source=mount.source,
        target=target,
        recursive=int(mount.recursive),
        attributes=READ_ONLY if mount.read_only else 0,
        host=1,
    )
