"""A CRIU that works on kernels of today."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests import newer


@pytest.fixture(scope="session")
def criu() -> Path:
    """The program; skips with the reason where there is none to be had."""
    program = newer.program("criu", "/usr/sbin/criu")
    done = subprocess.run([program, "check"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"criu doesn't work on this kernel: {done.stdout}{done.stderr}")
    return program
