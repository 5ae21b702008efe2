"""overlayfs's own marks.

In a user namespace nobody may write `trusted.` attributes; it keeps them in `user.overlay.` there, if it is told to
(Documentation/filesystems/overlayfs.rst, "User xattr").
"""

from __future__ import annotations

from pathlib import Path

_FIRST = 0xEFFFFFFD  # the number of the machine's own user namespace (include/linux/proc_ns.h)

CONFINED = Path("/proc/self/ns/user").stat().st_ino != _FIRST
"""Whether this process is in a further user namespace: there it has no `trusted.` attributes and makes no devices."""

OPAQUE = "user.overlay.opaque" if CONFINED else "trusted.overlay.opaque"
"""What a directory that hides those below it is marked with."""

OPTIONS = ("userxattr",) if CONFINED else ()
"""What every overlay has to be mounted with, besides its directories."""
