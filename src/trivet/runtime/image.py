"""A directory of checkpoint images, written by us and not to be trusted when it is read again.

IMAGES/*.img, *.tar.gz.img    CRIU's
       descriptors.json       what the standard streams were
       parent                 an earlier checkpoint that this one builds on, a relative link

CRIU opens what it finds there as root and follows links, so nothing but plain files of root's own is accepted, in
a directory that only root writes to (CVE-2026-53489). What a checkpoint says about rights is checked after restoring.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

from trivet.base.error import Corrupt, Denied, InvalidArgument, NotFound

DESCRIPTORS = "descriptors.json"
NOTHING = "=/dev/null"
"""Ends the key of a stream that stays /dev/null, whatever the caller's is."""
_PARENT = "parent"
_KEY = re.compile(r"(|pipe:\[\d{1,20}\]|file\[[0-9a-f]{1,8}:[0-9a-f]{1,16}\](=/dev/null)?)")
_SMALL = 4096
_CHAIN = 32


class ImagesRefused(Denied):
    """Images that somebody else may have a hand in."""

    def __init__(self, path: Path, cause: str) -> None:
        super().__init__(f"checkpoint images in {path} are refused: {cause}", hint="restore only what root wrote")


def make(path: Path) -> Path:
    """Make the directory if need be, for root only; give its absolute path. Raises `ImagesRefused`."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _directory(path)


def check(path: Path) -> Path:
    """Look at images before CRIU does; give their absolute path. Raises `ImagesRefused` or `NotFound`."""
    place = found = _directory(path)
    for _ in range(_CHAIN):
        parent = _check_entries(place)
        if parent is None:
            return found
        place = _directory(parent)
    raise ImagesRefused(path, f"more than {_CHAIN} checkpoints build on one another")


def check_parent(images: Path, parent: str) -> None:
    """Check the earlier checkpoint, named from the new one. Raises as `check`, or `InvalidArgument`."""
    if Path(parent).is_absolute():
        raise InvalidArgument(f"--parent-path {parent} is not relative to --image-path")
    check(images / parent)


def write_descriptors(images: Path, keys: list[str]) -> None:
    """Remember what the standard streams were."""
    descriptor = os.open(images / DESCRIPTORS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(keys, file)


def read_descriptors(images: Path) -> list[str]:
    """Read what they were: three keys of CRIU's, "" for a stream that isn't to be connected. Raises `Corrupt`."""
    path = images / DESCRIPTORS
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            keys = json.loads(file.read(_SMALL))
    except FileNotFoundError as error:
        raise NotFound(f"there is no checkpoint in {images}") from error
    except (OSError, ValueError) as error:
        raise Corrupt(f"malformed {path}") from error
    if not isinstance(keys, list) or len(keys) != 3 or not all(isinstance(k, str) and _KEY.fullmatch(k) for k in keys):
        raise Corrupt(f"malformed {path}")
    return keys


def _directory(path: Path) -> Path:
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise NotFound(f"there are no checkpoint images in {path}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ImagesRefused(path, "it is not a directory")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ImagesRefused(path, "others may write there")
    return path.absolute()


def _check_entries(place: Path) -> Path | None:
    """Check one directory; gives the one it builds on."""
    parent = None
    for entry in os.scandir(place):
        found = entry.stat(follow_symlinks=False)
        if entry.name == _PARENT and stat.S_ISLNK(found.st_mode):
            target = Path(entry.path).readlink()
            if target.is_absolute():
                raise ImagesRefused(place, "its parent is not relative")
            parent = place / target
        elif not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
            raise ImagesRefused(place, f"{entry.name} is not a plain file of root's")
    return parent
