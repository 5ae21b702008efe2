"""New images from old ones: a draft grows by layers and configuration changes, and becomes an image.

draft = scratch(platform) or images.draft("debian:bookworm")
root = snapshotter.create(step, draft)            … run something in it …
draft = commit(images, root, draft, history=History(created_by="RUN make"))
draft = draft.changed(config, history=History(created_by="ENV A=b"))
record = images.create(draft, ["app:1.0"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from trivet.isolation.plan import Root
from trivet.oci.config import Config, History, Image, RootFS
from trivet.oci.layer import Layer
from trivet.oci.platform import Platform
from trivet.store.lease import Lease

if TYPE_CHECKING:
    from trivet.engine.image.image import Images


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the making: a configuration and layers that agree."""

    config: Image
    layers: tuple[Layer, ...] = ()

    def with_layer(self, layer: Layer, *, history: History, config: Config | None = None) -> Draft:
        """Put a layer on top."""
        image = msgspec.structs.replace(
            self.config,
            rootfs=RootFS(diff_ids=(*self.config.rootfs.diff_ids, layer.diff_id)),
            history=(*(self.config.history or ()), history),
            config=config or self.config.config,
            created=history.created or self.config.created,
        )
        return Draft(config=image, layers=(*self.layers, layer))

    def changed(self, config: Config, *, history: History) -> Draft:
        """Change only the configuration; the history entry is marked as having no layer."""
        entry = msgspec.structs.replace(history, empty_layer=True)
        image = msgspec.structs.replace(
            self.config,
            config=config,
            history=(*(self.config.history or ()), entry),
            created=history.created or self.config.created,
        )
        return Draft(config=image, layers=self.layers)


def scratch(platform: Platform) -> Draft:
    """Start from nothing."""
    image = Image(architecture=platform.architecture, os=platform.os, variant=platform.variant, rootfs=RootFS())
    return Draft(config=image)


def commit(
    images: Images,
    root: Root,
    parent: Draft,
    *,
    history: History,
    config: Config | None = None,
    epoch: int | None = None,
    lease: Lease | None = None,
) -> Draft:
    """Make what was written to `root` (form `mount`) the next layer over `parent`, stored as a gzip blob.

    An upper directory without changes gives an empty history entry and no layer. With `epoch` (Unix time)
    no file of the layer is younger than that. The caller holds `lease` (`images.leases.hold`), or the
    layer may be collected before it is part of an image. The root is only read.
    """
    layer = images.layer(root, epoch=epoch, lease=lease)
    if layer is None:
        return parent.changed(config or parent.config.defaults, history=history)
    return parent.with_layer(layer, history=history, config=config)
