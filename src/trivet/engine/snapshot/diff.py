"""What an instance changed, as a layer; and what it sees, as a tar."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
from isal import isal_zlib

from trivet.base.error import Unsupported
from trivet.engine.snapshot import tar
from trivet.engine.snapshot.pack import Packer, Write
from trivet.engine.snapshot.tree import is_whiteout
from trivet.engine.snapshot.walk import Node, changes, merged
from trivet.isolation.plan import Root
from trivet.oci import digest as digests
from trivet.oci.descriptor import OCI_LAYER_GZIP
from trivet.oci.layer import Layer
from trivet.store.content import ContentStore, Ingest
from trivet.store.lease import Lease

LEVEL = 2  # isal's: 0 is fastest, 3 smallest; the bytes of 3 depend on the processor (AVX2), those of 0 to 2 don't


class NotReadable(Unsupported):
    """A root whose files only its own kernel can read."""

    def __init__(self, root: Root) -> None:
        super().__init__(
            f"cannot read the files of drive {root.upper} from the host",
            hint="start the instance and copy from it: trivet cp",
        )


class LayerWriter:
    """Takes an uncompressed tar and stores it as a gzip layer, hashing both forms on the way."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._state = digests.hasher()
        self._gzip = isal_zlib.compressobj(LEVEL, wbits=31)

    def write(self, data: bytes) -> None:
        """Append a piece of the tar."""
        self._state.update(data)
        self._ingest.write(self._gzip.compress(data))

    def finish(self) -> None:
        """Write what is still held back; the ingest is complete then."""
        self._ingest.write(self._gzip.flush())

    def layer(self) -> Layer:
        """Describe the layer, once finished."""
        return Layer(
            digest=self._ingest.digest,
            size=self._ingest.size,
            media_type=OCI_LAYER_GZIP,
            diff_id=digests.name(self._state),
        )


def store_changes(
    root: Root, content: ContentStore, *, epoch: int | None = None, lease: Lease | None = None
) -> Layer | None:
    """Store what was written to a root (form `mount`) as a layer, under `lease`; None if nothing was."""
    found = write_layer(root, content, epoch=epoch, lease=lease)
    if found is None:
        return None
    found.publish()
    return found.layer


class Written(NamedTuple):
    """A layer that is written, and gets into the store with `publish`, which waits for the disk."""

    layer: Layer
    publish: Callable[[], None]


def write_layer(
    root: Root, content: ContentStore, *, epoch: int | None = None, lease: Lease | None = None
) -> Written | None:
    """Write a layer of what was written to a root (form `mount`); None if nothing was. Publishing adds to `lease`."""
    if root.form != "mount":
        raise NotReadable(root)
    if not _changed(root):
        return None
    with ExitStack() as undo:
        ingest = undo.enter_context(content.ingest(lease=lease))
        writer = LayerWriter(ingest)
        packer = Packer(writer.write, epoch=epoch)
        _pack_root(packer, root)
        packer.tree(written(root))
        packer.finish()
        writer.finish()
        return Written(writer.layer(), undo.pop_all().close)


def write_changes(root: Root, write: Write) -> None:
    """Write what was written to a root (form `mount`) as an uncompressed layer."""
    packer = Packer(write)
    _pack_root(packer, root)
    packer.tree(written(root))
    packer.finish()


def settle(directory: Path, epoch: int) -> None:
    """Give what was written to a root's upper directory the times that it has in the layer made of it with `epoch`."""
    for node in changes(directory):
        seconds = min(node.state.st_mtime_ns // 10**9, epoch)
        if node.state.st_mtime_ns != seconds * 10**9 and not is_whiteout(node.state):
            times = (seconds * 10**9, seconds * 10**9)
            os.utime(node.name, ns=times, dir_fd=node.parent, follow_symlinks=False)


def export(root: Root, write: Write) -> None:
    """Write everything an instance sees of its root as a tar, without mounting it. Raises `NotReadable` for drives."""
    export_all({"": root}, write)


def export_all(roots: Mapping[str, Root], write: Write) -> None:
    """Write several roots as one tar, each below the path that it is given by."""
    packer = Packer(write, flat=True)
    for path, root in roots.items():
        if root.form != "mount":
            raise NotReadable(root)
        below = f"{path}/".encode() if path else b""
        for node in merged((root.upper,) if root.copied else (root.upper, *root.lowers)):
            packer.node(msgspec.structs.replace(node, path=below + node.path))
    packer.finish()


class Change(msgspec.Struct, frozen=True):
    """A path of an instance that isn't as in its image; `kind` is changed, added or deleted."""

    path: str
    kind: str


def compare(root: Root) -> list[Change]:
    """List what was written to a root, in the order of the paths. Raises `NotReadable` for drives."""
    if root.form != "mount":
        raise NotReadable(root)
    found = []
    for node in written(root):
        known = any(_holds(Path(lower), node.path) for lower in root.lowers)
        kind = "deleted" if is_whiteout(node.state) else "changed" if known else "added"
        found.append(Change("/" + os.fsdecode(node.path).strip("/"), kind))
    return found


def written(root: Root) -> Iterator[Node]:
    """Walk what was written to a root (form `mount`), with whiteouts for what was deleted."""
    if not root.copied:
        yield from changes(Path(root.upper))
        return
    known = {node.path: node.state for node in merged(root.lowers)}
    directories = {b""}
    for node in changes(Path(root.upper)):
        before = known.pop(node.path, None)
        if stat.S_ISDIR(node.state.st_mode):
            directories.add(node.path)
        if before is None or _sign(before) != _sign(node.state):
            yield node
    for path in known:
        directory, _, name = path.rpartition(b"/")
        if directory in directories:
            yield Node(path=path, parent=-1, name=name, state=_WHITEOUT)


_WHITEOUT = os.stat_result((stat.S_IFCHR, 0, 0, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": 0, "st_mtime_ns": 0})


def _sign(state: os.stat_result) -> tuple[int, ...]:
    """What tells that a file was written to: for directories owner and mode, for others also size and time."""
    owner = (state.st_mode, state.st_uid, state.st_gid)
    return owner if stat.S_ISDIR(state.st_mode) else (*owner, state.st_rdev, state.st_size, state.st_mtime_ns)


def _holds(layer: Path, path: bytes) -> bool:
    """Tell whether a layer has a path, without following a link."""
    place = os.fsencode(layer)
    for part in path.strip(b"/").split(b"/"):
        if os.path.islink(place):  # noqa: PTH114 - bytes
            return False
        place += b"/" + part
    return os.path.lexists(place)


def _changed(root: Root) -> bool:
    return any(True for _ in written(root)) or _root_changed(root)


def _root_changed(root: Root) -> bool:
    new, old = Path(root.upper).stat(), Path(root.lowers[0]).stat()
    return (new.st_mode, new.st_uid, new.st_gid) != (old.st_mode, old.st_uid, old.st_gid)


def _pack_root(packer: Packer, root: Root) -> None:
    """Write an entry for `/` itself if its owner or mode was changed."""
    if _root_changed(root):
        state = Path(root.upper).stat()
        mode, mtime = state.st_mode & 0o7777, int(state.st_mtime)
        packer.header(b"./", tar.DIRECTORY, mode=mode, uid=state.st_uid, gid=state.st_gid, mtime=mtime)
