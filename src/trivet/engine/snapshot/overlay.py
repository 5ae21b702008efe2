"""Root file systems as overlays: every layer unpacked once, a directory of its own for each instance.

DIRECTORY/
├── layer/<chain id>/fs            one layer's files, as overlayfs wants a lower directory; complete or absent
├── layer/empty/fs                 the lower directory of an image without layers
├── instance/<id>/{upper,work}     what an instance wrote
└── making/<random>                being unpacked or deleted; whatever is found here at start-up is rubbish
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from trivet.base.error import AlreadyExists, Corrupt, TrivetError
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.making import Making, disk_usage
from trivet.engine.snapshot.pack import Packer
from trivet.engine.snapshot.snapshotter import Layered, Report, SnapshotNotFound, silent
from trivet.engine.snapshot.stream import Budget, LayerStream
from trivet.engine.snapshot.tar import MalformedTar
from trivet.engine.snapshot.tree import MalformedLayer, is_whiteout
from trivet.engine.snapshot.walk import changes, locate, merged
from trivet.isolation.plan import Root
from trivet.oci import digest as digests
from trivet.oci.layer import Layer, chain_ids
from trivet.store.content import ContentStore, explaining_full

EMPTY = "empty"


class UnusableLayer(Corrupt):
    """A layer that is what its digest says, but can't be unpacked."""

    def __init__(self, layer: str, problem: TrivetError) -> None:
        super().__init__(f"layer {layer} cannot be unpacked: {problem.message}")


class OverlaySnapshotter:
    """The snapshotter of the process and container levels."""

    form: Literal["mount", "drive"] = "mount"

    def __init__(self, directory: Path, content: ContentStore, budget: Budget | None = None) -> None:
        self._content = content
        self._budget = budget or Budget()
        self._layers = directory / "layer"
        self._instances = directory / "instance"
        self._making = Making(directory / "making")
        self._lock = threading.Lock()  # what exists; held for moments
        self._work = threading.Lock()  # making layers; held for seconds, taken before the other
        for each in (directory, self._layers, self._instances):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("fs", "under"):
            _make_root(self._layers / EMPTY / name)

    def prepare(self, image: Layered, report: Report = silent) -> None:
        """Unpack the layers that aren't there yet, bottom first."""
        chains = chain_ids(layer.diff_id for layer in image.layers)
        if all(self._fs(chain).is_dir() for chain in chains):
            return
        with self._work:
            below: list[Path] = []
            for chain, layer in zip(chains, image.layers, strict=True):
                if not self._fs(chain).is_dir():
                    self._unpack(chain, layer, below, report)
                below.insert(0, self._fs(chain))

    def create(self, instance: str, image: Layered) -> Root:
        """Make an instance's upper and work directories over an image."""
        while True:
            self.prepare(image)
            lowers = self.lowers(image)
            with self._lock:
                # Somebody may have pruned since `prepare`; once the instance names its layers nobody can.
                if all(Path(lower).is_dir() for lower in lowers):
                    self._make_instance(instance, lowers)
                    return self.root(instance, image)

    def root(self, instance: str, image: Layered) -> Root:
        """Find an instance's root again."""
        home = self._home(instance)
        return Root(form=self.form, lowers=self.lowers(image), upper=str(home / "upper"), work=str(home / "work"))

    def lowers(self, image: Layered) -> tuple[str, ...]:
        """List the directories of an image's layers, topmost first, whether unpacked or not."""
        chains = chain_ids(layer.diff_id for layer in image.layers)
        return tuple(str(self._fs(chain)) for chain in reversed(chains)) or (str(self._layers / EMPTY / "fs"),)

    def view(self, image: Layered) -> tuple[str, ...]:
        """List what to stack, topmost first, for a look at an image without an instance: overlayfs wants two."""
        return (*self.lowers(image), str(self._layers / EMPTY / "under"))

    def directory(self, image: Layered, path: str) -> Path:
        """Show a directory of an image as one host directory, to be copied from; an empty one if the image has none.

        Where several layers have a part of it, a merged copy is made once and kept as long as the image.
        """
        self.prepare(image)
        found = locate(self.lowers(image), path)
        if len(found) < 2:
            return found[0] if found else self._layers / EMPTY / "fs"
        home = self._fs(chain_ids(layer.diff_id for layer in image.layers)[-1]).parent
        merged_copy = home / f"merged-{digests.of(path.encode())[7:19]}"
        with self._work:
            if not merged_copy.is_dir():
                self._merge(found, merged_copy)
        return merged_copy

    def usage(self, instance: str) -> int:
        """Measure the writable layer, in bytes on disk."""
        return disk_usage(self._home(instance) / "upper")

    def remove(self, instance: str) -> None:
        """Delete the writable layer: out of sight at once, from the disk after that."""
        self._making.discard(self._instances / instance)

    def instances(self) -> set[str]:
        """List the instances that have a writable layer here."""
        return {entry.name for entry in os.scandir(self._instances)}

    def adopt(self, root: Root, below: Layered, layer: Layer) -> None:
        """Keep what an instance wrote as the unpacked form of the layer it was committed to; `root` is gone then.

        Saves unpacking a layer that was just made on this machine.
        """
        target = self._fs(chain_ids(each.diff_id for each in (*below.layers, layer))[-1])
        with self._lock:
            if not target.is_dir():
                with self._making.draft() as draft:
                    Path(root.upper).rename(draft / "fs")
                    draft.rename(target.parent)
        self._making.discard(Path(root.upper).parent)

    def prune(self, keep: Iterable[Layered], *, dry_run: bool = False) -> int:
        """Delete layers that no image of `keep` has, and what a crash left."""
        needed = {EMPTY}
        for image in keep:
            needed |= {chain.partition(":")[2] for chain in chain_ids(layer.diff_id for layer in image.layers)}
        with self._work, self._lock:
            for instance in self.instances():
                with suppress(FileNotFoundError):  # removed just now
                    needed.update((self._instances / instance / "layers").read_text().split())
            useless = [Path(entry.path) for entry in os.scandir(self._layers) if entry.name not in needed]
            useless += self._making.leftovers()
            freed = sum(disk_usage(path) for path in useless)
            for path in useless if not dry_run else ():
                self._making.discard(path)
        return freed

    def _fs(self, chain: str) -> Path:
        return self._layers / chain.partition(":")[2] / "fs"

    def _home(self, instance: str) -> Path:
        home = self._instances / instance
        if not home.is_dir():
            raise SnapshotNotFound(instance)
        return home

    def _merge(self, directories: list[Path], target: Path) -> None:
        with self._making.draft() as draft, explaining_full(target):
            with (draft / "tar").open("w+b") as file:
                packer = Packer(file.write)
                packer.tree(merged(directories))
                packer.finish()
                file.seek(0)
                _make_root(draft / "fs", like=directories[0])
                extract(file, draft / "fs", whiteouts=False)
            (draft / "fs").rename(target)

    def _make_instance(self, instance: str, lowers: tuple[str, ...]) -> None:
        home = self._instances / instance
        if home.exists():
            raise AlreadyExists(f"instance {instance} already has a writable layer")
        with explaining_full(home), self._making.draft() as draft:
            _make_root(draft / "upper", like=Path(lowers[0]))
            (draft / "work").mkdir(mode=0o700)
            (draft / "layers").write_text("".join(f"{Path(lower).parent.name}\n" for lower in lowers))
            draft.rename(home)

    def _unpack(self, chain: str, layer: Layer, below: list[Path], report: Report) -> None:
        """Unpack into a directory nobody knows, check the tar's digest, then give it its name."""
        short = digests.short(layer.digest)
        subject = f"layer {short}"
        with (
            self._making.draft() as draft,
            self._content.open(layer.digest) as file,
            LayerStream(file, subject=subject, budget=self._budget) as stream,
        ):
            _make_root(draft / "fs")
            stream.watch(lambda done: report(short, "unpacking", done, layer.size))
            try:
                whiteouts = extract(stream, draft / "fs", budget=self._budget)
            except (MalformedTar, MalformedLayer) as error:
                raise UnusableLayer(short, error) from error
            if whiteouts:
                drop_idle_whiteouts(draft / "fs", below)
            if stream.diff_id != layer.diff_id:
                raise digests.DigestMismatch(subject, layer.diff_id, stream.diff_id)
            with self._lock:
                if not self._fs(chain).is_dir():  # a build may have adopted the same layer meanwhile
                    draft.rename(self._fs(chain).parent)
        report(short, "unpacked", layer.size, layer.size)


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


def _make_root(path: Path, *, like: Path | None = None) -> None:
    """Make a directory that will be somebody's `/`: 0755 root, or with the owner and mode of another one."""
    path.mkdir(parents=True, exist_ok=True)
    state = like.stat() if like else None
    os.chown(path, state.st_uid if state else 0, state.st_gid if state else 0)
    path.chmod(state.st_mode & 0o7777 if state else 0o755)
