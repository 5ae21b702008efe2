"""The repository's own files, as its tests read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked(*patterns: str) -> list[Path]:
    """List the files git knows, all or those that match a pattern; skips where this is no git checkout."""
    done = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name.decode() for name in done.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def holding(needle: bytes) -> list[str]:
    """Name the tracked files in which `needle` occurs."""
    return [str(path.relative_to(ROOT)) for path in tracked() if needle in path.read_bytes()]
