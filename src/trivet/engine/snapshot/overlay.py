"""Root file systems as overlays: every layer unpacked once, a directory of its own for each instance.

DIRECTORY/
├── layer/<chain id>/              one layer, unpacked or packed (layer.py)
├── stack/<chain id>/              packed layers as one file system, by the topmost of them (stack.py)
├── layer/empty/fs                 the lower directory of an image without layers
├── instance/<id>/{upper,work}     what an instance wrote; without `work`, a copy of everything it has. With a limit
│                                  these two are in `rw` (limit.py)
│                 layers           what it needs: `layer/<chain id>` and `stack/<chain id>`, a line each
└── making/<random>                being unpacked or deleted; whatever is found here at start-up is rubbish
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from trivet.base.error import AlreadyExists
from trivet.engine.snapshot import limit
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.layer import Kind, Layers, make_root
from trivet.engine.snapshot.limit import NotLimited
from trivet.engine.snapshot.making import Making, disk_usage
from trivet.engine.snapshot.pack import Packer
from trivet.engine.snapshot.snapshotter import Layered, Report, SnapshotNotFound, silent
from trivet.engine.snapshot.stack import Stacks
from trivet.engine.snapshot.stream import Budget, Counted
from trivet.engine.snapshot.turn import Turns
from trivet.engine.snapshot.walk import locate, merged
from trivet.isolation.plan import Root
from trivet.oci import digest as digests
from trivet.oci.layer import Layer, chain_ids
from trivet.store.content import ContentStore, explaining_full

EMPTY = "empty"


class OverlaySnapshotter:
    """The snapshotter of the process and container levels."""

    form: Literal["mount", "drive", "disk"] = "mount"

    def __init__(
        self, directory: Path, content: ContentStore, budget: Budget | None = None, kind: Kind = Kind.OVERLAY
    ) -> None:
        self.kind = kind
        self._instances = directory / "instance"
        self._making = Making(directory / "making")
        self.layers = Layers(directory / "layer", self._making, content, budget or Budget(), kind)
        self.stacks = Stacks(directory / "stack", self._making, self.layers)
        self._lock = threading.Lock()  # what exists; held for moments
        self._turns = Turns()  # making one thing; held for seconds, taken before the other
        self._instances.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._empty = directory / "layer" / EMPTY
        for name in ("fs", "under"):
            make_root(self._empty / name)

    def prepare(self, image: Layered, report: Report = silent) -> None:
        """Unpack the layers that aren't there yet, bottom first, and stack them."""
        chains = _chains(image)
        missing = False
        for index, layer in enumerate(image.layers):
            if not self.layers.ready(chains[index]):
                self._make(chains[: index + 1], layer, report)
                missing = True
        if chains and (missing or not self.stacks.ready(chains)):
            with self._turns.hold(f"stack {chains[-1]}"):
                self.stacks.make(chains, self._lock)

    def unpack(self, image: Layered, report: Report = silent, source: Counted | None = None) -> None:
        """Unpack the topmost layer as far as that goes without those below."""
        chains = _chains(image)
        with self._turns.hold(chains[-1]):
            if not self.layers.fs(chains[-1]).is_dir():
                lowest = len(chains) == 1
                self.layers.begin(chains[-1], image.layers[-1], report, self._lock, lowest=lowest, source=source)

    def unpacked(self, image: Layered) -> list[bool]:
        """Tell which layers are there, perhaps with something left to do that takes only what is below."""
        return [self.layers.fs(chain).is_dir() for chain in _chains(image)]

    def show_all(self) -> None:
        """Mount what a start of the host unmounted."""
        self.layers.show_all()
        self.stacks.show_all()
        for instance in self.instances():
            with suppress(NotLimited):  # whoever needs it is told
                self._writable(instance)

    def hide_all(self) -> None:
        """Unmount everything. Who uses it keeps it."""
        for instance in self.instances():
            limit.hide(self._instances / instance)
        self.stacks.hide_all()
        self.layers.hide_all()

    def create(self, instance: str, image: Layered, size: int = 0) -> Root:
        """Make an instance's upper and work directories over an image."""
        limit.check(size)
        while True:
            with suppress(FileNotFoundError):  # pruned while it was looked at
                self.prepare(image)
            lowers = self.lowers(image)
            with self._lock:
                # Somebody may have pruned since `prepare`; once the instance names its layers nobody can.
                if all(Path(lower).is_dir() for lower in lowers):
                    self._make_instance(instance, lowers, _chains(image), size)
                    break
        try:
            return self._root(instance, lowers)
        except NotLimited:
            self.remove(instance)
            raise

    def root(self, instance: str, image: Layered) -> Root:
        """Find an instance's root again."""
        return self._root(instance, self.lowers(image))

    def _root(self, instance: str, lowers: tuple[str, ...]) -> Root:
        writable = self._writable(instance)
        work = f"{writable}/work"
        copied = not Path(work).exists()
        return Root(
            form=self.form, lowers=lowers, upper=f"{writable}/upper", work="" if copied else work, copied=copied
        )

    def lowers(self, image: Layered) -> tuple[str, ...]:
        """List the directories that show an image's layers, topmost first, whether unpacked or not."""
        return tuple(map(str, self.stacks.lowers(_chains(image)))) or (str(self._empty / "fs"),)

    def view(self, image: Layered) -> tuple[str, ...]:
        """List what to stack, topmost first, for a look at an image without an instance: overlayfs wants two."""
        return (*self.lowers(image), str(self._empty / "under"))

    def directory(self, image: Layered, path: str) -> Path:
        """Show a directory of an image as one host directory, to be copied from; an empty one if the image has none.

        Where several layers have a part of it, a merged copy is made once and kept as long as the image.
        """
        self.prepare(image)
        found = locate(self.lowers(image), path)
        if len(found) < 2:
            return found[0] if found else self._empty / "fs"
        home = self.layers.fs(_chains(image)[-1]).parent
        merged_copy = home / f"merged-{digests.of(path.encode())[7:19]}"
        with self._turns.hold(str(merged_copy)):
            if not merged_copy.is_dir():
                self._merge(found, merged_copy)
        return merged_copy

    def usage(self, instance: str) -> int:
        """Measure the writable layer, in bytes on disk."""
        return disk_usage(self._writable(instance) / "upper")

    def remove(self, instance: str) -> None:
        """Delete the writable layer: out of sight at once, from the disk after that."""
        limit.hide(self._instances / instance)
        self._making.discard_later(self._instances / instance)

    def instances(self) -> set[str]:
        """List the instances that have a writable layer here."""
        return {entry.name for entry in os.scandir(self._instances)}

    def adopt(self, root: Root, below: Layered, layer: Layer) -> None:
        """Keep what an instance wrote as the unpacked form of the layer it was committed to; `root` is gone then.

        Saves unpacking a layer that was just made on this machine, unless the root is a copy of all of them.
        """
        target = self.layers.fs(chain_ids(each.diff_id for each in (*below.layers, layer))[-1])
        with self._lock:
            if not target.is_dir() and not root.copied:
                with self._making.draft() as draft:
                    Path(root.upper).rename(draft / "fs")
                    draft.rename(target.parent)
        self._making.discard_later(Path(root.upper).parent)

    def sweep(self) -> None:
        """Delete what a crash left half-made or half-deleted; at start-up."""
        self._making.sweep()

    def prune(self, keep: Iterable[Layered], *, dry_run: bool = False, without: Collection[str] = ()) -> int:
        """Delete layers and stacks that no image of `keep` has, and what a crash left."""
        with self._lock:
            stacks, layers = list(self.stacks.entries()), list(self.layers.entries())
        needed = {f"layer/{EMPTY}"}
        for image in keep:
            needed |= self._needs(_chains(image))
        with self._lock:
            for instance in self.instances().difference(without):
                with suppress(FileNotFoundError):  # removed just now
                    lines = (self._instances / instance / "layers").read_text().split()
                    needed |= {line if "/" in line else f"layer/{line}" for line in lines}  # older engines' lines
            stacks = [path for path in stacks if f"stack/{path.name}" not in needed and path.exists()]
            layers = [path for path in layers if f"layer/{path.name}" not in needed and path.exists()]
            rubbish = self._making.leftovers()
            if not dry_run:
                freed = sum(disk_usage(path) for path in (*stacks, *layers, *rubbish))
                for path in stacks:
                    self.stacks.discard(path)
                for path in layers:
                    self.layers.discard(path)
                for path in rubbish:
                    self._making.discard(path)
                return freed
        return sum(disk_usage(path) for path in (*stacks, *layers, *rubbish))

    def _needs(self, chains: list[str]) -> set[str]:
        """Name the layers and stacks of an image."""
        return self._named(chains, self.stacks.lowers(chains))

    def _named(self, chains: list[str], lowers: Iterable[Path]) -> set[str]:
        layers = {f"layer/{chain.partition(':')[2]}" for chain in chains}
        return layers | {f"stack/{name}" for name in self.stacks.names(lowers)}

    def _make(self, chains: list[str], layer: Layer, report: Report) -> None:
        """Unpack the last of a stack of layers, unless it is there."""

        def lowers() -> list[Path]:
            self.stacks.make(chains[:-1], self._lock)
            return self.stacks.lowers(chains[:-1])

        with self._turns.hold(chains[-1]):
            if not self.layers.ready(chains[-1]):
                self.layers.make(chains[-1], layer, lowers if len(chains) > 1 else None, report, self._lock)

    def _home(self, instance: str) -> Path:
        home = self._instances / instance
        if not home.is_dir():
            raise SnapshotNotFound(instance)
        return home

    def _writable(self, instance: str) -> Path:
        home = self._home(instance)
        return limit.show(home) if limit.is_limited(home) else home

    def _merge(self, directories: list[Path], target: Path, *, faithful: bool = False) -> None:
        with self._making.draft() as draft, explaining_full(target):
            with (draft / "tar").open("w+b") as file:
                packer = Packer(file.write, faithful=faithful, flat=True)
                packer.tree(merged(directories))
                packer.finish()
                file.seek(0)
                make_root(draft / "fs", like=directories[0])
                extract(file, draft / "fs", whiteouts=False)
            (draft / "fs").rename(target)

    def _make_instance(self, instance: str, lowers: tuple[str, ...], chains: list[str], size: int) -> None:
        home = self._instances / instance
        if home.exists():
            raise AlreadyExists(f"instance {instance} already has a writable layer")
        with explaining_full(home), self._making.draft() as draft:
            if self.kind == Kind.COPY:
                self._merge([Path(lower) for lower in lowers], draft / "upper", faithful=True)
            else:
                make_root(draft / "upper", like=Path(lowers[0]))
                (draft / "work").mkdir(mode=0o700)
            names = sorted(self._named(chains, map(Path, lowers)))
            (draft / "layers").write_text("".join(f"{name}\n" for name in names))
            if size:
                limit.make(draft, [name for name in ("upper", "work") if (draft / name).exists()], size)
            draft.rename(home)


def _chains(image: Layered) -> list[str]:
    return chain_ids(layer.diff_id for layer in image.layers)
