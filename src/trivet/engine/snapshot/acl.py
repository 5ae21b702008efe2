"""Access control lists in layers: what the kernel keeps of one, for a file system that is written as a whole.

A list is the attribute `system.posix_acl_access`, or `..._default` of directories (acl(5); the form is that of Linux,
include/uapi/linux/posix_acl_xattr.h). chmod(2), which comes last, changes the entries that stand for the mode.
"""

from __future__ import annotations

import struct

ACCESS, DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"

_VERSION = 2
_OWNER, _USER, _GROUP_OF_FILE, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NOBODY = (1 << 32) - 1  # the id of entries that name none
# What may follow what; the entries of one list stand in this order.
_AFTER = {
    0: {_OWNER},
    _OWNER: {_USER, _GROUP_OF_FILE},
    _USER: {_USER, _GROUP_OF_FILE},
    _GROUP_OF_FILE: {_GROUP, _MASK, _OTHER},
    _GROUP: {_GROUP, _MASK},
    _MASK: {_OTHER},
    _OTHER: set[int](),
}

Row = tuple[int, int, int]  # tag, rights, id


class MalformedList(ValueError):
    """A list that the kernel refuses."""


def access(value: bytes, mode: int) -> bytes | None:
    """Give the list of a file with this mode; None where the mode says it all, or for a version nobody knows."""
    rows = _read(value)
    if len(rows) <= 3 and not any(tag == _MASK for tag, _, _ in rows):
        return None
    group = _MASK if any(tag == _MASK for tag, _, _ in rows) else _GROUP_OF_FILE
    of_mode = {_OWNER: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return _write([(tag, of_mode.get(tag, rights), key) for tag, rights, key in rows])


def default(value: bytes, *, is_directory: bool) -> bytes | None:
    """Give what files in a directory begin with. Raises `MalformedList` for anything but a directory."""
    rows = _read(value)
    if rows and not is_directory:
        raise MalformedList("only a directory has a default access control list")
    return _write(rows) if rows else None


def _read(value: bytes) -> list[Row]:
    if not value or (len(value) >= 4 and int.from_bytes(value[:4], "little") != _VERSION):
        return []
    if len(value) < 4 or len(value) % 8 != 4:
        raise MalformedList("its access control list is cut off")
    rows = list(struct.iter_unpack("<HHI", value[4:]))
    last, named = 0, False
    for tag, rights, key in rows:
        if tag not in _AFTER[last] or rights > 7 or (tag == _OTHER and named and last != _MASK):
            raise MalformedList("its access control list is in disorder")
        if tag in (_USER, _GROUP):
            named = True
            if key == _NOBODY:
                raise MalformedList("its access control list names nobody")
        last = tag
    if rows and last != _OTHER:
        raise MalformedList("its access control list has no end")
    return rows


def _write(rows: list[Row]) -> bytes:
    named = (_USER, _GROUP)
    packed = (struct.pack("<HHI", tag, rights, key if tag in named else _NOBODY) for tag, rights, key in rows)
    return struct.pack("<I", _VERSION) + b"".join(packed)
