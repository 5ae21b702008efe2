"""Platforms: operating system, architecture, variant; which one fits this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from trivet.base.error import InvalidArgument

# The kernel's name for a machine, and other common spellings → (architecture, variant) of the OCI specification.
MACHINES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "ppc64el": ("ppc64le", ""),
    "loongarch64": ("loong64", ""),
}

# The variant that is meant when none is given.
DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}

# Debian's name for an architecture, for bootstrapping.
DEBIAN = {"386": "i386", "ppc64le": "ppc64el"}

WORD = r"[A-Za-z0-9_-]{1,64}"

# A 64-bit kernel usually runs its 32-bit relative too; only what every such processor can do is listed.
COMPATIBLE = {"amd64": ("amd64", "386"), "arm64": ("arm64", "arm")}


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an image runs. An unknown `os` or `architecture` is kept as it stands; it just never matches."""

    architecture: str
    os: str
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] | None = msgspec.field(default=None, name="os.features")

    def __str__(self) -> str:
        words = [self.os, self.architecture, self.variant or ""]
        return "/".join(word for word in words if word)


class MalformedPlatform(InvalidArgument):
    """A text that should have been `os/architecture[/variant]`."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"malformed platform {text[:80]!r}: expected os/architecture[/variant]", hint="e.g. linux/arm64"
        )


def host() -> Platform:
    """Tell this machine's platform."""
    return normal("linux", os.uname().machine)


def parse(text: str) -> Platform:
    """Parse `linux/arm64/v8`, `linux/amd64` or just `arm64`. Raises `MalformedPlatform`."""
    if not re.fullmatch(rf"{WORD}(/{WORD}){{0,2}}", text):
        raise MalformedPlatform(text)
    words = text.split("/")
    if len(words) == 1:
        return normal("linux", words[0])
    return normal(words[0], words[1], words[2] if len(words) == 3 else "")


def normal(system: str, architecture: str, variant: str = "") -> Platform:
    """Build a platform from any common spelling of an architecture."""
    lower = architecture.lower()
    architecture, implied = MACHINES.get(lower, (lower, ""))
    return Platform(os=system.lower(), architecture=architecture, variant=(variant.lower() or implied) or None)


def matches(wanted: Platform, offered: Platform) -> bool:
    """Tell whether an image for `offered` is what `wanted` asks for; a missing variant means the default one."""
    ours, theirs = normal(wanted.os, wanted.architecture), normal(offered.os, offered.architecture)
    if (ours.os, ours.architecture) != (theirs.os, theirs.architecture):
        return False
    default = DEFAULT_VARIANTS.get(ours.architecture, "")
    need, have = (each.variant or implied.variant or default for each, implied in ((wanted, ours), (offered, theirs)))
    # An ARM processor runs what was built for an older variant of it; everything else has to be equal.
    return have <= need if ours.architecture == "arm" else have == need


def runs_here(offered: Platform) -> bool:
    """Tell whether this machine's kernel can run programs of a platform natively."""
    mine = host()
    theirs = normal(offered.os, offered.architecture)
    return theirs.os == mine.os and theirs.architecture in COMPATIBLE.get(mine.architecture, (mine.architecture,))


T = TypeVar("T")


def choose(wanted: Platform, offers: Sequence[tuple[Platform | None, T]]) -> T | None:
    """Pick the best of `offers`: the newest variant that still fits, in the order offered otherwise."""
    fitting = [(offer.variant or "", value) for offer, value in offers if offer is not None and matches(wanted, offer)]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
