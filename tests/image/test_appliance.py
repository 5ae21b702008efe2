"""OVA and OVF: machines from elsewhere and to elsewhere, and those that want more than being read."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image.test_disk import MIB, export, make_raw, qemu

from trivet.base.error import Corrupt
from trivet.engine.disk import appliance, ova, ovf, ovf_text
from trivet.engine.disk.machine import ApplianceRefused, DiskFile, Machine, Nic
from trivet.engine.disk.model import DiskRefused, Firmware, Format
from trivet.engine.image.image import Images
from trivet.oci import platform as platforms

pytestmark = pytest.mark.needs("root", "qemu-img")

ENVELOPE = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
<References><File ovf:href="{href}" ovf:id="file1"{size}/></References>
<DiskSection><Info/><Disk ovf:capacity="{capacity}" ovf:capacityAllocationUnits="{unit}" ovf:diskId="vmdisk1"
 ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"{more}/>
</DiskSection>
<VirtualSystem ovf:id="web"><Info/><Name>web server</Name>
<OperatingSystemSection ovf:id="96"><Info/><Description>Debian 12 (64-bit)</Description></OperatingSystemSection>
<VirtualHardwareSection><Info/>
<Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>
 <rasd:VirtualQuantity>4</rasd:VirtualQuantity></Item>
<Item><rasd:AllocationUnits>{memory}</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
 <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>2048</rasd:VirtualQuantity></Item>
<Item><rasd:Address>0</rasd:Address><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
 <rasd:ResourceType>6</rasd:ResourceType></Item>
<Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>{disk}</rasd:HostResource>
 <rasd:InstanceID>7</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
<Item><rasd:Connection>VM Network</rasd:Connection><rasd:InstanceID>9</rasd:InstanceID>
 <rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
</VirtualHardwareSection></VirtualSystem></Envelope>
"""
USUAL = {
    "href": "web-disk1.vmdk",
    "size": "",
    "capacity": "24",
    "unit": "byte * 2^20",
    "more": "",
    "memory": "byte * 2^20",
    "disk": "ovf:/disk/vmdisk1",
}


def envelope(**changes: str) -> bytes:
    """Write a description as VMware's tools do."""
    return ENVELOPE.format(**{**USUAL, **changes}).encode()


def pack(**members: bytes) -> bytes:
    """Make a tar of these files; `__` in a name stands for a dot."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def sums(**members: bytes) -> bytes:
    """Write a manifest."""
    rows = [f"SHA256({name.replace('__', '.')})= {hashlib.sha256(data).hexdigest()}" for name, data in members.items()]
    return "\n".join(rows).encode() + b"\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk."""
    return make_raw(tmp_path_factory.mktemp("raw") / "disk.raw", size=24 * MIB)


@pytest.fixture(scope="module")
def vmdk(raw: Path) -> bytes:
    """The same disk, as appliances have it."""
    file = raw.with_suffix(".vmdk")
    qemu("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, file)
    return file.read_bytes()


def take(images: Images, data: bytes, place: Path, reference: str = "box:1") -> appliance.Imported:
    """Import an OVA."""
    path = place / "box.ova"
    path.write_bytes(data)
    wish = appliance.Wish(path=path, name="box.ova", platform=platforms.host(), reference=reference)
    return appliance.import_(images.disks, wish)


def test_a_machine_comes_with_its_disks(images: Images, tmp_path: Path, raw: Path, vmdk: bytes) -> None:
    """Processors, memory, firmware, network and disk are what the description says, and the disk is the same."""
    described = envelope(size=f' ovf:size="{len(vmdk)}"')
    manifest = sums(web__ovf=described, **{"web-disk1__vmdk": vmdk})
    found = take(images, pack(web__ovf=described, web__mf=manifest, **{"web-disk1__vmdk": vmdk}), tmp_path)
    machine = found.machine
    assert (machine.name, machine.cpus, machine.memory, machine.firmware) == ("web server", 4, 2 << 30, Firmware.UEFI)
    assert machine.nics == (Nic(network="VM Network", model="vmxnet3"),)
    assert (machine.disks[0].controller, machine.disks[0].capacity) == ("scsi", 24 * MIB)
    assert machine.os == "Debian 12 (64-bit)"
    back = export(images, "box:1", Format.RAW, tmp_path / "back.raw")
    assert back.read_bytes() == raw.read_bytes()
    assert images.find("box:1").disk == found.images[0].disk


def test_out_and_in_again(images: Images, tmp_path: Path, raw: Path) -> None:
    """A machine with two disks written as an OVA is the same machine when it is read, with the same disks."""
    other = make_raw(tmp_path / "other.raw", size=16 * MIB, seed=2)
    machine = Machine(
        name='a "machine" & <more>', cpus=3, memory=3 << 30, firmware=Firmware.UEFI, os="Debian",
        nics=(Nic(network="lan", model="e1000"), Nic(network="dmz", model="virtio")),
    )  # fmt: skip
    packed = io.BytesIO()
    first = tmp_path / "first.raw"
    first.write_bytes(raw.read_bytes())
    for path in (first, other):
        path.chmod(0o444)
    with images.disks.room() as room:
        ova.write(machine, [first, other], packed, room)
    found = take(images, packed.getvalue(), tmp_path)
    described = found.machine
    assert [(disk.controller, disk.capacity) for disk in described.disks] == [("sata", 24 * MIB), ("sata", 16 * MIB)]
    assert (described.name, described.cpus, described.memory) == (machine.name, 3, 3 << 30)
    assert (described.firmware, described.os, described.nics) == (machine.firmware, machine.os, machine.nics)
    for name, path in (("box:1", first), ("box-disk2:1", other)):
        assert export(images, name, Format.RAW, tmp_path / "back").read_bytes() == path.read_bytes()


def test_an_image_goes_out_as_a_machine(images: Images, tmp_path: Path, raw: Path, vmdk: bytes) -> None:
    """An image exported as OVA comes back with the same content."""
    take(images, pack(web__ovf=envelope(), **{"web-disk1__vmdk": vmdk}), tmp_path)
    first = io.BytesIO()
    appliance.export(images.disks, "box:1", first)
    found = take(images, first.getvalue(), tmp_path, "back:1")
    assert found.machine.firmware is Firmware.UEFI
    assert export(images, "back:1", Format.RAW, tmp_path / "back").read_bytes() == raw.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(first.getvalue())) as archive:
        assert archive.getnames() == ["box.ovf", "box.mf", "box-disk1.vmdk"]


def hostile(what: str, vmdk: bytes) -> bytes:
    """Make an OVA that isn't right."""
    disk = {"web-disk1__vmdk": vmdk}
    match what:
        case "path":
            return pack(web__ovf=envelope(href="../../etc/passwd"), **disk)
        case "absolute":
            return pack(web__ovf=envelope(href="/etc/passwd"), **disk)
        case "address":
            return pack(web__ovf=envelope(href="http://127.0.0.1/disk.vmdk"), **disk)
        case "member":
            return pack(web__ovf=envelope(), **{"../web-disk1__vmdk": vmdk})
        case "link":
            buffer = io.BytesIO(pack(web__ovf=envelope()))
            with tarfile.open(fileobj=buffer, mode="a") as archive:
                info = tarfile.TarInfo("web-disk1.vmdk")
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(info)
            return buffer.getvalue()
        case "truncated":
            return pack(web__ovf=envelope(), **disk)[: len(vmdk) // 2]
        case "missing":
            return pack(web__ovf=envelope())
        case "size":
            return pack(web__ovf=envelope(size=' ovf:size="17"'), **disk)
        case "sum":
            manifest = sums(web__ovf=envelope(), **{"web-disk1__vmdk": b"other"})
            return pack(web__ovf=envelope(), web__mf=manifest, **disk)
        case "absent sum":
            return pack(web__ovf=envelope(), web__mf=sums(more__vmdk=b""), **disk)
        case "bad sum":
            return pack(web__ovf=envelope(), web__mf=b"MD5(web.ovf)= 00\n", **disk)
        case "doctype":
            bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
            return pack(web__ovf=envelope().replace(b"?>", b"?>" + bomb, 1), **disk)
        case "deep":
            return pack(web__ovf=b"<Envelope>" + b"<a>" * 1000 + b"</a>" * 1000 + b"</Envelope>", **disk)
        case "two machines":
            text = envelope()
            system = text[text.index(b"<VirtualSystem ") : text.index(b"</Envelope>")]
            return pack(web__ovf=text.replace(b"</Envelope>", system + b"</Envelope>"), **disk)
        case "two descriptions":
            return pack(web__ovf=envelope(), other__ovf=envelope(), **disk)
        case "parent":
            return pack(web__ovf=envelope(more=' ovf:parentRef="x"'), **disk)
        case "nowhere":
            return pack(web__ovf=envelope(disk="ovf:/disk/other"), **disk)
        case "endless":
            return pack(web__ovf=envelope(capacity="9" * 30), **disk)
        case "unit":
            return pack(web__ovf=envelope(memory="furlong"), **disk)
        case "not a disk":
            return pack(web__ovf=envelope(), **{"web-disk1__vmdk": b"#!/bin/sh"})
    return b"no tar" * 1000


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("path", "'../../etc/passwd', which is not beside it"),
        ("absolute", "'/etc/passwd', which is not beside it"),
        ("address", "which is not beside it"),
        ("member", "'../web-disk1.vmdk', which is not beside it"),
        ("link", "is no plain file"),
        ("truncated", "ends in the middle"),
        ("missing", "'web-disk1.vmdk' is missing"),
        ("size", "bytes, not 17"),
        ("sum", "web-disk1.vmdk is not what its manifest says"),
        ("absent sum", "'more.vmdk' is missing"),
        ("bad sum", "unreadable line"),
        ("doctype", "it has a document type"),
        ("deep", "nested too deep"),
        ("two machines", "it describes 2 machines"),
        ("two descriptions", r"it has 2 descriptions \(.ovf\)"),
        ("parent", "has a parent"),
        ("nowhere", "is nowhere"),
        ("endless", "bytes on a disk"),
        ("unit", "'furlong' is unknown"),
        ("not a disk", "format vmdk"),
        ("no tar", "tar stream is malformed"),
    ],
)
def test_hostile_appliances_are_refused(images: Images, tmp_path: Path, vmdk: bytes, what: str, why: str) -> None:
    """What is incomplete, changed, or reaches for the host, is refused with its name; nothing of it stays."""
    with pytest.raises((ApplianceRefused, DiskRefused, Corrupt), match=f"(box.ova|web-disk1.vmdk) .*{why}"):
        take(images, hostile(what, vmdk), tmp_path)
    assert not images.list()
    assert not list(images.content.scratch.iterdir())


@settings(max_examples=150)
@given(data=st.data())
def test_descriptions_may_say_anything(data: st.DataObject) -> None:
    """Whatever a description says, it is read within bounds or refused."""
    text = bytearray(envelope())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(0, 12))
        text[at : at + length] = data.draw(
            st.one_of(
                st.binary(max_size=12), st.sampled_from([b"-1", b"9" * 30, b"</Item>", b"<Item>", b"\xff", b"&x;"])
            )
        )
    try:
        machine = ovf.read(bytes(text), "it")
    except ApplianceRefused:
        return
    assert 0 < machine.cpus <= ovf.MOST_CPUS
    assert 0 < machine.memory <= ovf.MOST_MEMORY
    assert all("/" not in disk.file for disk in machine.disks)


WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=30).map(str.strip).filter(bool)


@given(name=WORDS, system=WORDS, network=WORDS, cpus=st.integers(1, 512), mib=st.integers(1, 1 << 20))
def test_what_is_written_is_read(name: str, system: str, network: str, cpus: int, mib: int) -> None:
    """A description of ours says, when it is read, what it was made from."""
    disk = DiskFile(file="a.vmdk", format=Format.VMDK, capacity=512, controller="sata", size=7)
    machine = Machine(
        name=name, cpus=cpus, memory=mib << 20, os=system, disks=(disk,), nics=(Nic(network=network, model="e1000"),)
    )
    assert ovf.read(ovf_text.write(machine, {"a.vmdk": 7}).encode(), "it") == machine


def test_qemu_reads_the_disks_we_write(images: Images, tmp_path: Path, raw: Path, vmdk: bytes) -> None:
    """The disk in an OVA of ours is what QEMU takes for the same disk."""
    take(images, pack(web__ovf=envelope(), **{"web-disk1__vmdk": vmdk}), tmp_path)
    packed = io.BytesIO()
    appliance.export(images.disks, "box:1", packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        member = archive.extractfile("box-disk1.vmdk")
        assert member
        (tmp_path / "box-disk1.vmdk").write_bytes(member.read())
    qemu("compare", "-f", "raw", "-F", "vmdk", raw, tmp_path / "box-disk1.vmdk")
