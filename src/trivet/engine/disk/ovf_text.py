"""Writing an OVF description (DMTF DSP0243, version 1.0, which everything reads)."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape, quoteattr

from trivet.engine.disk.machine import Machine
from trivet.engine.disk.model import Firmware
from trivet.engine.disk.ovf import CPU, DISK, MEMORY, NETWORK, SATA

STREAM = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
TEMPLATE = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" \
xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" \
xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" \
xmlns:vmw="http://www.vmware.com/schema/ovf" ovf:version="1.0">
<References>{files}</References>
<DiskSection><Info>Disks</Info>{disks}</DiskSection>
<NetworkSection><Info>Networks</Info>{networks}</NetworkSection>
<VirtualSystem ovf:id={id}><Info>A machine</Info><Name>{name}</Name>
<OperatingSystemSection ovf:id="1"><Info>Operating system</Info><Description>{os}</Description>\
</OperatingSystemSection>
<VirtualHardwareSection><Info>Hardware</Info><System><vssd:ElementName>Hardware</vssd:ElementName>\
<vssd:InstanceID>0</vssd:InstanceID><vssd:VirtualSystemIdentifier>{name}</vssd:VirtualSystemIdentifier>\
<vssd:VirtualSystemType>vmx-10</vssd:VirtualSystemType></System>{hardware}</VirtualHardwareSection>
</VirtualSystem>
</Envelope>
"""


def write(machine: Machine, sizes: Mapping[str, int]) -> str:
    """Write a description, whose disks are streamOptimized VMDK files of these `sizes`."""
    files, disks, hardware = [], [], []
    hardware.append(_item(1, CPU, f"{machine.cpus} virtual CPU(s)", VirtualQuantity=machine.cpus))
    memory = machine.memory >> 20
    hardware.append(_item(2, MEMORY, f"{memory} MB of memory", AllocationUnits="byte * 2^20", VirtualQuantity=memory))
    hardware.append(_item(3, SATA, "SATA controller", Address=0, ResourceSubType="AHCI"))
    for number, disk in enumerate(machine.disks):
        files.append(f'<File ovf:id="file{number}" ovf:href={quoteattr(disk.file)} ovf:size="{sizes[disk.file]}"/>')
        disks.append(f'<Disk ovf:diskId="disk{number}" ovf:fileRef="file{number}" ovf:capacity="{disk.capacity}" '
                     f'ovf:capacityAllocationUnits="byte" ovf:format="{STREAM}"/>')  # fmt: skip
        hardware.append(
            _item(
                10 + number,
                DISK,
                f"disk {number}",
                AddressOnParent=number,
                HostResource=f"ovf:/disk/disk{number}",
                Parent=3,
            )
        )
    networks = dict.fromkeys(nic.network or "default" for nic in machine.nics)
    for number, nic in enumerate(machine.nics):
        hardware.append(
            _item(
                100 + number,
                NETWORK,
                f"nic {number}",
                Connection=nic.network or "default",
                ResourceSubType=nic.model or "E1000",
            )
        )
    firmware = '<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>' * (
        machine.firmware is Firmware.UEFI
    )
    return TEMPLATE.format(
        files="".join(files),
        disks="".join(disks),
        networks="".join(f"<Network ovf:name={quoteattr(each)}><Description/></Network>" for each in networks),
        name=escape(machine.name),
        id=quoteattr(machine.name),
        os=escape(machine.os or "Other"),
        hardware="".join(hardware) + firmware,
    )


def _item(number: int, kind: str, title: str, **fields: str | int) -> str:
    """Write a record of hardware, its fields in the order of the alphabet, as the schema wants it."""
    every = {"ElementName": title, "InstanceID": number, "ResourceType": kind, **fields}
    rows = "".join(f"<rasd:{key}>{escape(str(every[key]))}</rasd:{key}>" for key in sorted(every))
    return f"<Item>{rows}</Item>"
