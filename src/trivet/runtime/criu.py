"""CRIU, which saves processes and brings them back: found, asked whether it works here, run, and its log read.

Its words are criu(8)'s. It is a program of its own (GPL-2), never a library of ours.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from trivet.base.error import TrivetError, Unavailable
from trivet.runtime import rootless

NEEDED = "4.2"  # 3.17 takes kernels from 6.x for too old to start with
_NOISE = ("RLIMIT_NOFILE", "FAILED", "ing failed", "cgroupd: recv req", "Unable to create tun")


class CriuMissing(Unavailable):
    """There is no CRIU, or one that doesn't work on this kernel."""

    def __init__(self, cause: str) -> None:
        hint = f"apt install criu, version {NEEDED} or later; or --criu PROGRAM"
        super().__init__(f"checkpoints need criu: {cause}", hint=hint)


class CriuFailed(TrivetError):
    """CRIU could not do what it was asked to."""

    def __init__(self, what: str, cause: str, log: Path) -> None:
        super().__init__(f"criu could not {what}: {cause}", hint=f"more in {log}")


def find(given: str | None) -> str:
    """Find the program and try whether it works here. Raises `CriuMissing`."""
    if rootless.ordinary():
        raise CriuMissing("it needs root")
    program = shutil.which(given or "criu")
    if program is None:
        raise CriuMissing(f"there is no {given or 'criu'}")
    done = _ask(program, "check")
    if done.returncode:
        words = next((line for line in done.stdout.splitlines() if "Error" in line), "criu check fails")
        raise CriuMissing(f"{_version(program)} doesn't work on this kernel: {_bare(words)}")
    return program


@functools.cache
def tracks_memory(program: str) -> bool:
    """Tell whether the kernel says which pages were written since the last look (CONFIG_MEM_SOFT_DIRTY)."""
    return _ask(program, "check", "--feature", "mem_dirty_track").returncode == 0


def run(argv: Sequence[str], what: str, log: Path, *, descriptors: Sequence[int] = ()) -> None:
    """Run it with a command line that names `log`. Raises `CriuFailed`."""
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=descriptors,
        check=False,
    )
    if done.returncode:
        raise CriuFailed(what, cause(log) or f"exit code {done.returncode}", log)


def cause(log: Path) -> str:
    """Find the first error that the log tells, "" without one."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((_bare(line) for line in lines if "Error (" in line and not any(n in line for n in _NOISE)), "")


def _bare(line: str) -> str:
    """Keep what a line of the log says: behind the time, the pid and the place in CRIU's source."""
    return line.partition("): ")[2].strip() or line.strip()


def _version(program: str) -> str:
    return _ask(program, "--version").stdout.partition("\n")[0].replace("Version:", "version").strip()


def _ask(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
