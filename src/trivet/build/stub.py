"""Targets for what is mounted in a container, in a directory that lies below all layers.

Mount targets the image lacks are found there, so that none is made in the step's layer and has to be
removed again (CVE-2024-23652).
"""

from __future__ import annotations

from pathlib import Path

COMMON = "stub"  # the one for what every container has, in the builder's directory


def make_common(home: Path) -> None:
    """Make the targets every container has."""
    for path in ("/dev", "/proc", "/sys"):
        add_target(home / COMMON, path)
    for name in ("hosts", "hostname", "resolv.conf"):
        add_target(home / COMMON, f"/etc/{name}", is_file=True)


def add_target(stub: Path, target: str, *, is_file: bool = False) -> None:
    """Make a target, and its parents, with modes that let every user pass, whatever the umask is."""
    path = stub / target.lstrip("/")
    directory = path.parent if is_file else path
    directory.mkdir(parents=True, exist_ok=True)
    if is_file:
        path.touch()
        path.chmod(0o644)
    while directory.is_relative_to(stub):
        directory.chmod(0o755)
        directory = directory.parent
