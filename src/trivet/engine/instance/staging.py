"""Parts of volumes and images as mounts: found anew at every start, and shown to the level as paths that stay.

    RUN/m/KEY/N     what sub-path the N-th mount of an instance leads to, bound there while it runs

The way to it is walked as if the volume were a root directory, so no link in it leads out, however fast it changes;
what was found is bound by its descriptor. Whoever cleans up unmounts and removes the empty place, and never follows it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from trivet.base.error import NotFound
from trivet.isolation.plan import Mount, Plan
from trivet.kernel import mount
from trivet.kernel.beneath import open_inside

PLACE = "m"
_BIND = 0x1000 | 0x4000  # with what is mounted below it


class SubpathMissing(NotFound):
    """A part of a volume or image that isn't there."""

    def __init__(self, subpath: str, of: str, error: OSError) -> None:
        super().__init__(f"cannot mount {subpath} of {of}: {(error.strerror or str(error)).lower()}")


def stage(run: Path, key: str, plan: Plan) -> Plan:
    """Bind what sub-paths lead to, and let the plan's mounts begin there. Raises `SubpathMissing`."""
    if not any(each.subpath for each in plan.mounts):
        return plan
    clear(run, key)
    home = run / PLACE / key[:20]
    home.mkdir(mode=0o700, parents=True)
    try:
        found = [_staged(home / str(number), each) for number, each in enumerate(plan.mounts)]
    except BaseException:
        clear(run, key)
        raise
    return msgspec.structs.replace(plan, mounts=tuple(found))


def clear(run: Path, key: str) -> None:
    """Take away what `stage` made. Idempotent."""
    _clear(run / PLACE / key[:20])


def sweep(run: Path, keys: Iterable[str]) -> None:
    """Take away what was made for instances that aren't there any more."""
    known = {key[:20] for key in keys}
    home = run / PLACE
    for path in home.iterdir() if home.is_dir() else ():
        if path.name not in known:
            _clear(path)


def _staged(target: Path, wish: Mount) -> Mount:
    if not wish.subpath:
        return wish
    try:
        descriptor = open_inside(Path(wish.base), wish.subpath)
    except OSError as error:
        raise SubpathMissing(wish.subpath, _name(wish), error) from error
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(mode=0o700)
        else:
            target.touch(mode=0o600)
        mount.mount(Path(f"/proc/self/fd/{descriptor}"), target, "none", _BIND)
    finally:
        os.close(descriptor)
    return msgspec.structs.replace(wish, source=str(target))


def _name(wish: Mount) -> str:
    return f"image {wish.image}" if wish.image else f"volume {wish.name}"


def _clear(home: Path) -> None:
    for path in home.iterdir() if home.is_dir() else ():
        with suppress(OSError):
            mount.unmount(path)
        with suppress(OSError):  # what something is still mounted on stays, with what is in there
            path.rmdir() if path.is_dir() else path.unlink()
    with suppress(OSError):
        home.rmdir()
