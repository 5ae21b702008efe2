"""Machines, as the doors see them: what only those with an operating system of their own can do.

All that every instance can do (start, stop, logs, exec, ports, ...) is `Instances`' with them as with others.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from trivet.base.error import TrivetError, Unsupported
from trivet.client.schema_machine import (
    BackupPoint,
    CatalogueImage,
    DeviceRequest,
    DiskInfo,
    DiskLimits,
    DiskRequest,
    MachineInfo,
    ObtainRequest,
    RestoreRequest,
)
from trivet.engine.image.progress import Report
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word, check
from trivet.engine.machine import backup, catalogue, device, disk, image, inside, keyboard, point, restore, screen
from trivet.engine.machine.filling import Filling
from trivet.engine.snapshot.making import disk_usage
from trivet.isolation import computer, display
from trivet.isolation.errand import agent_of
from trivet.isolation.plan import Plan
from trivet.oci import reference as references

T = TypeVar("T")


class NoMachine(Unsupported):
    """An instance that has no operating system of its own."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"instance {name} is no machine with a system of its own", hint="trivet vm ls lists those that are"
        )


class Machines:
    """All machines of one engine; `ref` is a name, an id or a unique prefix of one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.filling = Filling(context)

    def find(self, ref: str) -> InstanceRecord:
        """Find a machine. Raises `NotFound`, `NoMachine`."""
        record = self._context.table.find(ref)
        if record.plan.hardware is None:
            raise NoMachine(record.name)
        return record

    async def obtain(self, wish: ObtainRequest, report: Report) -> dict[str, Any]:
        """Have a disk image here: made from packages, or fetched, if it isn't."""
        name, record = await image.obtain(self._context.images, wish, self._context.cache_dir, report)
        return {"name": name, "id": record.id}

    async def catalogue(self, url: str, keyring: str) -> list[CatalogueImage]:
        """List the disk images of a catalogue for this machine's architecture."""
        return [catalogue.view(found) for found in await catalogue.images(url, keyring)]

    async def info(self, ref: str) -> MachineInfo:
        """Tell what is known of a machine, and what its guest says itself."""
        return await asyncio.to_thread(self._info, self.find(ref))

    async def reboot(self, ref: str, *, hard: bool) -> None:
        """Have the guest reboot: by its agent, else by ctrl-alt-delete; `hard` presses the reset button."""
        record = await self._running(ref, "signal", _reset if hard else _reboot)
        self._context.emit("reboot", record)

    async def screenshot(self, ref: str) -> bytes:
        """Take a picture of the screen, as PNG."""
        found: list[bytes] = []
        await self._running(ref, "attach to", lambda plan: found.append(screen.picture(plan)))
        return found[0]

    async def show(self, ref: str) -> socket.socket:
        """Connect to the screen: what comes and goes is RFB, without authentication."""
        found: list[socket.socket] = []
        await self._running(ref, "attach to", lambda plan: found.append(screen.connect(plan)))
        return found[0]

    async def add_disk(self, ref: str, wish: DiskRequest) -> None:
        """Give a machine a further, empty disk, running or not."""
        await self._locked(ref, "adding a disk to", lambda record: disk.add(self._context, record, wish))

    async def resize_disk(self, ref: str, name: str, size: int) -> None:
        """Let a disk grow, running or not."""
        await self._locked(ref, "resizing a disk of", lambda record: disk.resize(self._context, record, name, size))

    async def limit_disk(self, ref: str, name: str, limits: DiskLimits) -> None:
        """Limit a disk, running or not."""
        await self._locked(ref, "limiting a disk of", lambda record: disk.limit(self._context, record, name, limits))

    async def remove_disk(self, ref: str, name: str) -> None:
        """Take a disk and its data away, running or not."""
        await self._locked(ref, "removing a disk of", lambda record: disk.remove(self._context, record, name))

    async def add_device(self, ref: str, wish: DeviceRequest) -> None:
        """Give a machine a further device."""
        await self._locked(ref, "adding a device to", lambda record: device.add(self._context, record, wish))

    async def remove_device(self, ref: str, name: str) -> None:
        """Take a device from a machine."""
        await self._locked(ref, "removing a device of", lambda record: device.remove(self._context, record, name))

    async def _locked(self, ref: str, action: str, do: Callable[[InstanceRecord], None]) -> None:
        key = self.find(ref).id
        async with self._context.locks.hold(key, action):
            await asyncio.to_thread(do, self.find(key))

    async def backup(self, ref: str, directory: str, report: Report, *, full: bool) -> dict[str, Any]:
        """Add a point to a directory of backups: what changed since the last one, or with `full` all."""
        key, place = self.find(ref).id, point.directory_of(directory)
        async with self._context.locks.hold(key, "backing up"):
            made = await asyncio.to_thread(backup.take, self.find(key), place, report, full=full)
        return {"id": made.id, "full": made.full, "quiet": made.quiet, "directory": directory}

    async def backups(self, directory: str) -> list[BackupPoint]:
        """List the points of a directory of backups."""
        place = point.directory_of(directory)
        return await asyncio.to_thread(lambda: point.view(place, point.read(place)))

    async def restore(self, wish: RestoreRequest) -> str:
        """Make a new machine of a backup; its id."""
        made = await restore.restore(self._context, wish)
        if wish.live:
            self.filling.add(made)
        return made

    async def export(self, ref: str, form: str) -> Callable[[BinaryIO], None]:
        """Prepare to write a machine that is off as a file; what is returned does it."""
        from trivet.engine.machine import export  # with it come tarfile and XML, which few need

        record = self.find(ref)
        export.check(record, form)
        return export.writer(self._context, record, form)

    async def commit(self, ref: str, reference: str, report: Report) -> dict[str, Any]:
        """Make a disk image of a machine that is off."""
        from trivet.engine.machine import export

        key = self.find(ref).id
        references.parse(reference)
        async with self._context.locks.hold(key, "committing"):
            record = self.find(key)
            export.check(record, export.OVA, "commit")
            made = await asyncio.to_thread(export.commit, self._context, record, reference, report)
        self._context.events.emit("image", "commit", made.id, reference)
        return {"name": reference, "id": made.id}

    async def press(self, ref: str, chords: list[str]) -> None:
        """Press keys, one chord after the other."""
        wanted = [keyboard.chord(words) for words in chords]
        await self._running(ref, "attach to", lambda plan: screen.press(plan, wanted))

    async def type(self, ref: str, text: str) -> None:
        """Type a text on a US keyboard."""
        wanted = keyboard.text(text)
        await self._running(ref, "attach to", lambda plan: screen.press(plan, wanted))

    async def point(self, ref: str, x: int, y: int, button: str, down: bool | None) -> None:
        """Move the pointer, press and release a button."""
        await self._running(ref, "attach to", lambda plan: screen.point(plan, x, y, button, down))

    async def _running(self, ref: str, action: str, do: Callable[[Plan], object]) -> InstanceRecord:
        record = self.find(ref)
        check(action, record.name, record.word)
        await asyncio.to_thread(do, record.plan)
        return record

    def _info(self, record: InstanceRecord) -> MachineInfo:
        plan, parts = record.plan, computer.hardware(record.plan)
        alive = record.word in (Word.RUNNING, Word.PAUSED)
        state = _state(plan) if alive else ""
        guest = inside.ask(plan) if state == "running" else None
        return MachineInfo(
            name=record.name,
            status=record.word,
            image=record.image,
            firmware=parts.firmware,
            secure_boot=parts.secure_boot,
            tpm=parts.tpm,
            cpus=computer.cpus(plan),
            memory=computer.memory(plan),
            disks=_disks(plan),
            cdroms=[each.path for each in parts.cdroms],
            devices=device.listed(plan),
            run_state=state,
            agent=guest is not None,
            hostname=guest.hostname if guest else "",
            system=guest.system if guest else "",
            addresses=list(guest.addresses) if guest else [],
            display=_screen(plan) if state else "",
        )


def _disks(plan: Plan) -> list[DiskInfo]:
    return [
        DiskInfo(
            name=each.name,
            size=each.size,
            used=disk_usage(Path(each.path)),
            path=each.path,
            iops=each.iops,
            rate=each.rate,
            filling=bool(each.kept),
        )
        for each in computer.hardware(plan).disks
    ]


def _state(plan: Plan) -> str:
    try:
        with screen.control(plan) as qmp:
            return qmp.status()
    except TrivetError:
        return ""


def _screen(plan: Plan) -> str:
    """Have the screen be shown, and tell where."""
    try:
        with screen.control(plan) as qmp:
            return str(display.offer(plan, qmp))
    except TrivetError:
        return ""


def _reset(plan: Plan) -> None:
    with screen.control(plan) as qmp:
        qmp.reset()


def _reboot(plan: Plan) -> None:
    agent = agent_of(plan, 3.0)
    if agent.answers():
        agent.tell("guest-shutdown", mode="reboot")
    else:
        screen.press(plan, [keyboard.chord("ctrl-alt-delete")])
