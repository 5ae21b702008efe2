"""Registries to test against: our own, run as people run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def trivet_registry(root: Path, *options: str, tls: bool = False) -> Iterator[str]:
    """Run `trivet registry serve` with its data below `root`, plain or over TLS; yield HOST:PORT."""
    words = [
        "registry",
        "serve",
        "--root",
        str(root),
        "--listen",
        "127.0.0.1:0",
        *options,
        *([] if tls else ["--insecure"]),
    ]
    process = subprocess.Popen([Path(sys.executable).with_name("trivet"), *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        said = process.stdout.readline().decode().split()
        assert said, "the registry did not come up"
        yield said[-1]
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.stdout.close()
