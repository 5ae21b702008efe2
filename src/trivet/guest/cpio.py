"""A cpio archive in the "newc" format the kernel unpacks as initramfs; the same input gives the same bytes.

Format: linux Documentation/driver-api/early-userspace/buffer-format.rst. Every header is "070701" and thirteen
eight-digit hexadecimal fields; name and data are padded to four bytes.
"""

from __future__ import annotations

import stat

import msgspec


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A file, directory or device; `mode` includes the type."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """Describe a directory only root may write to."""
    return Entry(name=name, mode=stat.S_IFDIR | 0o755)


def file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """Describe a regular file."""
    return Entry(name=name, mode=stat.S_IFREG | mode, data=data)


def character(name: str, major: int, minor: int) -> Entry:
    """Describe a character device."""
    return Entry(name=name, mode=stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: list[Entry]) -> bytes:
    """Join entries, parents before their children as the caller lists them, and the trailer."""
    parts = [_member(number, entry) for number, entry in enumerate(entries, start=1)]
    parts.append(_member(0, Entry(name="TRAILER!!!", mode=0)))
    return b"".join(parts)


def _member(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    # inode, mode, uid, gid, links, mtime, size, device of the file system (2), of the node (2), name size, checksum
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
