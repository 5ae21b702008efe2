"""What QEMU of a machine of its own gets to see: files that were opened before, and the cell around it (cell.py).

    /kernel /initrd     what is started in place of a loader, if anything; read-only
    /netboot            what the boot ROM is served; read-only
    /dev/vfio, /sys     devices of the host that are given to it (passthrough.py)
    /share/N            where the server of a shared directory listens (sharing.py)
    /tpm                swtpm's, a user of its own: its control socket, and what it remembers (state)

Disks, what is below them, CDs, seed, stick, firmware's variables, sockets and interfaces are descriptors.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from trivet.base.error import InvalidArgument
from trivet.hypervisor.machine import Acceleration
from trivet.hypervisor.system import System
from trivet.isolation import cell, passthrough, sharing
from trivet.isolation.hardware import Direct, Hardware
from trivet.isolation.machine import Host
from trivet.isolation.plan import Plan
from trivet.launch.operation import Background, Bind, Give, GiveListener, GiveTap, Mount, Operation
from trivet.runtime.mount import NO_DEVICE, NO_EXEC, NO_SUID, READ_ONLY

CONTROL, AGENT = 40, 41
KEPT = 64
FILES, CDROMS, VARIABLES, STICK, SEED, USB = 128, 228, 248, 249, 250, 251
KERNEL, INITRD, NETBOOT, TPM = "/kernel", "/initrd", "/netboot", "/tpm/control"
_COPIED = {KERNEL: "kernel", INITRD: "initrd"}
_OTHERS = 0o004
_MOST = (CDROMS - FILES) // 2


def check(plan: Plan, parts: Hardware) -> None:
    """Refuse more disks and CDs than can be handed over. Raises `InvalidArgument`."""
    if len(parts.disks) >= _MOST or len(parts.cdroms) > VARIABLES - CDROMS:
        raise InvalidArgument(f"machine {plan.name} has too many disks")
    if sum(len(each.kept) for each in parts.disks) > FILES - KEPT:
        raise InvalidArgument(f"machine {plan.name} is restored from too many backups to run before it is done")


def prepare(plan: Plan, parts: Hardware) -> None:
    """Make what the cell needs: its place, readable copies of what only root reads, and what swtpm may write to."""
    home = Path(plan.directory)
    (home / cell.PLACE).mkdir(mode=0o700, exist_ok=True)
    sharing.prepare(plan)
    for inside, path in _started(parts.direct).items():
        copy = home / _COPIED[inside]
        copy.unlink(missing_ok=True)
        if not Path(path).stat().st_mode & _OTHERS:
            shutil.copyfile(path, copy)
            copy.chmod(0o644)
    if parts.tpm:
        state, owner = Path(parts.home, "tpm"), tpm_user(plan)
        for each in (state, *state.iterdir()):
            os.chown(each, owner, owner, follow_symlinks=False)


def tpm_user(plan: Plan) -> int:
    """Give the id of the user that a machine's swtpm runs as: neither its QEMU's nor anybody else's."""
    return cell.user(plan) + cell.USERS


def gifts(plan: Plan, made: System, sockets: tuple[str, str]) -> list[Operation]:
    """Open what QEMU gets; `sockets` are where it and the guest's agent are reached."""
    steps: list[Operation] = [GiveListener(sockets[0], CONTROL), GiveListener(sockets[1], AGENT)]
    for disk in made.disks:
        steps += [Give(disk.path, 0 if disk.read_only else 1, disk.descriptor)] if disk.descriptor else []
        steps += [Give(disk.base, 0, disk.base_descriptor)] if disk.base_descriptor else []
        steps += [Give(each.path, 0, each.descriptor or 0) for each in disk.kept]
    steps += [Give(each.path, 0, each.descriptor) for each in made.cdroms if each.descriptor]
    if made.stick and made.stick.descriptor:
        steps.append(Give(made.stick.path, 0, made.stick.descriptor))
    steps += [Give(each.path, 0 if each.read_only else 1, each.descriptor or 0) for each in made.usb]
    if made.firmware and made.firmware.descriptor:
        steps.append(Give(made.firmware.variables, 1, made.firmware.descriptor))
    uses = [use for use in plan.attachments if use.kind != "none"]
    for nic, use in zip(made.nics, uses, strict=True):
        number = nic.descriptor or 0
        steps.append(Give(use.path, 1, number) if use.path else GiveTap(use.device, number))
    return steps


def walls(plan: Plan, parts: Hardware, host: Host, memory: int) -> list[Operation]:
    """Leave everything behind that is neither QEMU's nor swtpm's; `memory` is the guest's, in bytes."""
    accelerated = host.acceleration is Acceleration.KVM
    shown: list[Operation] = []
    for inside, path in _started(parts.direct).items():
        copy = Path(plan.directory, _COPIED[inside])
        source = str(copy) if copy.exists() else path
        shown.append(Bind(source, inside, recursive=0, attributes=READ_ONLY | NO_SUID | NO_DEVICE | NO_EXEC))
    if parts.netboot:
        safe = READ_ONLY | NO_SUID | NO_DEVICE | NO_EXEC
        shown.append(Bind(parts.netboot.directory, NETBOOT, recursive=0, attributes=safe))
    given = passthrough.shown(host.given, cell.user(plan), memory)
    room, helper = _tpm(plan, parts, host)
    return [
        *cell.around(
            f"{plan.directory}/{cell.PLACE}",
            [*shown, *sharing.shown(plan), *room, *given],
            helper,
            accelerated=accelerated,
        ),
        *cell.rights(cell.user(plan), accelerated=accelerated),
    ]


def _started(direct: Direct | None) -> dict[str, str]:
    if direct is None:
        return {}
    return {KERNEL: direct.kernel, **({INITRD: direct.initrd} if direct.initrd else {})}


def _tpm(plan: Plan, parts: Hardware, host: Host) -> tuple[list[Operation], list[Operation]]:
    """Make a room with the state in it, and start swtpm there, without a right but to write to it."""
    if not parts.tpm:
        return [], []
    owner, safe = tpm_user(plan), NO_SUID | NO_DEVICE | NO_EXEC
    room: list[Operation] = [
        Mount("tmpfs", "tmpfs", "/tpm", safe, ("mode=711", "size=64k", f"uid={owner}", f"gid={owner}")),
        Bind(f"{parts.home}/tpm", "/tpm/state", recursive=0, attributes=safe),
    ]
    drop = ("--reuid", str(owner), "--regid", str(owner), "--clear-groups")
    rights = ("--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs")
    helper = Background(
        argv=(
            *("/usr/bin/setpriv", *drop, *rights, host.swtpm),
            *("socket", "--tpm2", "--tpmstate", "dir=/tpm/state,mode=0600"),
            *("--ctrl", f"type=unixio,path={TPM},mode=0666", "--flags", "startup-clear"),
        ),
        log="/tpm/log",
        ready=TPM,
    )
    return room, [helper]
