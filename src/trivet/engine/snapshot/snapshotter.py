"""The contract: what a stack of layers becomes on disk, and what an instance writes to.

    layers ──prepare──▶ unpacked, shared, read-only ──create──▶ Root: that, and a writable part of the instance's own
                                                                  │ usage, remove

A snapshotter hands out `isolation.plan.Root` records and mounts nothing itself: whoever runs the
instance mounts them where nobody else can see it. What is shared is named by chain id and made only
once; it is complete or not there. All methods block, may be called from any thread, and are safe to
repeat after a crash at any moment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Literal, Protocol, runtime_checkable

from trivet.base.error import NotFound
from trivet.engine.snapshot.stream import Counted
from trivet.isolation.plan import Root
from trivet.oci.layer import Layer

Report = Callable[[str, str, int, int], None]
"""Called with what (a short layer digest), doing what, bytes done, bytes in all (0: unknown)."""


def silent(what: str, doing: str, done: int, total: int) -> None:
    """Report nothing."""


class SnapshotNotFound(NotFound):
    """An instance that has no writable layer here."""

    def __init__(self, instance: str) -> None:
        super().__init__(f"instance {instance} has no writable layer")


class Layered(Protocol):
    """Anything that has layers, bottom first: an image record, a draft."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, bottom first; none is the empty image."""


class Snapshotter(Protocol):
    """What each form of root file system must do."""

    form: Literal["mount", "drive", "disk"]

    def prepare(self, image: Layered, report: Report = silent) -> None:
        """Unpack what isn't unpacked yet. Idempotent; concurrent calls do the work once.

        Raises `Corrupt` for a damaged or hostile layer, `Exhausted` when the disk is full; either
        way nothing half-made is left.
        """

    def create(self, instance: str, image: Layered, size: int = 0) -> Root:
        """Make an instance's writable layer over an image, preparing the image first; of `size` bytes, if told.

        Raises `AlreadyExists` if the instance has one, `InvalidArgument` for too small a size.
        """

    def root(self, instance: str, image: Layered) -> Root:
        """Find an instance's root again. Raises `SnapshotNotFound`."""

    def usage(self, instance: str) -> int:
        """Measure the writable layer, in bytes on disk. Raises `SnapshotNotFound`."""

    def remove(self, instance: str) -> None:
        """Delete the writable layer, if it is there."""

    def instances(self) -> set[str]:
        """List the instances that have a writable layer here."""

    def sweep(self) -> None:
        """Delete what a crash left half-made or half-deleted; at start-up."""

    def prune(self, keep: Iterable[Layered], *, dry_run: bool = False, without: Collection[str] = ()) -> int:
        """Delete what no image of `keep` and no instance needs, and what a crash left; return the bytes freed.

        Instances' images must be among `keep`, which is asked after it was seen what there is: what comes later stays.
        A dry run may take the instances `without` for gone.
        """


@runtime_checkable
class Gradual(Snapshotter, Protocol):
    """A snapshotter that can begin before all layers of an image have come, with whichever came first."""

    def unpack(self, image: Layered, report: Report = silent, source: Counted | None = None) -> None:
        """Unpack the topmost layer, whether those below are there or not; what is left over `prepare` does.

        `source` is the layer's blob, if it isn't to be looked for in the content store.
        """

    def unpacked(self, image: Layered) -> list[bool]:
        """Tell of each layer, bottom first, whether it is there, so that its blob isn't needed."""


@runtime_checkable
class Viewed(Snapshotter, Protocol):
    """A snapshotter whose layers can be read as directories."""

    def lowers(self, image: Layered) -> tuple[str, ...]:
        """List the directories of an image's layers, topmost first."""


@runtime_checkable
class Adopting(Protocol):
    """A snapshotter that can keep what was written as a layer's unpacked form, so that it needn't be unpacked."""

    def adopt(self, root: Root, below: Layered, layer: Layer) -> None:
        """Make the writable layer of `root` the layer it was committed to, on top of `below`; `root` is gone then."""
