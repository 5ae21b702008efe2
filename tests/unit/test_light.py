"""What an engine doesn't load until it needs it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("cryptography", "bcrypt", "minio", "yaml", "multiprocessing")
ASK = "import trivet.daemon.main, sys; print(*sorted(set(sys.argv[1:]) & set(sys.modules)))"


def test_an_engine_begins_light() -> None:
    """Libraries of megabytes that few engines ever use aren't loaded by starting one."""
    done = subprocess.run([sys.executable, "-c", ASK, *HEAVY], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
