"""The uncompressed kernel inside a bzImage.

QEMU starts an ELF kernel directly (PVH); an emulated guest that has to decompress itself first takes
about half a second longer. Header fields: linux Documentation/arch/x86/boot.rst.
"""

from __future__ import annotations

import gzip
import lzma
import struct

import zstandard

_MAGIC_AT = 0x202
_SETUP_SECTORS_AT = 0x1F1
_PAYLOAD_AT = 0x248
_PVH_NOTE = struct.pack("<I", 18) + b"Xen\0"  # XEN_ELFNOTE_PHYS32_ENTRY, and its owner


def extract(image: bytes) -> bytes | None:
    """Return the ELF kernel of a bzImage, or None when there is none that QEMU can start directly."""
    if image[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS":
        return None
    sectors = image[_SETUP_SECTORS_AT] or 4
    offset, length = struct.unpack_from("<II", image, _PAYLOAD_AT)
    start = (sectors + 1) * 512 + offset
    kernel = _decompress(image[start : start + length])
    return kernel if kernel is not None and kernel[:4] == b"\x7fELF" and _has_pvh_entry(kernel) else None


def _has_pvh_entry(kernel: bytes) -> bool:
    at = kernel.find(_PVH_NOTE)
    while at >= 8:
        if kernel[at - 8 : at - 4] == b"\4\0\0\0":  # the length of "Xen\0", then that of the entry's address
            return True
        at = kernel.find(_PVH_NOTE, at + 1)
    return False


def _decompress(payload: bytes) -> bytes | None:
    # The last four bytes are the uncompressed size, appended by the kernel's build.
    if payload[:4] == b"\x02\x21\x4c\x18":
        return unpack_lz4_legacy(payload[:-4])
    if payload[:2] == b"\x1f\x8b":
        return gzip.decompress(payload[:-4])
    if payload[:4] == b"\x28\xb5\x2f\xfd":
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload)
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    return None


def unpack_lz4_legacy(data: bytes) -> bytes:
    """Decode the legacy LZ4 frame: a magic number, then blocks of up to 8 MiB, each after its length."""
    out = bytearray()
    at = 4
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
        out += _lz4_block(data[at : at + length])
        at += length
    return bytes(out)


def _lz4_block(data: bytes) -> bytearray:
    """Decode one block: token, literals, then a copy of earlier output; the last sequence has no copy."""
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        token = data[at]
        at += 1
        length = token >> 4
        if length == 15:
            length, at = _lz4_length(data, at)
        if length:
            out += data[at : at + length]
            at += length
        if at >= end:
            break
        back = data[at] | data[at + 1] << 8
        at += 2
        length = token & 15
        if length == 15:
            length, at = _lz4_length(data, at)
        length += 4
        start = len(out) - back
        if back >= length:
            out += out[start : start + length]
        else:  # the copy overlaps what it writes: a repeated pattern
            out += (out[start:] * (length // back + 1))[:length]
    return out


def _lz4_length(data: bytes, at: int) -> tuple[int, int]:
    length = 15
    while data[at] == 255:
        length += 255
        at += 1
    return length + data[at], at + 1
