"""A directory of unpacked layers: each once, under its chain id, complete or not there.

DIRECTORY/<chain id>/
├── fs         the layer's files, as overlayfs wants a lower directory; nothing where the layer is packed:
├── unsettled  there while whiteouts in `fs` may hide nothing: what is below wasn't looked at yet
├── image      its contents, all in one file; of a lowest layer a whole EROFS image
└── tree       its files without their contents (kept.py). Older engines' layers lack it: theirs is mounted at `fs`
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from trivet.base.error import Corrupt, TrivetError
from trivet.engine.snapshot import kept, point
from trivet.engine.snapshot.erofs import ErofsWriter
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.index import TooMany, index
from trivet.engine.snapshot.making import Making
from trivet.engine.snapshot.snapshotter import Report
from trivet.engine.snapshot.stream import Budget, Counted, LayerStream
from trivet.engine.snapshot.tar import MalformedTar
from trivet.engine.snapshot.tree import MalformedLayer, is_whiteout
from trivet.engine.snapshot.walk import changes, locate
from trivet.oci import digest as digests
from trivet.oci.layer import Layer
from trivet.store.content import ContentStore


class Kind(StrEnum):
    """What images become on disk: trees of files or EROFS files under an overlay, or a copy for each instance."""

    OVERLAY = "overlay"
    EROFS = "erofs"
    COPY = "copy"


Below = Callable[[], list[Path]]


@lru_cache(4096)  # each step of a build asks for all layers below it
def _place(directory: Path, layer: str, name: str) -> Path:
    return directory / layer / name


class UnusableLayer(Corrupt):
    """A layer that is what its digest says, but can't be unpacked."""

    def __init__(self, layer: str, problem: TrivetError) -> None:
        super().__init__(f"layer {layer} cannot be unpacked: {problem.message}")


class Layers:
    """The layers unpacked on a host. `kind` is how new ones are kept; those that are here stay what they are."""

    def __init__(self, directory: Path, making: Making, content: ContentStore, budget: Budget, kind: Kind) -> None:
        self._directory = directory
        self._making = making
        self._content = content
        self._budget = budget
        self._kind = kind
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fs(self, chain: str) -> Path:
        """Name the directory of a layer, whether it is there or not."""
        return _place(self._directory, chain.partition(":")[2], "fs")

    def ready(self, chain: str) -> bool:
        """Tell whether a layer is there, shown or not."""
        return self.fs(chain).is_dir() and not self._unsettled(chain).exists()

    def packed(self, chain: str) -> bool:
        """Tell whether a layer is there as a file of contents and a tree, to be stacked."""
        return self.tree(chain).exists()

    def contents(self, chain: str) -> Path:
        """Name the file of a packed layer's contents."""
        return _place(self._directory, chain.partition(":")[2], "image")

    def tree(self, chain: str) -> Path:
        """Name the file of a packed layer's tree."""
        return _place(self._directory, chain.partition(":")[2], "tree")

    def show(self, chain: str) -> bool:
        """Make sure that an unpacked layer's directory shows it; False if the layer isn't there."""
        if not self.ready(chain):
            return False
        if self.contents(chain).exists():
            point.show(self.fs(chain).parent)
        return True

    def whole(self, chain: str) -> Path | None:
        """Name the file of a lowest layer that is an EROFS image, if it is."""
        file = self.contents(chain)
        return file if file.exists() else None

    def entries(self) -> list[Path]:
        """List everything that is here."""
        return [Path(entry.path) for entry in os.scandir(self._directory)]

    def discard(self, path: Path) -> None:
        """Delete a layer."""
        point.hide(path)
        self._making.discard(path)

    def show_all(self) -> None:
        """Mount what was and isn't."""
        for path in self.entries():
            if (path / "image").exists() and not (path / "tree").exists():
                with suppress(point.NotMountable):  # whoever needs it is told
                    point.show(path)

    def hide_all(self) -> None:
        """Unmount what is mounted. Who uses it keeps it."""
        for path in self.entries():
            point.hide(path)

    def probe(self) -> None:
        """Raise `NotMountable` unless EROFS files can be mounted here, one whose contents are in another, too."""
        with self._making.draft() as draft:
            (draft / "fs").mkdir()
            root, blocks = index(_Nothing(), draft / "device", budget=self._budget)
            with ErofsWriter(draft / "image", [blocks]) as writer:
                writer.finish(root)
            point.show(draft, [draft / "device"])
            point.hide(draft)

    def begin(
        self,
        chain: str,
        layer: Layer,
        report: Report,
        keep: threading.Lock,
        *,
        lowest: bool,
        source: Counted | None = None,
    ) -> None:
        """Do of `make` what can be done without a look at what is below; one with too many files is left for it.

        `source` as in `Gradual.unpack`.
        """
        with suppress(TooMany):
            self._make(chain, layer, report, keep, self._kind, lowest, source)

    def make(self, chain: str, layer: Layer, below: Below | None, report: Report, keep: threading.Lock) -> None:
        """Unpack a layer, or finish what was begun; `keep` is held while it gets its name.

        `below` finds the directories under it, topmost first, if they have to be looked at; None for the lowest.
        """
        if not self.fs(chain).is_dir():
            try:
                self._make(chain, layer, report, keep, self._kind, below is None)
            except TooMany:
                self._make(chain, layer, report, keep, Kind.OVERLAY, below is None)
        if below and self._unsettled(chain).exists():
            drop_idle_whiteouts(self.fs(chain), below())
            self._unsettled(chain).unlink()

    def _unsettled(self, chain: str) -> Path:
        return _place(self._directory, chain.partition(":")[2], "unsettled")

    def _make(
        self,
        chain: str,
        layer: Layer,
        report: Report,
        keep: threading.Lock,
        kind: Kind,
        lowest: bool,
        source: Counted | None = None,
    ) -> None:
        """Unpack into a directory nobody knows, check the tar's digest, then give it its name."""
        short = digests.short(layer.digest)
        subject = f"layer {short}"
        with self._making.draft() as draft, self._stream(layer, subject, source) as stream:
            make_root(draft / "fs")
            stream.watch(lambda done: report(short, "unpacking", done, layer.size))
            try:
                if kind == Kind.EROFS:
                    kept.keep(draft / "tree", *index(stream, draft / "image", budget=self._budget, lowest=lowest))
                elif extract(stream, draft / "fs", budget=self._budget):
                    if lowest:
                        drop_idle_whiteouts(draft / "fs", [])
                    else:
                        (draft / "unsettled").touch()
            except (MalformedTar, MalformedLayer) as error:
                raise UnusableLayer(short, error) from error
            if stream.diff_id != layer.diff_id:
                raise digests.DigestMismatch(subject, layer.diff_id, stream.diff_id)
            with keep:
                if not self.fs(chain).is_dir():  # a build may have adopted the same layer meanwhile
                    draft.rename(self.fs(chain).parent)
        report(short, "unpacked", layer.size, layer.size)

    @contextmanager
    def _stream(self, layer: Layer, subject: str, source: Counted | None) -> Iterator[LayerStream]:
        algorithm, _ = digests.split(layer.diff_id)
        with (
            nullcontext(source) if source else self._content.follow(layer.digest) as file,
            LayerStream(file, subject=subject, budget=self._budget, algorithm=algorithm) as stream,
        ):
            yield stream


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
