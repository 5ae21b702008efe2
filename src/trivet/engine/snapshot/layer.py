"""A directory of unpacked layers: each once, under its chain id, complete or not there.

DIRECTORY/<chain id>/
├── fs         the layer's files, as overlayfs wants a lower directory
└── image      only where `fs` is the mount point of this EROFS file, and holds nothing of its own
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path

from trivet.base.error import Corrupt, TrivetError, Unsupported
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.index import TooMany, index
from trivet.engine.snapshot.making import Making
from trivet.engine.snapshot.snapshotter import Report
from trivet.engine.snapshot.stream import Budget, LayerStream
from trivet.engine.snapshot.tar import MalformedTar
from trivet.engine.snapshot.tree import MalformedLayer, is_whiteout
from trivet.engine.snapshot.walk import changes, locate
from trivet.kernel.mount import READ_ONLY, mount, unmount
from trivet.oci import digest as digests
from trivet.oci.layer import Layer
from trivet.store.content import ContentStore


class Kind(StrEnum):
    """What images become on disk: trees of files or EROFS files under an overlay, or a copy for each instance."""

    OVERLAY = "overlay"
    EROFS = "erofs"
    COPY = "copy"


class UnusableLayer(Corrupt):
    """A layer that is what its digest says, but can't be unpacked."""

    def __init__(self, layer: str, problem: TrivetError) -> None:
        super().__init__(f"layer {layer} cannot be unpacked: {problem.message}")


class NotMountable(Unsupported):
    """A kernel or a file system that can't mount EROFS from a file."""

    def __init__(self, place: Path, error: OSError) -> None:
        super().__init__(
            f"cannot mount EROFS files of {place}: {error.strerror}",
            hint="it takes Linux 6.12 and a disk's file system below; --snapshotter overlay works anywhere",
        )


class Layers:
    """The layers unpacked on a host. `kind` is how new ones are kept; those that are here stay what they are."""

    def __init__(self, directory: Path, making: Making, content: ContentStore, budget: Budget, kind: Kind) -> None:
        self._directory = directory
        self._making = making
        self._content = content
        self._budget = budget
        self._kind = kind
        self._mounting = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fs(self, chain: str) -> Path:
        """Name the directory of a layer, whether it is there or not."""
        return self._directory / chain.partition(":")[2] / "fs"

    def ready(self, chain: str) -> bool:
        """Tell whether a layer is there, and show it if it was hidden (the host was started anew)."""
        place = self.fs(chain)
        if not place.is_dir():
            return False
        if place.with_name("image").exists() and not os.path.ismount(place):
            self._show(place)
        return True

    def image(self, chain: str) -> Path | None:
        """Name the EROFS file a layer is kept in, if it is."""
        file = self.fs(chain).with_name("image")
        return file if file.exists() else None

    def entries(self) -> list[Path]:
        """List everything that is here."""
        return [Path(entry.path) for entry in os.scandir(self._directory)]

    def discard(self, path: Path) -> None:
        """Delete a layer."""
        self._hide(path / "fs")
        self._making.discard(path)

    def show_all(self) -> None:
        """Mount what isn't."""
        for path in self.entries():
            with suppress(NotMountable):  # whoever needs it is told
                self.ready(f":{path.name}")

    def hide_all(self) -> None:
        """Unmount what is mounted. Who uses it keeps it."""
        for path in self.entries():
            self._hide(path / "fs")

    def probe(self) -> None:
        """Raise `NotMountable` unless EROFS files can be mounted here."""
        with self._making.draft() as draft:
            index(_Nothing(), draft / "image", budget=self._budget, below=[])
            (draft / "fs").mkdir()
            self._show(draft / "fs")
            unmount(draft / "fs")

    def make(self, chain: str, layer: Layer, below: list[Path], report: Report, keep: threading.Lock) -> None:
        """Unpack a layer onto those `below` (topmost first); `keep` is held while it gets its name."""
        try:
            self._make(chain, layer, below, report, keep, self._kind)
        except TooMany:
            self._make(chain, layer, below, report, keep, Kind.OVERLAY)

    def _make(
        self, chain: str, layer: Layer, below: list[Path], report: Report, keep: threading.Lock, kind: Kind
    ) -> None:
        """Unpack into a directory nobody knows, check the tar's digest, then give it its name."""
        short = digests.short(layer.digest)
        subject = f"layer {short}"
        with self._making.draft() as draft, self._stream(layer, subject) as stream:
            make_root(draft / "fs")
            stream.watch(lambda done: report(short, "unpacking", done, layer.size))
            try:
                if kind == Kind.EROFS:
                    index(stream, draft / "image", budget=self._budget, below=below)
                elif extract(stream, draft / "fs", budget=self._budget):
                    drop_idle_whiteouts(draft / "fs", below)
            except (MalformedTar, MalformedLayer) as error:
                raise UnusableLayer(short, error) from error
            if stream.diff_id != layer.diff_id:
                raise digests.DigestMismatch(subject, layer.diff_id, stream.diff_id)
            with keep:
                if not self.fs(chain).is_dir():  # a build may have adopted the same layer meanwhile
                    draft.rename(self.fs(chain).parent)
        self.ready(chain)
        report(short, "unpacked", layer.size, layer.size)

    @contextmanager
    def _stream(self, layer: Layer, subject: str) -> Iterator[LayerStream]:
        with (
            self._content.open(layer.digest) as file,
            LayerStream(file, subject=subject, budget=self._budget) as stream,
        ):
            yield stream

    def _show(self, place: Path) -> None:
        with self._mounting:
            if os.path.ismount(place):
                return
            try:
                mount(place.with_name("image"), place, "erofs", READ_ONLY)
            except OSError as error:
                raise NotMountable(self._directory, error) from error

    def _hide(self, place: Path) -> None:
        if os.path.ismount(place):
            try:
                unmount(place)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT):  # somebody else did
                    raise


class _Nothing:
    """The tar of an empty layer."""

    def read(self, size: int, /) -> bytes:
        return b""


def drop_idle_whiteouts(layer: Path, below: list[Path]) -> None:
    """Delete whiteouts in directories that no layer below has a part of.

    overlayfs reads such a directory directly and would list them as names that can't be looked up.
    """
    merging: dict[bytes, bool] = {}
    idle = []
    for node in changes(layer):
        if is_whiteout(node.state):
            parent = node.path.rpartition(b"/")[0]
            if parent not in merging:
                merging[parent] = len(locate([layer, *below], os.fsdecode(parent))) > 1
            if not merging[parent]:
                idle.append(layer / os.fsdecode(node.path))
    for path in idle:
        times = path.parent.stat()
        path.unlink()
        os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))


def make_root(path: Path, *, like: Path | None = None) -> None:
    """Make a directory that will be somebody's `/`: 0755 root, or with the owner and mode of another one."""
    path.mkdir(parents=True, exist_ok=True)
    state = like.stat() if like else None
    os.chown(path, state.st_uid if state else 0, state.st_gid if state else 0)
    path.chmod(state.st_mode & 0o7777 if state else 0o755)
