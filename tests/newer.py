"""Programs of Debian's newest suite, from the machine's own package sources: unpacked once, never installed."""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from trivet.engine.image import apt

PLACE = Path(__file__).parents[1] / "build"
SUITE = "sid"
# It runs /proc/self/exe, so that it needs its libraries where they belong, in a mount namespace of its own.
_SHOWN = """#!/bin/sh
exec unshare --mount --propagation slave sh -c '
mount --bind {root}{libraries} {libraries} && exec {root}{program} "$@"' sh "$@"
"""
_LOADED = '#!/bin/sh\nexec {root}{libraries}/{linker} --library-path {root}{libraries} {root}{program} "$@"\n'


def program(package: str, path: str, *, shown: bool = False) -> Path:
    """Give a command that runs `path` of a package with that suite's libraries; skips where it is not to be had."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap")
    place = PLACE / package
    place.mkdir(parents=True, exist_ok=True)
    command, root = place / package, place / "root"
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not command.exists():
            _unpack(package, place, root)
            linker = next(root.glob("usr/lib/*/ld-linux-*.so.*"))
            libraries = f"/{linker.parent.relative_to(root)}"
            words = {"root": root, "libraries": libraries, "linker": linker.name, "program": path}
            partial = command.with_suffix(".new")
            partial.write_text((_SHOWN if shown else _LOADED).format(**words))
            partial.chmod(0o755)
            partial.rename(command)
    return command


def _unpack(package: str, place: Path, root: Path) -> None:
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = apt.for_suite(apt.sources(), own, SUITE)
    if not sources:
        pytest.skip(f"the machine has no sources of Debian's to take {SUITE} from")
    listed = place / f"{package}.sources"
    listed.write_text("\n".join(source.deb822() for source in sources))
    shutil.rmtree(root, ignore_errors=True)
    words = [*("unshare", "--mount", "--propagation", "private"), *("mmdebstrap", "--mode=root", "--variant=extract")]
    settings = [f"--aptopt={line}" for line in (*apt.settings(), 'APT::Install-Recommends "false";')]
    argv: list[str | Path] = [*words, "--format=directory", f"--include={package}", *settings, SUITE, root, listed]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"{package} of {SUITE} is not to be had: {done.stderr[-300:]}")
