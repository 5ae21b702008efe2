"""A CRIU that works on kernels of today, from the machine's own package sources: unpacked once, never installed."""

from __future__ import annotations

import fcntl
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from trivet.engine.image import apt

PLACE = Path(__file__).parents[1] / "build/criu"
SUITE = "sid"


@pytest.fixture(scope="session")
def criu() -> Path:
    """The program; skips with the reason where there is none to be had."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = PLACE / "criu"
        if not program.exists():
            _unpack(PLACE / "root")
            _wrap(PLACE / "root", program)
    done = subprocess.run([program, "check"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"criu doesn't work on this kernel: {done.stdout}{done.stderr}")
    return program


def _unpack(root: Path) -> None:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap")
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = apt.for_suite(apt.sources(), own, SUITE)
    if not sources:
        pytest.skip(f"the machine has no sources of Debian's to take {SUITE} from")
    listed = PLACE / "criu.sources"
    listed.write_text("\n".join(source.deb822() for source in sources))
    shutil.rmtree(root, ignore_errors=True)
    words = [*("unshare", "--mount", "--propagation", "private"), *("mmdebstrap", "--mode=root", "--variant=extract")]
    settings = [f"--aptopt={line}" for line in (*apt.settings(), 'APT::Install-Recommends "false";')]
    argv: list[str | Path] = [*words, "--format=directory", "--include=criu", *settings, SUITE, root, listed]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"criu of {SUITE} is not to be had: {done.stderr[-300:]}")


def _wrap(root: Path, program: Path) -> None:
    """Let it run with its own libraries."""
    linker = next(root.glob("usr/lib/*/ld-linux-*.so.*"))
    text = f'#!/bin/sh\nexec {linker} --library-path {linker.parent} {root}/usr/sbin/criu "$@"\n'
    partial = program.with_suffix(".new")
    partial.write_text(text)
    partial.chmod(0o755)
    partial.rename(program)
