"""A bundle: the directory that holds config.json and, named by it, the root file system."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.base.error import NotFound
from trivet.oci import runtime as oci


class BundleMissing(NotFound):
    """A bundle without its config.json, or without its root."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} does not exist", hint="trivet-runtime spec")


class Bundle(msgspec.Struct, frozen=True):
    """A bundle that was read: absolute directory, configuration, absolute root."""

    directory: Path
    spec: oci.Spec
    root: Path


def read(directory: Path) -> Bundle:
    """Read a bundle. Raises `NotFound` or `InvalidSpec`."""
    directory = directory.resolve()
    path = directory / "config.json"
    try:
        spec = oci.decode(path.read_bytes(), str(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleMissing(path) from error
    if spec.root is None:
        raise oci.InvalidSpec(str(path), "Object missing required field `root` - at `$`")
    try:
        root = (directory / spec.root.path).resolve()
        found = root.is_dir()
    except (ValueError, OSError, RuntimeError) as error:
        raise oci.InvalidSpec(str(path), f"{error} - at `$.root.path`") from error
    if not found:
        raise BundleMissing(root)
    return Bundle(directory, spec, root)
