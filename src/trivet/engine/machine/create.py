"""Making a machine with an operating system of its own: an instance whose root is a disk."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from trivet.base.clock import now_ns
from trivet.base.error import Conflict, InvalidArgument, Unsupported
from trivet.base.identity import new_id
from trivet.client.schema import InstanceRequest
from trivet.client.schema_machine import MachineRequest, UsbRequest
from trivet.engine.disk.base import DiskTooSmall
from trivet.engine.disk.model import SECTOR
from trivet.engine.instance.attachment import choose
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.mount import Mounts, resolve
from trivet.engine.instance.plan import make_plan
from trivet.engine.machine import cloud
from trivet.engine.machine.image import using
from trivet.engine.snapshot.disk import ROOT, create
from trivet.isolation import computer, firmware, passthrough, sharing
from trivet.isolation.driver import Ability
from trivet.isolation.hardware import Answer, Cdrom, Direct, Disk, Hardware, Netboot, Seed, Usb
from trivet.isolation.plan import Root
from trivet.oci.config import Config

Below = dict[str, Path]
SMALLEST = 10 << 30
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,14}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")
_LONGEST = 1 << 20
_REFUSED = (
    "read_only",
    "init",
    "privileged",
    "cap_add",
    "cap_drop",
    "devices",
    "sysctls",
    "rlimits",
    "pid",
    "ipc",
    "uts",
)


def make(
    context: Context, request: InstanceRequest, name: str, ability: Ability, undo: AsyncExitStack, held: AsyncExitStack
) -> tuple[InstanceRecord, list[str]]:
    """Make the parts; blocking. The image must be here already, and is `held` until the record is there."""
    wish = request.machine or MachineRequest()
    _check(request, wish)
    request = msgspec.structs.replace(
        request, terminal=True, stdin=True, hostname=request.hostname or name.replace("_", "-")
    )
    key = new_id()
    place = context.place(key)
    image, base = held.enter_context(using(context.images, request.image))
    wish, below = _further(context, wish, held)
    request = msgspec.structs.replace(request, machine=wish)
    seed = cloud.seed(wish)
    undo.push_async_callback(asyncio.to_thread, shutil.rmtree, place.state, True)
    place.state.mkdir(parents=True, mode=0o700)
    size = _size(wish, base, request.image)
    mounts = resolve(request.mounts, [], context.volumes, no_image)
    undo.push_async_callback(asyncio.to_thread, drop_volumes, context, mounts)
    sharing.check(name, mounts.mounts)
    root = context.disks.make(key, base, size, lambda home: _furnish(home, wish, below))
    undo.push_async_callback(asyncio.to_thread, context.disks.remove, key)
    plan = make_plan(
        request,
        Config(cmd=(wish.firmware,)),
        key=key,
        name=name,
        place=place,
        root=root,
        mounts=mounts.mounts,
        attachments=choose(request, ability, context.networks),
        hardware=_hardware(wish, root, seed, size, below),
    )
    record = InstanceRecord(
        id=key,
        name=name,
        request=request,
        image=request.image,
        image_id=image.id if image else "",
        plan=plan,
        acceleration=ability.acceleration,
        created=now_ns(),
        volumes=mounts.volumes,
        anonymous_volumes=mounts.anonymous,
    )
    return record, _warnings(wish, ability)


def _check(request: InstanceRequest, wish: MachineRequest) -> None:
    if request.isolation != "vm":
        raise Unsupported(f"a machine with a system of its own is not possible at level {request.isolation}")
    defaults = InstanceRequest(image="")
    for field in _REFUSED:
        if getattr(request, field) != getattr(defaults, field):
            raise Unsupported(f"{field} means nothing to a machine with a system of its own")
    if wish.secure_boot and wish.firmware != "uefi":
        raise InvalidArgument("Secure Boot takes UEFI", hint="--firmware uefi --secure-boot")
    if not (request.image or wish.filled or wish.cdroms or wish.kernel or wish.pxe or "network" in wish.boot):
        raise InvalidArgument(
            "the machine has nothing to boot", hint="--image debian/12, --cdrom FILE or --boot network"
        )
    for path in (*wish.cdroms, wish.kernel, wish.initrd, *(file for files in wish.kept.values() for file in files)):
        if path and not (path.startswith("/") and Path(path).is_file()):
            raise InvalidArgument(f"{path} is no file of the engine's host, by its absolute path")
    for name, content in wish.answers.items():
        if not _FILE.fullmatch(name) or len(content) > _LONGEST:
            raise InvalidArgument(f"{name[:60]!r} can't be an answer file: a plain name, at most {_LONGEST} bytes")
    if wish.pxe:
        _netboot(wish)
    check_pci(wish.pci)
    names = [disk.name for disk in wish.disks]
    for disk in wish.disks:
        check_disk(disk.name, disk.size, [ROOT.partition(".")[0], "seed", *names])


def no_image(reference: str) -> tuple[str, Path]:
    """Raise `Unsupported`."""
    raise Unsupported(f"image {reference} cannot be mounted in a machine with a system of its own")


def drop_volumes(context: Context, mounts: Mounts) -> None:
    """Remove volumes that were made for a machine which isn't."""
    for volume in mounts.made:
        context.volumes.remove(volume)


def _netboot(wish: MachineRequest) -> Netboot:
    """Find what a boot ROM is served first. Raises `InvalidArgument`."""
    home = Path(wish.pxe)
    if not (home.is_absolute() and home.is_dir()):
        raise InvalidArgument(f"{wish.pxe} is no directory of the engine's host, by its absolute path")
    usual = ("boot.ipxe", "bootx64.efi" if wish.firmware == "uefi" else "pxelinux.0")
    names = (wish.pxe_file,) if wish.pxe_file else usual
    found = next((name for name in names if (home / name).is_file()), "")
    if not found or "/" in found:
        raise InvalidArgument(f"{wish.pxe} has no file {' or '.join(names)} to boot from", hint="--pxe DIRECTORY:FILE")
    for path in (home, home / found):
        if not path.stat().st_mode & 0o004:
            raise InvalidArgument(f"{path} is served to the machine, but only its owner may read it", hint="chmod o+rX")
    return Netboot(directory=str(home), file=found)


def usb(wish: UsbRequest, number: int) -> Usb:
    """Describe a USB stick at a place. Raises `InvalidArgument`, `Conflict`."""
    names = list(computer.USB_PORTS)
    if number >= len(names):
        raise Conflict(f"a machine can have at most {len(names)} USB sticks")
    path = Path(wish.path)
    if not (path.is_absolute() and path.is_file()):
        raise InvalidArgument(f"{wish.path} is no file of the engine's host, by its absolute path")
    if size := path.stat().st_size % SECTOR:
        raise InvalidArgument(f"{wish.path} is no image of a USB stick: {size} bytes are left over after its sectors")
    return Usb(name=names[number], path=str(path), read_only=wish.read_only)


def check_pci(wishes: list[str]) -> None:
    """Refuse devices of the host that can't be. Raises `InvalidArgument`."""
    for each in wishes:
        passthrough.check(each)
    if len(wishes) > passthrough.MOST:
        raise InvalidArgument(f"a machine can have at most {passthrough.MOST} PCI devices of the host")


def check_disk(name: str, size: int, taken: list[str]) -> None:
    """Refuse a disk that can't be. Raises `InvalidArgument`."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"invalid disk name {name!r}", hint="use lower-case letters, digits and '-', at most 15")
    if taken.count(name) > 1 or name in ("root", "seed"):
        raise InvalidArgument(f"a disk named {name} is there already")
    if size < 1 << 20 or size % 512:
        raise InvalidArgument(f"disk {name} of {size} bytes is no disk: at least 1 MiB, in sectors of 512 bytes")


def _further(context: Context, wish: MachineRequest, held: AsyncExitStack) -> tuple[MachineRequest, Below]:
    """Find what further disks are thin over; images are meant by their ids from now on."""
    below: Below = {}
    disks = []
    for disk in wish.disks:
        image, base = held.enter_context(using(context.images, disk.image))
        if image and base:
            if disk.size < base.stat().st_size:
                raise DiskTooSmall(disk.image, disk.size, base.stat().st_size)
            below[disk.name] = base
        disks.append(msgspec.structs.replace(disk, image=image.id if image else ""))
    return msgspec.structs.replace(wish, disks=disks), below


def _size(wish: MachineRequest, base: Path | None, name: str) -> int:
    least = base.stat().st_size if base else 0
    size = wish.disk or max(least, SMALLEST)
    if size < least:
        raise DiskTooSmall(name, size, least)
    return -(-size // SECTOR) * SECTOR


def _furnish(home: Path, wish: MachineRequest, below: Below) -> None:
    """Make what firmware and TPM remember things in, and the further disks."""
    if wish.firmware == "uefi":
        firmware.provide(home / computer.VARIABLES, secure=wish.secure_boot)
    if wish.tpm:
        (home / "tpm").mkdir(mode=0o700)
    for disk in wish.disks:
        create(home / f"{disk.name}.qcow2", disk.size, below.get(disk.name))


def _hardware(wish: MachineRequest, root: Root, seed: Seed | None, size: int, below: Below) -> Hardware:
    home = Path(root.upper)
    first = Disk(
        name="root",
        path=str(home / ROOT),
        size=size,
        base=root.lowers[0] if root.lowers else "",
        iops=wish.iops,
        rate=wish.rate,
        kept=tuple(wish.kept.get("root", ())),
    )
    further = (
        Disk(
            name=each.name,
            path=str(home / f"{each.name}.qcow2"),
            size=each.size,
            base=str(below.get(each.name, "")),
            iops=each.iops,
            rate=each.rate,
            kept=tuple(wish.kept.get(each.name, ())),
        )
        for each in wish.disks
    )
    order = [*wish.boot, *(each for each in Hardware(home="").boot if each not in wish.boot)]
    return Hardware(
        home=str(home),
        firmware=wish.firmware,
        secure_boot=wish.secure_boot,
        tpm=wish.tpm,
        disks=(first, *further),
        cdroms=tuple(Cdrom(path=path) for path in wish.cdroms),
        seed=seed,
        direct=Direct(kernel=wish.kernel, initrd=wish.initrd, parameters=wish.parameters) if wish.kernel else None,
        netboot=_netboot(wish) if wish.pxe else None,
        answers=tuple(Answer(name, content) for name, content in wish.answers.items()),
        boot=tuple(order),
        watchdog=wish.watchdog,
        usb=tuple(usb(each, number) for number, each in enumerate(wish.usb)),
        pci=tuple(wish.pci),
    )


def _warnings(wish: MachineRequest, ability: Ability) -> list[str]:
    found = []
    if ability.acceleration == "emulation":
        found.append("no hardware virtualization here: the machine is emulated, its processor is slow")
    if wish.cloud_init and not (wish.ssh_keys or wish.password or wish.user_data) and not wish.cdroms:
        found.append("nobody will be able to log in: neither --ssh-key, --password nor --user-data was given")
    return found
