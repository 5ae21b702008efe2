"""What a start doesn't pay for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import trivet

SOURCE = Path(trivet.__file__).parent.parent
ENGINE = ("trivet.build.making", "trivet.build.dockerfile", "trivet.engine.disk.ova", "tarfile", "cryptography", "yaml")
VERSION = ["--host", "unix:///nowhere", "version"]


@pytest.mark.parametrize(
    ("program", "spared", "options"),
    [
        ("import trivet.daemon.serve", ENGINE, ()),
        (f"from trivet.cli.main import main; main({VERSION})", ("importlib.metadata", "email"), ()),
    ],
    ids=["engine", "version"],
)
def test_start_spares_what_few_need(program: str, spared: tuple[str, ...], options: tuple[str, ...]) -> None:
    """An engine that has built nothing, and a command that tells its version, load nothing that only others need."""
    code = f"import sys; sys.path.append({str(SOURCE)!r}); {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & set(spared)
