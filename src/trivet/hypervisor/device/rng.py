"""Entropy for the guest, from the host's own generator."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Rng(msgspec.Struct, frozen=True):
    """A virtio random number generator."""

    def arguments(self) -> list[str]:
        return ["-object", option("rng-builtin", id="rng"), "-device", option("virtio-rng-pci", rng="rng")]
