"""What every device is: a record that answers with QEMU's arguments. Nothing is opened or looked up here."""

from __future__ import annotations

from typing import Protocol


class Device(Protocol):
    """A part of a machine."""

    def arguments(self) -> list[str]:
        """Return the options and values that give QEMU this device."""


def option(kind: str, **properties: str | int | bool) -> str:
    """Join QEMU's `kind,key=value` form: underscores become dashes, booleans on and off, commas are doubled."""
    return ",".join([kind, *(f"{key.replace('_', '-')}={_word(value)}" for key, value in properties.items())])


def handed(descriptor: int | None) -> list[str]:
    """Tell QEMU that a descriptor it inherits is a file it may open, by the number of the descriptor."""
    return [] if descriptor is None else ["-add-fd", f"fd={descriptor},set={descriptor}"]


def opened(path: str, descriptor: int | None) -> str:
    """Name a file for QEMU: by its path, or as one that was handed over."""
    return path if descriptor is None else f"/dev/fdset/{descriptor}"


def _word(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
