"""Blobs that aren't here and can be had again: what a content store asks when it is asked for one of them."""

from __future__ import annotations

from typing import Protocol


class Elsewhere(Protocol):
    """Knows where blobs are that the store doesn't have."""

    def size(self, digest: str) -> int | None:
        """Tell the size of a blob that can be brought; None for all others."""

    def bring(self, digest: str) -> None:
        """Bring a blob into the store, where the next collection may take it again; takes seconds or minutes."""


class Nowhere:
    """What isn't in the store isn't anywhere."""

    def size(self, digest: str) -> int | None:
        """Know none."""
        return None

    def bring(self, digest: str) -> None:
        """Bring none."""
