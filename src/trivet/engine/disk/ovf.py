"""OVF descriptions (DMTF DSP0243, versions 1 and 2) of one machine, from strangers.

Hardware is a list of CIM records told apart by a number; memory and disks have their units in words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element

from trivet.engine.disk import element
from trivet.engine.disk.element import MalformedXml, text
from trivet.engine.disk.machine import ApplianceRefused, DiskFile, Machine, Nic
from trivet.engine.disk.model import LARGEST, Firmware, Format

CPU, MEMORY, IDE, SCSI, NETWORK, DISK, SATA = "3", "4", "5", "6", "10", "17", "20"
CONTROLLERS = {IDE: "ide", SCSI: "scsi", SATA: "sata"}
MOST_CPUS, MOST_MEMORY = 1024, 64 << 40
NAME = re.compile(r"[^\x00-\x1f/\\]{1,200}")
UNIT = re.compile(r"byte(?:s)?(?:\*(?:2\^(\d{1,2})|(\d{1,13})))?")
OLD_UNITS = {
    "kilobytes": 1 << 10,
    "megabytes": 1 << 20,
    "gigabytes": 1 << 30,
    "kb": 1 << 10,
    "mb": 1 << 20,
    "gb": 1 << 30,
}
FORMATS = (("vmdk", Format.VMDK), ("vdi", Format.VDI), ("vhdx", Format.VHDX), ("vhd", Format.VHD),
           ("qcow2", Format.QCOW2), ("raw", Format.RAW), ("bb676673", Format.VHD), ("img", Format.RAW))  # fmt: skip


def read(raw: bytes, name: str) -> Machine:
    """Read a description. Raises `ApplianceRefused`, with `name`."""
    try:
        return _machine(element.parse(raw), name)
    except (MalformedXml, ValueError) as error:
        raise ApplianceRefused(name, f"its description is malformed: {error}") from error


def _machine(envelope: Element, name: str) -> Machine:
    systems = list(element.below(envelope, "VirtualSystem"))
    if envelope.tag != "Envelope" or not systems:
        raise MalformedXml("it describes no machine")
    if len(systems) > 1:
        raise ApplianceRefused(name, f"it describes {len(systems)} machines", hint="export them one by one")
    system = systems[0]
    items = _items(system)
    title = text(system, "Name") or system.get("id") or "machine"
    return Machine(
        name=title[:200],
        cpus=_bounded(sum(_quantity(item) for item in items if _kind(item) == CPU) or 1, MOST_CPUS, "processors"),
        memory=_bounded(_memory(items), MOST_MEMORY, "bytes of memory"),
        firmware=_firmware(system),
        os=text(system.find("OperatingSystemSection") or Element("none"), "Description")[:200],
        disks=tuple(_disks(envelope, items, name)),
        nics=tuple(Nic(network=text(each, "Connection")[:200], model=text(each, "ResourceSubType").lower()[:40])
                   for each in items if _kind(each) == NETWORK),
    )  # fmt: skip


def _items(system: Element) -> list[Element]:
    found = []
    for section in element.below(system, "VirtualHardwareSection"):
        found += [each for each in section if each.tag in ("Item", "StorageItem", "EthernetPortItem")]
    return found


def _kind(item: Element) -> str:
    return text(item, "ResourceType")


def _quantity(item: Element) -> int:
    return int(text(item, "VirtualQuantity") or "0")


def _memory(items: list[Element]) -> int:
    found = [_quantity(item) * _unit(text(item, "AllocationUnits") or "byte * 2^20")
             for item in items if _kind(item) == MEMORY]  # fmt: skip
    return sum(found) or 1 << 30


def _unit(words: str) -> int:
    """Read a unit, as `byte * 2^20`, `MegaBytes`."""
    plain = re.sub(r"\s", "", words).lower()
    if plain in OLD_UNITS:
        return OLD_UNITS[plain]
    match = UNIT.fullmatch(plain)
    if not match:
        raise MalformedXml(f"the unit {words[:40]!r} is unknown")
    return 1 << int(match[1]) if match[1] else int(match[2] or 1)


def _bounded(number: int, most: int, what: str) -> int:
    if not 0 < number <= most:
        raise MalformedXml(f"a machine can't have {number} {what}")
    return number


def _firmware(system: Element) -> Firmware:
    """Find the firmware where VMware and VirtualBox write it."""
    said = [each.get("value", "") for each in element.below(system, "Config") if each.get("key") == "firmware"]
    said += [each.get("type", "") for each in element.below(system, "Firmware")]
    words = {word.lower() for word in said}
    if words & {"efi", "efi32", "efi64", "uefi"}:
        return Firmware.UEFI
    return Firmware.BIOS if words & {"bios"} else Firmware.ANY


def _disks(envelope: Element, items: list[Element], name: str) -> list[DiskFile]:
    """List the disks in the order of the hardware."""
    files = {each.get("id", ""): each for each in element.below(envelope, "File")}
    disks = {each.get("diskId", ""): each for each in element.below(envelope, "Disk")}
    controllers = {text(item, "InstanceID"): CONTROLLERS[_kind(item)] for item in items if _kind(item) in CONTROLLERS}
    found = []
    for item in items:
        if _kind(item) != DISK:
            continue
        place = text(item, "HostResource").rpartition("disk/")
        disk = disks.get(place[2]) if place[1] else None
        if disk is None:
            raise MalformedXml(f"the disk {text(item, 'HostResource')[:80]!r} is nowhere")
        found.append(_disk(disk, files, controllers.get(text(item, "Parent"), ""), name))
    return found


def _disk(disk: Element, files: Mapping[str, Element], controller: str, name: str) -> DiskFile:
    if disk.get("parentRef"):
        raise ApplianceRefused(name, "one of its disks has a parent")
    file = files.get(disk.get("fileRef", ""))
    if file is None:
        raise ApplianceRefused(name, "one of its disks has no file")
    href = file.get("href", "")
    check_name(href, name)
    if file.get("compression", "identity") != "identity" or file.get("chunkSize"):
        raise ApplianceRefused(
            name, f"{href} is compressed or in parts as a whole", hint="unpack it, and import the OVF"
        )
    capacity = int(disk.get("capacity", "0")) * _unit(disk.get("capacityAllocationUnits") or "byte")
    return DiskFile(
        file=href,
        format=_format(disk.get("format", ""), href, name),
        capacity=_bounded(capacity, LARGEST, "bytes on a disk"),
        controller=controller,
        size=int(file.get("size", "")) if file.get("size") else None,
    )


def check_name(href: str, name: str) -> None:
    """Refuse a file that isn't beside the description. Raises `ApplianceRefused`."""
    if not NAME.fullmatch(href) or href in (".", ".."):
        raise ApplianceRefused(name, f"it names the file {href[:100]!r}, which is not beside it")


def _format(address: str, href: str, name: str) -> Format:
    """Tell a disk's format by the address that stands for it, or else by the file's name."""
    for words in (address.lower(), href.lower().rpartition(".")[2]):
        for word, form in FORMATS:
            if word in words:
                return form
    raise ApplianceRefused(name, f"{href} has an unknown format")
