"""How a client on the registry's machine comes to trust its local authority.

    /run/trivet-registry/PORT.crt            of root's registries
    $XDG_RUNTIME_DIR/trivet-registry/        of another user's

A file counts only for loopback addresses, and only if it and its directory belong to root or to the
one who asks and nobody else may write there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def directories() -> list[Path]:
    """List where registries of this machine announce themselves, the asking user's own last."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    return [Path("/run/trivet-registry"), *([Path(own) / "trivet-registry"] if own and os.geteuid() else [])]


def announce(port: int, authority: bytes) -> Path | None:
    """Tell clients on this machine whom the registry at a port is vouched for by; None where that isn't possible."""
    directory = directories()[-1]
    file = directory / f"{port}.crt"
    fresh = directory / f".{port}.{os.getpid()}"
    try:
        directory.mkdir(mode=0o755, exist_ok=True)
        directory.chmod(0o755)  # whatever the umask: there are no secrets here
        fresh.write_bytes(authority)
        fresh.chmod(0o644)
        fresh.replace(file)
    except OSError:
        return None
    return file


def announced(port: int) -> Path | None:
    """Find the authority of the registry at a port of this machine."""
    for directory in directories():
        file = directory / f"{port}.crt"
        if all(map(_trustworthy, (directory, file))):
            return file
    return None


def _trustworthy(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    proper = stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)
    return proper and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022
