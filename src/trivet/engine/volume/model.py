"""The record of a volume, and what can be wrong with one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trivet.base.error import Conflict, InvalidArgument, NotFound, Unsupported
from trivet.client.schema_volume import Volume

DRIVER = "local"


class VolumeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A volume. `mountpoint` is what instances are shown: the volume's own directory, or the host's with `device`.

    The options say what it is kept in (`storage.py`); `size` is what one with a drive of its own holds.
    `formerly` is the name it had before it was renamed.
    """

    name: str
    mountpoint: str
    created: str
    anonymous: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    formerly: str = ""
    size: int = 0

    @property
    def foreign(self) -> bool:
        """Whether its content isn't the engine's: a directory of the host, or another file system."""
        return bool(self.options.get("device")) or self.options.get("type", "none") not in ("", "none")

    def show(self, users: Sequence[str], size: int = -1) -> Volume:
        """Render for the API."""
        return Volume(
            name=self.name,
            driver=DRIVER,
            mountpoint=self.mountpoint,
            created=self.created,
            labels=self.labels,
            options=self.options,
            anonymous=self.anonymous,
            users=list(users),
            size=size,
        )


class NoSuchVolume(NotFound):
    """A name that no volume has."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such volume: {name}", hint="list them: trivet volume ls")


class VolumeInUse(Conflict):
    """A volume that instances use can't be removed, nor its content exchanged; `action` on them helps."""

    def __init__(self, name: str, users: Sequence[str], action: str = "rm") -> None:
        many = "s" if len(users) > 1 else ""
        problem = f"volume {name} is in use by instance{many} {', '.join(users)}"
        super().__init__(problem, hint=f"trivet {action} {' '.join(users)}")


class VolumeBusy(Conflict):
    """A volume whose content is being exchanged."""

    def __init__(self, name: str) -> None:
        super().__init__(f"volume {name} is being given other content", hint="try again when that is done")


class VolumeKept(Conflict):
    """A volume with snapshots can't be removed."""

    def __init__(self, name: str, snapshots: Sequence[str]) -> None:
        count = f"{len(snapshots)} snapshots" if len(snapshots) > 1 else "a snapshot"
        words = " ".join(f"{name}@{each}" for each in snapshots[:3])
        super().__init__(f"volume {name} has {count}", hint=f"trivet volume rm {words}")


class VolumeDiffers(Conflict):
    """A volume of this name exists, but not as asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(f"volume {name} exists with other options", hint=f"trivet volume inspect {name}")


class InvalidVolume(InvalidArgument):
    """A volume that can't be as asked for."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"volume {name!r} {cause}")


class UnsupportedVolume(Unsupported):
    """A volume that other engines could make."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"volume {name} cannot be made: {cause}", hint="use driver local without options")
