"""What a layer's entries must be before anybody makes them real: within the budget, in range, inside."""

from __future__ import annotations

from trivet.engine.snapshot import acl, tar
from trivet.engine.snapshot.stream import Budget, BudgetExceeded
from trivet.engine.snapshot.tar import Entry
from trivet.engine.snapshot.tree import MalformedLayer, Parts

WHITEOUT = b".wh."
OPAQUE_MARK = b".wh..wh..opq"
AUFS = b".wh..wh."
OVERLAY_XATTRS = (b"trusted.overlay.", b"user.overlay.")

CAPABILITIES = b"security.capability"
_REVISIONS = {0x02000000: 20, 0x03000000: 24}  # and their sizes: Linux, include/uapi/linux/capability.h
_MAXIMUM_ID = (1 << 32) - 2  # the next one means "leave as it is" to chown(2)
_MAXIMUM_TIME = 1 << 62


class Admission:
    """The rules, and what was admitted so far.

    With `whiteouts` off, names beginning with `.wh.` are ordinary; with `devices` off, device nodes are refused.
    """

    def __init__(self, budget: Budget, *, whiteouts: bool, devices: bool) -> None:
        self.is_layer = whiteouts
        self._budget = budget
        self._devices = devices
        self._entries = 0
        self._directories = 0

    def account(self, entry: Entry) -> None:
        """Admit an entry. Raises `BudgetExceeded` and `MalformedLayer`."""
        self._entries += 1
        if self._entries > self._budget.entries:
            raise BudgetExceeded("entries", self._budget.entries)
        if entry.size > self._budget.file:
            raise BudgetExceeded("bytes in one file", self._budget.file)
        if not (0 <= entry.uid <= _MAXIMUM_ID and 0 <= entry.gid <= _MAXIMUM_ID):
            raise MalformedLayer(entry.name, f"owner {entry.uid}:{entry.gid} is out of range")
        if abs(entry.mtime_ns) > _MAXIMUM_TIME:
            raise MalformedLayer(entry.name, "its time is out of range")
        if entry.type in (tar.CHARACTER, tar.BLOCK_DEVICE):
            self._device(entry)

    def directories(self, number: int) -> None:
        """Admit this many directories in all. Raises `BudgetExceeded`."""
        if number > self._budget.directories:
            raise BudgetExceeded("directories", self._budget.directories)

    def split(self, name: bytes) -> Parts:
        """Take a path apart: relative to the root whether or not it begins with a slash, without `..`."""
        parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
        if len(name) > self._budget.path or len(parts) > self._budget.depth:
            raise BudgetExceeded("directories of depth", self._budget.depth)
        if b"\0" in name:
            raise MalformedLayer(name, "its name holds a NUL byte")
        if b".." in parts:
            raise MalformedLayer(name, "its path leads out through ..")
        if self.is_layer and any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise MalformedLayer(name, "it lies below a whiteout")
        return parts

    def hidden(self, entry: Entry, base: bytes) -> bytes:
        """Return the name a whiteout hides. Raises `MalformedLayer`."""
        name = base.removeprefix(WHITEOUT)
        if name in (b"", b".", b".."):
            raise MalformedLayer(entry.name, "it is a whiteout of nothing")
        return name

    def _device(self, entry: Entry) -> None:
        if not self._devices:
            raise MalformedLayer(entry.name, "it is a device, which has no place here")
        if not (0 <= entry.major < 1 << 12 and 0 <= entry.minor < 1 << 20):
            raise MalformedLayer(entry.name, f"device {entry.major}:{entry.minor} is out of range")
        if entry.type == tar.CHARACTER and not entry.major and not entry.minor:
            raise MalformedLayer(entry.name, "a device 0:0 would hide files of other layers")


def safe_xattrs(entry: Entry) -> dict[bytes, bytes]:
    """Leave out the attributes that would make overlayfs look elsewhere; lists of access become what the kernel keeps.

    Raises `MalformedLayer` for capabilities and lists that the kernel would refuse: a file system that is written as a
    whole isn't asked.
    """
    if CAPABILITIES in entry.xattrs and not _are_capabilities(entry.xattrs[CAPABILITIES]):
        raise MalformedLayer(entry.name, "Invalid argument")
    kept = {key: value for key, value in entry.xattrs.items() if not key.startswith(OVERLAY_XATTRS)}
    return {key: value for key, text in kept.items() if (value := _as_kept(entry, key, text)) is not None}


def _as_kept(entry: Entry, key: bytes, value: bytes) -> bytes | None:
    try:
        if key == acl.ACCESS:
            return None if entry.type == tar.SYMLINK else acl.access(value, entry.mode)
        if key == acl.DEFAULT:
            is_directory = entry.type == tar.DIRECTORY
            return None if entry.type == tar.SYMLINK else acl.default(value, is_directory=is_directory)
    except acl.MalformedList as error:
        raise MalformedLayer(entry.name, str(error)) from error
    return value


def _are_capabilities(value: bytes) -> bool:
    revision = int.from_bytes(value[:4], "little") & ~1  # without the flag "effective"
    owner = int.from_bytes(value[20:24], "little")  # of the user namespace; revision 3 only
    return _REVISIONS.get(revision) == len(value) and owner <= _MAXIMUM_ID
