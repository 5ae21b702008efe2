"""containerd with everything of its own, and its client."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def containerd(place: Path) -> Iterator[list[str]]:
    """Run a containerd below `place`; yield what a command about its images begins with."""
    config, socket = place / "config.toml", place / "c.sock"
    config.write_text(
        f'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\naddress = "{socket}"\n'
    )
    process = subprocess.Popen(["containerd", "-c", config], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        yield ["ctr", "-a", str(socket), "images"]
    finally:
        process.terminate()
        process.wait(20)
