"""One directory, and one mount, for all packed layers of an image that lie on one another.

DIRECTORY/<chain id>/        by the topmost layer
├── image                    an EROFS file that holds everything but contents; of a lowest layer alone a link to its own
├── devices                  the chain ids of the layers, bottom first, in whose files the contents are, a line each
└── fs                       where it is mounted

A layer that was written by a build is a directory; such layers stay what they are, above or between stacks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from trivet.engine.snapshot import kept, point
from trivet.engine.snapshot.erofs import ErofsWriter, device_starts
from trivet.engine.snapshot.layer import Layers
from trivet.engine.snapshot.making import Making
from trivet.engine.snapshot.merge import move, stacked
from trivet.store.content import explaining_full


class Stacks:
    """The stacks of a host's layers."""

    def __init__(self, directory: Path, making: Making, layers: Layers) -> None:
        self._directory = directory
        self._making = making
        self._layers = layers
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lowers(self, chains: Sequence[str]) -> list[Path]:
        """List the directories that show an image's layers, topmost first, whether they are there or not."""
        return [self._place(group) for group in self._groups(chains)][::-1]

    def names(self, lowers: Iterable[Path]) -> set[str]:
        """Name the stacks among the directories that show an image's layers."""
        return {place.parent.name for place in lowers if place.parent.parent == self._directory}

    def ready(self, chains: Sequence[str]) -> bool:
        """Tell whether all of it is there, and show what was hidden (the host was started anew)."""
        return all(self._ready(group) for group in self._groups(chains))

    def make(self, chains: Sequence[str], keep: threading.Lock) -> None:
        """Make and mount what isn't there yet, of layers that are; `keep` is held while it gets its name."""
        below: list[Path] = []
        for group in self._groups(chains):
            if not self._ready(group):
                self._make(group, below, keep)
                self._ready(group)
            below.insert(0, self._place(group))

    def flatten(self, chains: Sequence[str], file: Path) -> bool:
        """Write an image as one EROFS file with its contents; False unless all its layers are packed."""
        if not all(self._layers.packed(chain) for chain in chains):
            return False
        with explaining_full(file), ErofsWriter(file) as writer:
            trees = []
            for chain in chains:
                tree, blocks = kept.read(self._layers.tree(chain))
                move(tree, writer.append(self._layers.contents(chain), blocks))
                trees.append(tree)
            writer.finish(stacked(trees, []))
        return True

    def entries(self) -> list[Path]:
        """List everything that is here."""
        return [Path(entry.path) for entry in os.scandir(self._directory)]

    def discard(self, home: Path) -> None:
        """Delete a stack."""
        point.hide(home)
        self._making.discard(home)

    def show_all(self) -> None:
        """Mount what isn't."""
        for home in self.entries():
            with suppress(point.NotMountable):  # whoever needs it is told
                self._show(home)

    def hide_all(self) -> None:
        """Unmount what is mounted. Who uses it keeps it."""
        for home in self.entries():
            point.hide(home)

    def _groups(self, chains: Sequence[str]) -> Iterator[list[str]]:
        """Split layers, bottom first, into those to be stacked and single directories."""
        for packed, run in groupby(chains, self._layers.packed):
            group = list(run)
            yield from [group] if packed else [[chain] for chain in group]

    def _place(self, group: list[str]) -> Path:
        if not self._layers.packed(group[0]):
            return self._layers.fs(group[0])
        return self._directory / group[-1].partition(":")[2] / "fs"

    def _ready(self, group: list[str]) -> bool:
        if not self._layers.packed(group[0]):
            return self._layers.show(group[0])
        place = self._place(group)
        return place.is_dir() and bool(self._show(place.parent))

    def _show(self, home: Path) -> Path:
        names = (home / "devices").read_text().split()
        return point.show(home, [self._layers.contents(f":{name}") for name in names])

    def _make(self, group: list[str], below: list[Path], keep: threading.Lock) -> None:
        home = self._place(group).parent
        with self._making.draft() as draft, explaining_full(home):
            if below or len(group) > 1:
                self._write(draft / "image", group, below)
            else:
                (draft / "image").symlink_to(os.path.relpath(self._layers.contents(group[0]), home))
                group = []
            (draft / "devices").write_text("".join(f"{chain.partition(':')[2]}\n" for chain in group))
            (draft / "fs").mkdir()
            with keep:
                if not home.is_dir():
                    draft.rename(home)

    def _write(self, image: Path, group: list[str], below: list[Path]) -> None:
        found = [kept.read(self._layers.tree(chain)) for chain in group]
        sizes = [blocks for _, blocks in found]
        for (tree, _), start in zip(found, device_starts(sizes), strict=True):
            move(tree, start)
        with ErofsWriter(image, sizes) as writer:
            writer.finish(stacked([tree for tree, _ in found], below))
