"""What a volume is kept in, as its options say: a directory, a drive of its own, another file system, the host's.

    ROOT/NAME/data           a directory
    ROOT/NAME/drive.img      size=: an ext4 file system in a file of that size, which takes what is written of the disk
    ROOT/NAME/drive/data     where it is mounted, and what of it instances are shown
    ROOT/NAME/data           type=nfs, tmpfs, ...: where that is mounted
    DEVICE                   type=none, o=bind, device=: a directory of the host

Mounts come with the first instance that needs them, and stay until the volume is removed, renamed, or the engine
uninstalled.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from trivet.base.error import Conflict, Exhausted, TrivetError, Unavailable, Unsupported
from trivet.engine.volume.model import InvalidVolume, UnsupportedVolume, VolumeRecord
from trivet.kernel import capability, loop, mount

IMAGE, DRIVE, DATA, OLD = "drive.img", "drive", "data", "old"
SMALLEST = 1 << 20
TYPES = ("tmpfs", "nfs", "nfs4", "cifs")
_FLAGS = {
    "ro": mount.READ_ONLY,
    "nosuid": mount.NO_SET_USER_ID,
    "nodev": mount.NO_DEVICES,
    "noexec": mount.NO_EXECUTION,
}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_PACKAGE = "e2fsprogs"

Kind = Literal["directory", "drive", "mounted", "host"]

MOMENT = 2.0  # seconds


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the options ask for. `data` is what the file system itself is told; -1 leaves an owner or mode as it is."""

    kind: Kind = "directory"
    size: int = 0
    uid: int = -1
    gid: int = -1
    mode: int = -1
    type: str = ""
    device: str = ""
    flags: int = 0
    data: str = ""


def read(name: str, options: Mapping[str, str]) -> Wish:
    """Read the options. Raises `InvalidVolume`, `UnsupportedVolume`."""
    if strange := set(options) - {"type", "o", "device", "size"}:
        raise UnsupportedVolume(name, f"there is no option {sorted(strange)[0]}: type, o, device, size")
    kind, device = options.get("type", "none") or "none", options.get("device", "")
    words = [word for word in options.get("o", "").split(",") if word]
    if kind in TYPES:
        return _mounted(name, kind, device, words)
    if kind != "none":
        raise UnsupportedVolume(name, f"file system {kind} is not supported: {', '.join(TYPES)}")
    if device or "bind" in words or "rbind" in words:
        return _host(name, device, words, options)
    found = {key: value for key, _, value in (word.partition("=") for word in words)}
    if strange := set(found) - {"uid", "gid", "mode", "size"}:
        raise UnsupportedVolume(name, f"there is no option o={sorted(strange)[0]}: uid=, gid=, mode=, size=")
    size = options.get("size") or found.get("size", "")
    uid, gid = (_number(name, key, found[key], 10) if key in found else -1 for key in ("uid", "gid"))
    return Wish(
        kind="drive" if size else "directory",
        size=bytes_of(name, size) if size else 0,
        uid=uid,
        gid=gid,
        mode=_number(name, "mode", found["mode"], 8) if "mode" in found else -1,
    )


def bytes_of(name: str, text: str) -> int:
    """Read `10g`. Raises `InvalidVolume`."""
    match = _SIZE.fullmatch(text.strip())
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if size < SMALLEST:
        raise InvalidVolume(name, f"cannot have size {text}: 1m and more are possible, such as 10g")
    return size


def place(root: Path, name: str, wish: Wish) -> Path:
    """Tell which directory instances are shown."""
    if wish.kind == "host":
        return Path(wish.device)
    return root / name / DRIVE / DATA if wish.kind == "drive" else root / name / DATA


def make(root: Path, name: str, wish: Wish) -> None:
    """Make what the volume is kept in; a directory that is there already is kept."""
    if wish.kind == "host":
        return
    home = root / name
    if not home.exists():
        home.mkdir()
        home.chmod(0o701)  # whatever the umask
    if wish.kind == "drive":
        _format(home / IMAGE, name, wish.size)
        (home / DRIVE).mkdir(exist_ok=True)
        (home / DRIVE).chmod(0o701)
    show(root, name, wish)
    if wish.kind != "mounted":
        data = place(root, name, wish)
        if not data.exists():
            data.mkdir()
            data.chmod(0o755)
        own(data, wish)


def own(data: Path, wish: Wish) -> None:
    """Give a volume's directory the owner and mode that the options say."""
    os.chown(data, wish.uid, wish.gid)
    if wish.mode >= 0:
        data.chmod(wish.mode)


def show(root: Path, name: str, wish: Wish) -> None:
    """Mount what has to be mounted, unless it is. Raises `Unsupported` and `Unavailable` naming the volume."""
    home = root / name
    target = home / (DRIVE if wish.kind == "drive" else DATA)
    if wish.kind not in ("drive", "mounted") or os.path.ismount(target):
        return
    target.mkdir(exist_ok=True)
    try:
        if wish.kind == "drive":
            device, descriptor = loop.attach(home / IMAGE)
            try:
                mount.mount(device, target, "ext4", mount.NO_DEVICES)
            finally:
                os.close(descriptor)
            settle(target)
        else:
            mount.mount(Path(wish.device or wish.type), target, wish.type, wish.flags, _resolved(name, wish.data))
    except OSError as error:
        raise _refused(name, wish, error) from error


def settle(home: Path) -> None:
    """Finish what was under way when somebody was killed while a volume's content was replaced."""
    old, data = home / OLD, home / DATA
    if old.exists() and data.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(data)


def hide(root: Path, name: str) -> None:
    """Unmount what is mounted for a volume; who uses it keeps it."""
    for target in (root / name / DRIVE, root / name / DATA):
        if os.path.ismount(target):
            with suppress(OSError):
                mount.unmount(target)


def resize(root: Path, name: str, size: int) -> None:
    """Let a drive hold more, while instances use it; an engine without CAP_SYS_RESOURCE has to be alone with it.

    Raises `Conflict` then, if it isn't.
    """
    image = root / name / IMAGE
    online = capability.has("CAP_SYS_RESOURCE")
    if not online:
        hide(root, name)
    device, descriptor = loop.attach(image)
    try:
        if not online:
            _be_alone(name, device)
        os.truncate(image, size)
        loop.grow(device)
        if not online:
            _run(name, "e2fsck", "-f", "-p", str(device))
        _run(name, "resize2fs", str(device))
    finally:
        os.close(descriptor)


def _be_alone(name: str, device: Path) -> None:
    """Wait a moment for the last mount to go: a mount namespace that just ended, or begins, may still have it."""
    deadline = time.monotonic() + MOMENT
    while True:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))  # a mounted one has been claimed
            return
        except OSError as error:
            if time.monotonic() > deadline:
                problem = f"cannot resize volume {name} while it is in use: the engine lacks CAP_SYS_RESOURCE"
                raise Conflict(problem, hint="stop the instances that use it first") from error
        time.sleep(0.05)


def used(root: Path, name: str) -> int:
    """Tell what a drive takes of the disk, in bytes."""
    return (root / name / IMAGE).stat().st_blocks * 512


def wish_of(record: VolumeRecord) -> Wish:
    """Read what a volume that exists is kept in."""
    return read(record.name, record.options)


def _mounted(name: str, kind: str, device: str, words: list[str]) -> Wish:
    if kind != "tmpfs" and not device:
        raise InvalidVolume(name, f"needs a device: what {kind} is to mount")
    flags = 0
    for word in words:
        flags |= _FLAGS.get(word, 0)
    data = ",".join(word for word in words if word not in (*_FLAGS, "rw", "suid", "dev", "exec", "defaults"))
    wish = Wish(kind="mounted", type=kind, device=device, flags=flags, data=data)
    if not _known(kind):
        with suppress(OSError):
            subprocess.run(["modprobe", kind], capture_output=True, check=False)
        if not _known(kind):
            raise UnsupportedVolume(name, f"this kernel has no {kind}")
    return wish


def _known(kind: str) -> bool:
    return kind in Path("/proc/filesystems").read_text().split()


def _host(name: str, device: str, words: list[str], options: Mapping[str, str]) -> Wish:
    if words not in (["bind"], ["rbind"]) or "size" in options:
        raise UnsupportedVolume(name, f"options {', '.join(sorted(options))} ask for a mount that is not a bind")
    if not Path(device).is_dir():
        raise InvalidVolume(name, f"cannot show {device or 'no device'}: it is not a directory of this host")
    return Wish(kind="host", device=device)


def _number(name: str, key: str, text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number < (1 << 32) - 1 or (base == 8 and number > 0o7777):
        raise InvalidVolume(name, f"cannot have {key} {text!r}: it is no number of that kind")
    return number


def _format(image: Path, name: str, size: int) -> None:
    """Make the file system under another name first: one that is there is whole."""
    if image.exists():
        return
    fresh = image.with_suffix(".new")
    with fresh.open("wb") as file:
        file.truncate(size)
    try:
        _run(name, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", str(fresh))
        fresh.rename(image)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _run(name: str, *words: str) -> None:
    program = shutil.which(words[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not program:
        raise Unsupported(f"volume {name} needs {words[0]}", hint=f"apt install {_PACKAGE}")
    done = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Exhausted(f"volume {name}: {words[0]} failed: {said[-1] if said else done.returncode}")


def _resolved(name: str, data: str) -> str:
    """Put the address of a server in the place of its name: the kernel asks nobody."""
    words = []
    for word in data.split(",") if data else ():
        key, _, value = word.partition("=")
        if key == "addr":
            try:
                value = str(socket.getaddrinfo(value, None)[0][4][0])
            except OSError as error:
                raise Unavailable(f"volume {name} cannot be mounted: there is no server {value}") from error
            word = f"addr={value}"
        words.append(word)
    return ",".join(words)


def _refused(name: str, wish: Wish, error: OSError) -> TrivetError:
    what = f"volume {name} cannot be mounted"
    if error.errno == errno.ENODEV:
        return UnsupportedVolume(name, f"this kernel has no {wish.type or 'ext4'}")
    if error.errno == errno.EINVAL:
        return InvalidVolume(name, f"cannot be mounted: {wish.type} refuses the options {wish.data!r}")
    return Unavailable(f"{what}: {error.strerror}: {error.filename or wish.device}")
