"""The wire shapes of machines with an operating system of their own."""

from __future__ import annotations

from typing import Literal

import msgspec

Boot = Literal["disk", "cdrom", "network"]


class DiskRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A further disk of `size` bytes, empty or thin over an `image`; `iops` and `rate` (bytes a second) are limits."""

    name: str
    size: int
    iops: int = 0
    rate: int = 0
    image: str = ""


class DiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a disk may be used: requests and bytes a second, 0 is no limit."""

    iops: int = 0
    rate: int = 0


class UsbRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A raw image, by its path on the engine's host, as a USB stick."""

    path: str
    read_only: bool = False


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A device for a machine that exists.

    A `share` is of a directory of the engine's host or a volume (`source`), mounted at `target`; `usb` a stick with the
    content of a file there; a `watchdog` does what its `source` says: reset, poweroff or pause; `pci` is a device of
    that host, of the class in `source`: CLASS[:VENDOR[:DEVICE]].
    """

    kind: Literal["share", "usb", "watchdog", "pci"]
    source: str
    target: str = ""
    read_only: bool = False


class DeviceInfo(DeviceRequest, frozen=True, kw_only=True):
    """A device of a machine; a share's `name` is what its guest mounts."""

    name: str


class MachineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `trivet vm create` says beyond what every instance can have.

    `disk` is the size of the root disk in bytes (0: the image's, at least 10 GiB). `password` is a hash as in
    shadow(5). `cdroms`, `kernel` and `initrd` are paths of the engine's host, and so is the directory `pxe`, which the
    boot ROM is served, `pxe_file` first ("": boot.ipxe, or else pxelinux.0 or bootx64.efi).
    """

    disk: int = 0
    disks: list[DiskRequest] = []
    iops: int = 0
    rate: int = 0
    firmware: Literal["bios", "uefi"] = "bios"
    secure_boot: bool = False
    tpm: bool = False
    watchdog: Literal["", "reset", "poweroff", "pause"] = ""
    usb: list[UsbRequest] = []
    pci: list[str] = []  # devices of the host, by class: gpu, nvme, network:8086, gpu:10de:1eb8
    cdroms: list[str] = []
    boot: list[Boot] = []
    pxe: str = ""
    pxe_file: str = ""
    kernel: str = ""
    initrd: str = ""
    parameters: str = ""
    cloud_init: bool = True
    kept: dict[str, list[str]] = {}  # by disk, files of a backup that it shows until it is filled, the newest first
    filled: bool = False  # its disks are filled before it starts: it needn't have anything else to boot
    user: str = ""
    password: str = ""
    ssh_keys: list[str] = []
    packages: list[str] = []
    user_data: str = ""
    network_config: str = ""
    answers: dict[str, str] = {}  # files for an installer, by name: preseed.cfg, ks.cfg, autounattend.xml


class ObtainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A disk image to have here: `reference` is an image's, debian/12, an address on the web, or `stream:` and a name.

    What comes from an address is believed by its `checksum` (sha256:... or sha512:...), and read as `format` or as its
    name says. A `stream:` is of a `catalogue`, an address; it must be signed if there is a `keyring`, a path of the
    engine's host.
    """

    reference: str
    checksum: str = ""
    format: str = ""
    catalogue: str = ""
    keyring: str = ""


class CatalogueImage(msgspec.Struct, frozen=True, kw_only=True):
    """A disk image of a catalogue; `size` in bytes is that of its file."""

    names: list[str]
    title: str
    version: str
    size: int
    url: str


class DiskInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a machine: how large it is for the guest, and what it takes here, in bytes.

    One that is `filling` still needs the backup it is made of.
    """

    name: str
    size: int
    used: int
    path: str
    iops: int = 0
    rate: int = 0
    filling: bool = False


class MachineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a machine; `agent` says whether its guest agent answers, and what it says then."""

    name: str
    status: str
    image: str
    firmware: str
    secure_boot: bool
    tpm: bool
    cpus: int
    memory: int
    disks: list[DiskInfo]
    cdroms: list[str]
    devices: list[DeviceInfo] = []
    run_state: str = ""
    agent: bool = False
    hostname: str = ""
    system: str = ""
    addresses: list[str] = []
    display: str = ""


class KeysRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Keys to press: chords such as ctrl-alt-delete, one after the other, and then a text."""

    keys: list[str] = []
    text: str = ""


class PointRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Where the pointer goes, 0 to 32767 across and down; `down` None is a click."""

    x: int
    y: int
    button: str = ""
    down: bool | None = None


class BackupPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A machine at a moment, in a directory of backups: whole (`full`) or what changed since the one before.

    `quiet`: the guest held its file systems still, or was off. `size` is what its files take, in bytes.
    """

    number: int
    id: str
    machine: str
    created: str
    full: bool
    quiet: bool
    size: int


class RestoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A machine to be made of a backup: `point` is an id or a number, "" the newest.

    An `isolated` one has no network. A `live` one can be started at once, and is filled while it runs.
    """

    directory: str
    name: str
    point: str = ""
    isolated: bool = False
    live: bool = False
