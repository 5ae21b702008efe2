"""Entropy for the guest, from the host's own generator."""

from __future__ import annotations

import msgspec

from trivet.hypervisor.device.device import option


class Rng(msgspec.Struct, frozen=True):
    """A virtio random number generator.

    It reads the kernel's: QEMU's own one would say the same in all that begin as a frozen process.
    """

    def arguments(self) -> list[str]:
        backend = option("rng-random", id="rng", filename="/dev/urandom")
        return ["-object", backend, "-device", option("virtio-rng-pci", rng="rng")]
