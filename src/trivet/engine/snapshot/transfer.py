"""Moving what an instance wrote from one form of root to another: a directory of overlayfs, a drive.

directory → drive   mke2fs takes the directory as it is: the guest's overlayfs has the same format
drive → directory   a layer of what was written, which only a guest's kernel can read; a file that has a whiteout's
                    name (.wh.x) can't be told in one, and is refused
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from trivet.base.tree import delete
from trivet.engine.snapshot.diff import write_changes
from trivet.engine.snapshot.ext4 import make_drive, run
from trivet.engine.snapshot.extract import extract
from trivet.isolation.plan import Root
from trivet.store.content import explaining_full

Tar = Callable[[Callable[[bytes], object]], None]
"""Writes a tar."""


def to_drive(source: Root, target: Root, size: int) -> None:
    """Make the drive of `target` hold what was written to `source`. Raises `DriveFailed`, `StoreFull`."""
    file = Path(target.upper)
    made = file.with_name("root.new")
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        tree = Path(source.upper).parent
        if source.copied:
            tree = Path(scratch)
            _changes(source, tree / "upper")
        try:
            run(make_drive(made, size, tree), f"drive {file}", made)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
    made.chmod(0o600)
    made.rename(file)


def to_directory(layer: Tar, target: Root) -> None:
    """Make the directory of `target` hold what is in `layer`."""
    home = Path(target.upper).parent
    with tempfile.TemporaryDirectory(dir=home) as scratch, explaining_full(home):
        upper = Path(scratch, "upper")
        upper.mkdir()
        with tempfile.TemporaryFile(dir=home) as file:
            layer(file.write)
            file.seek(0)
            extract(file, upper)
        delete(Path(target.upper))
        upper.rename(target.upper)


def _changes(source: Root, target: Path) -> None:
    """Unpack what differs from the layers, as a layer is: with whiteouts."""
    target.mkdir()
    with tempfile.TemporaryFile(dir=target.parent) as file:
        write_changes(source, file.write)
        file.seek(0)
        extract(file, target)
