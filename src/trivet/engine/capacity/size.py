"""Sizes in sentences."""

from __future__ import annotations


def size(count: int) -> str:
    """Write bytes of memory: 24.5 MiB (powers of 1024)."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1000:
            return f"{amount:.3g} {unit}" if amount % 1 else f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"
