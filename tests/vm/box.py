"""Talking to a machine's serial console through the command."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from tests.conftest import BIN, Daemon

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPPTTqz0yiF2tM5m+ad+8ae6EULevZWhVsgkgWf0CIG+ test"
NEEDS = ("root", "qemu-system-x86_64", "qemu-img", "mcopy", "mkfs.vfat")
PATIENCE = 120.0


def said(engine: Daemon, name: str, text: str, patience: float = PATIENCE) -> str:
    """Wait until a machine's console has said something; all it said."""
    deadline = time.monotonic() + patience
    while text not in (log := engine.ok("logs", name)):
        assert time.monotonic() < deadline, f"{name} never said {text!r}:\n{log[-3000:]}"
        time.sleep(0.3)
    return log


@contextmanager
def console(engine: Daemon, name: str) -> Iterator[IO[bytes]]:
    """Connect to the serial console; what it is typed on."""
    command = [str(BIN / "trivet"), "vm", "console", name]
    connected = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "TRIVET_HOST": engine.address}
    )
    try:
        assert connected.stdin is not None
        yield connected.stdin
    finally:
        connected.kill()
        connected.wait()


def asked(engine: Daemon, name: str, line: str, answer: str) -> None:
    """Type a line on the serial console until the answer is there."""
    with console(engine, name) as typed:
        deadline = time.monotonic() + PATIENCE
        while answer not in engine.ok("logs", name):
            assert time.monotonic() < deadline
            typed.write(f"\n{line}\n".encode())
            typed.flush()
            time.sleep(1)
