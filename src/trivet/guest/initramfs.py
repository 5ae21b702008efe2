"""The initramfs: our agent as /init, and the modules it loads, in order.

Left uncompressed: QEMU copies a megabyte in no time, an emulated guest would need longer to decompress it.
The file is named by the digest of what went in, so that a stale one is never used.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from trivet.guest import cpio
from trivet.guest.kernel import Kernel

ALWAYS = ("virtio_pci", "virtio_console", "virtio_blk", "erofs", "ext4", "overlay", "virtio_rng", "virtio_balloon")
NETWORK = ("virtio_net",)
SHARE = ("virtiofs",)

_DIRECTORIES = ("dev", "proc", "sys", "run", "modules")


def build(kernel: Kernel, agent: Path, cache: Path, *, network: bool = False, share: bool = False) -> Path:
    """Return the initramfs for guests with these devices, made now unless the cache has it."""
    names = ALWAYS + (NETWORK if network else ()) + (SHARE if share else ())
    known = (cache, kernel, names, *_stamp(agent), *_stamp(kernel.image))
    path = _made.get(known)
    if path is None or not path.exists():
        data = cpio.archive(_entries(kernel, agent.read_bytes(), names))
        path = _made[known] = cache / f"initramfs-{hashlib.sha256(data).hexdigest()[:32]}"
        if not path.exists():
            _write(path, data)
    return path


_made: dict[tuple[object, ...], Path] = {}
"""What this process has found or made: to look for modules takes longer than all else of a start."""


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _entries(kernel: Kernel, agent: bytes, names: tuple[str, ...]) -> list[cpio.Entry]:
    modules = kernel.modules()
    order = modules.load_order(names)
    listing = "".join(f"/modules/{name}\n" for name in order).encode()
    return [
        *(cpio.directory(name) for name in _DIRECTORIES),
        cpio.character("dev/console", 5, 1),
        cpio.file("init", agent, 0o755),
        *(cpio.file(f"modules/{name}", modules.read(name)) for name in order),
        cpio.file("modules/list", listing),
    ]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
