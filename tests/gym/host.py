"""A little host for the gym: namespaces of its own, so that what an attack does to "the host" is seen, and harmless.

trivet, and every peer, runs in it and takes it for the host. Its processes, mounts, interfaces, sockets and rules are
only the gym's, so that an invariant is an equality. Kernel-wide things (control groups, sysctls, disks) are shared.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

WORDS = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--mount-proc", "--kill-child")


class Host:
    """Process 1 of the little host, and a way to run programs there."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._outer = subprocess.Popen(
            ["unshare", *WORDS, program, "host"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        assert self._outer.stdout
        assert self._outer.stdout.readline() == b"up\n"
        self.pid = child(self._outer.pid)
        # Other people's, which come and go; and the host's, as they were.
        self.inherited = self.mounts()

    def enter(self, *words: str | Path) -> list[str | Path]:
        """Spell a command that runs there."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--ipc", "--uts", "--", *words]

    def run(self, *words: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command there to its end."""
        return subprocess.run(
            self.enter(*words), capture_output=True, stdin=subprocess.DEVNULL, text=True, errors="replace",
            timeout=timeout, check=False,
        )  # fmt: skip

    def read(self, path: str) -> str:
        """Read what /proc says there of process 1."""
        return Path(f"/proc/{self.pid}", path).read_text()

    def mounts(self) -> list[str]:
        """List its mounts, without their numbers."""
        return [line.split(" ", 3)[3] for line in self.read("mountinfo").splitlines()]

    def processes(self) -> Counter[str]:
        """Count what runs there, by name; the dead that wait for their parent's interest are not among them."""
        found: Counter[str] = Counter()
        for path in Path(f"/proc/{self.pid}/root/proc").iterdir():
            if path.name.isdigit():
                with suppress(OSError):
                    name, _, rest = (path / "stat").read_text().partition("(")[2].rpartition(")")
                    found[name] += rest.split()[0] != "Z"
        return +found

    def close(self) -> None:
        """End it, and with it whatever runs there."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._outer.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def child(pid: int) -> int:
    """Find the only child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
