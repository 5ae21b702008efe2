"""Machines with an operating system of their own, as the client sees them: what only they can do."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from trivet.client.connection import Response
from trivet.client.schema import Created, Progress
from trivet.client.schema_machine import (
    BackupPoint,
    CatalogueImage,
    DeviceRequest,
    DiskLimits,
    DiskRequest,
    KeysRequest,
    MachineInfo,
    ObtainRequest,
    PointRequest,
    RestoreRequest,
)
from trivet.client.transport import Transport, segment

_IMAGES, _BACKUPS = "/v1/machine-images", "/v1/machine-backups"


class Machines:
    """`/v1/machines` and `/v1/machine-images`. `ref` is a name, an id or a unique prefix of one."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def socket_path(self) -> str:
        """Tell where the engine listens."""
        return self._transport.socket_path

    def obtain(self, wish: ObtainRequest) -> Iterator[Progress]:
        """Have a disk image here, made or fetched; the result has its `name` and `id`."""
        return self._transport.progress("POST", _IMAGES, None, msgspec.json.encode(wish))

    def catalogue(self, url: str, keyring: str = "") -> list[CatalogueImage]:
        """List the disk images of a catalogue."""
        return self._transport.fetch(list[CatalogueImage], "GET", _IMAGES, {"catalogue": url, "keyring": keyring})

    def get(self, ref: str) -> MachineInfo:
        """Read what is known of a machine."""
        return self._transport.fetch(MachineInfo, "GET", _path(ref))

    def reboot(self, ref: str, *, force: bool = False) -> None:
        """Have the guest reboot; with `force` press the reset button."""
        self._transport.call("POST", f"{_path(ref)}/reboot", {"force": force})

    def screenshot(self, ref: str) -> bytes:
        """Take a picture of the screen, as PNG."""
        with self._transport.request("GET", f"{_path(ref)}/screenshot") as response:
            return response.read()

    def add_disk(self, ref: str, wish: DiskRequest) -> None:
        """Give a machine a further, empty disk, running or not."""
        self._transport.call("POST", f"{_path(ref)}/disks", body=wish)

    def resize_disk(self, ref: str, name: str, size: int) -> None:
        """Let a disk grow, running or not."""
        self._transport.call("POST", f"{_path(ref)}/disks/{segment(name)}/resize", {"size": size})

    def limit_disk(self, ref: str, name: str, limits: DiskLimits) -> None:
        """Limit a disk, at once."""
        self._transport.call("POST", f"{_path(ref)}/disks/{segment(name)}/limits", body=limits)

    def remove_disk(self, ref: str, name: str) -> None:
        """Take a disk and its data away, running or not."""
        self._transport.call("DELETE", f"{_path(ref)}/disks/{segment(name)}")

    def add_device(self, ref: str, wish: DeviceRequest) -> None:
        """Give a machine a further device."""
        self._transport.call("POST", f"{_path(ref)}/devices", body=wish)

    def remove_device(self, ref: str, name: str) -> None:
        """Take a device from a machine."""
        self._transport.call("DELETE", f"{_path(ref)}/devices/{segment(name)}")

    def backup(self, ref: str, directory: str, *, full: bool = False) -> Iterator[Progress]:
        """Add a point to a directory of the engine's host; the result has its `id`, and whether it is `full`."""
        return self._transport.progress("POST", f"{_path(ref)}/backup", {"directory": directory, "full": full})

    def backups(self, directory: str) -> list[BackupPoint]:
        """List the points of a directory."""
        return self._transport.fetch(list[BackupPoint], "GET", _BACKUPS, {"directory": directory})

    def restore(self, wish: RestoreRequest) -> str:
        """Make a machine of a backup; its id."""
        return self._transport.fetch(Created, "POST", _BACKUPS, body=wish).id

    def export(self, ref: str, form: str) -> Response:
        """Read a machine that is off as a file: `form` is ova, or a disk's format for its root disk."""
        return self._transport.request("GET", f"{_path(ref)}/export", {"format": form})

    def commit(self, ref: str, reference: str) -> Iterator[Progress]:
        """Make a disk image of a machine that is off; the result has its `id`."""
        return self._transport.progress("POST", f"{_path(ref)}/commit", {"reference": reference})

    def press(self, ref: str, *keys: str, text: str = "") -> None:
        """Press chords of keys, then type a text."""
        self._transport.call("POST", f"{_path(ref)}/keys", body=KeysRequest(keys=list(keys), text=text))

    def point(self, ref: str, x: int, y: int, button: str = "", down: bool | None = None) -> None:
        """Move the pointer, and click if there is a button."""
        self._transport.call("POST", f"{_path(ref)}/pointer", body=PointRequest(x=x, y=y, button=button, down=down))


def screen_path(ref: str) -> str:
    """Name the websocket that shows a machine's screen, by RFB."""
    return f"{_path(ref)}/screen"


def _path(ref: str) -> str:
    return f"/v1/machines/{segment(ref)}"
