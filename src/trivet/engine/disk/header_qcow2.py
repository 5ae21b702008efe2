"""QCOW2 (QEMU's docs/interop/qcow2.txt), versions 2 and 3. Numbers are big-endian."""

from __future__ import annotations

from typing import BinaryIO

from trivet.engine.disk.field import number, read, require, size_of, unpack

MAGIC = b"QFI\xfb"
DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (1 << bit for bit in range(5))
SAFE = DIRTY | COMPRESSION | EXTENDED_L2
END, BACKING_FORMAT, DATA_FILE_NAME, ENCRYPTION = 0, 0xE2792ACA, 0x44415441, 0x0537BE77
OFFSET, COMPRESSED = 0x00FFFFFFFFFFFE00, 1 << 62
LARGEST_L1 = 32 << 20  # bytes, as QEMU


def check(file: BinaryIO) -> int:
    """Tell the size of the disk in bytes. Raises `Unreadable`."""
    head = read(file, 0, 72)
    require(head[:4] == MAGIC, "it does not begin like one")
    version, backing_offset, backing_size, cluster_bits, size = unpack(">IQIIQ", head, 4)
    encryption, l1_size, l1_offset = unpack(">IIQ", head, 32)
    require(version in (2, 3), f"it has version {version}")
    require(not backing_offset and not backing_size, "it has a backing file, which would be read from this host")
    require(not encryption, "it is encrypted")
    require(9 <= cluster_bits <= 21, f"its clusters have an impossible size (2^{cluster_bits})")
    cluster = 1 << cluster_bits
    require(l1_size * 8 <= LARGEST_L1, "its first table is too large")
    # A table of the second level has a cluster, 8 bytes (16 with subclusters) for each cluster of data.
    covered = l1_size * (cluster // 8) * cluster
    length = 72
    if version == 3:
        length = _extended(file)
    require(size <= covered, "its tables do not cover its disk")
    require(l1_offset % cluster == 0 and l1_offset + l1_size * 8 <= size_of(file), "it is truncated")
    _extensions(file, length, cluster)
    extended = version == 3 and number(">Q", read(file, 72, 8), 0) & EXTENDED_L2
    table = unpack(f">{l1_size}Q", read(file, l1_offset, l1_size * 8))
    _whole(file, [entry & OFFSET for entry in table if entry & OFFSET], cluster, step=2 if extended else 1)
    return size


def _whole(file: BinaryIO, tables: list[int], cluster: int, *, step: int) -> None:
    """Refuse a file that ends before a cluster its tables name begins: QEMU would read zeros there."""
    end = size_of(file)
    require(len(set(tables)) == len(tables), "its tables contradict each other")
    compressed = 70 - cluster.bit_length() + 1  # the offset's bits: 62 - (cluster_bits - 8)
    below = (1 << compressed) - 1
    for table in tables:
        entries = unpack(f">{cluster // 8}Q", read(file, table, cluster))[::step]
        last = max(entry & below if entry & COMPRESSED else entry & OFFSET for entry in entries)
        require(last < end, "it is truncated")


def _extended(file: BinaryIO) -> int:
    more = read(file, 72, 32)
    features, length = number(">Q", more, 0), number(">I", more, 28)
    require(not features & CORRUPT, "it is marked as corrupt")
    require(not features & DATA_FILE, "its data is in another file, which would be read from this host")
    require(not features & ~(SAFE | CORRUPT | DATA_FILE), f"it needs features that are not known ({features:#x})")
    require(104 <= length <= 4096 and length % 8 == 0, f"its header has the impossible length {length}")
    return length


def _extensions(file: BinaryIO, offset: int, cluster: int) -> None:
    """Walk through the header extensions, which end at the latest with the first cluster."""
    while offset + 8 <= cluster:
        kind, length = unpack(">II", read(file, offset, 8))
        if kind == END:
            return
        require(kind != BACKING_FORMAT, "it has a backing file, which would be read from this host")
        require(kind != DATA_FILE_NAME, "its data is in another file, which would be read from this host")
        require(kind != ENCRYPTION, "it is encrypted")
        require(offset + 8 + length <= cluster, "its header extensions do not end")
        offset += 8 + -(-length // 8) * 8
