"""What every build of an engine works with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from trivet.build.cache import Cache
from trivet.build.device import DIRECTORIES
from trivet.build.secret import Offered
from trivet.client.schema import Progress
from trivet.engine.image.image import Images
from trivet.engine.network.network import Networks
from trivet.engine.snapshot.snapshotter import Layered, Snapshotter
from trivet.isolation.driver import Driver
from trivet.isolation.plan import Root
from trivet.oci.layer import Layer

PREFIX = "build-"

Report = Callable[[Progress], None]


class Adopting(Snapshotter, Protocol):
    """A snapshotter that can keep what a step wrote as the unpacked form of its layer."""

    def adopt(self, root: Root, below: Layered, layer: Layer) -> None:
        """Take the upper directory over."""

    def lowers(self, image: Layered) -> tuple[str, ...]:
        """List the directories of an image's layers, topmost first."""


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """The neighbours every build of an engine uses. `home` and `run` are directories of the builder's own."""

    images: Images
    snapshotter: Adopting
    networks: Networks
    driver: Driver
    cache: Cache
    offered: Offered
    home: Path
    run: Path
    cgroup: str
    cdi: tuple[Path, ...] = DIRECTORIES  # where devices are described
