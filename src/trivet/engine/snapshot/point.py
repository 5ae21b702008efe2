"""EROFS files, shown in the directory `fs` beside them: in the host's mount namespace, without a loop device."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from trivet.base.error import Unsupported
from trivet.kernel.mount import READ_ONLY, mount, mount_with, unmount

_LOCK = threading.Lock()


class NotMountable(Unsupported):
    """A kernel or a file system that can't mount EROFS from a file."""

    def __init__(self, place: Path, error: OSError) -> None:
        super().__init__(
            f"cannot mount EROFS files of {place}: {error.strerror}",
            hint="it takes Linux 6.12 and a disk's file system below; --snapshotter overlay works anywhere",
        )


def show(home: Path, devices: Sequence[Path] = ()) -> Path:
    """Mount `home`/image at `home`/fs unless it is; `devices` are the files its contents are in. Return the latter.

    Raises `NotMountable`.
    """
    file, place = home / "image", home / "fs"
    with _LOCK:
        if os.path.ismount(place):
            return place
        try:
            if devices:
                mount_with(file, place, "erofs", [("device", str(device)) for device in devices])
            else:
                mount(file, place, "erofs", READ_ONLY)
        except OSError as error:
            raise NotMountable(home.parent, error) from error
    return place


def hide(home: Path) -> None:
    """Unmount `home`/fs if it is mounted. Who uses it keeps it."""
    place = home / "fs"
    if os.path.ismount(place):
        try:
            unmount(place)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # somebody else did
                raise
