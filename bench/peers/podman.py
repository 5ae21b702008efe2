"""Podman, which has no daemon: a conmon per container holds output and exit status."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from bench.account import Account
from bench.image import DIRECTORY, MARK, NAME, archive
from bench.peers.peer import PeerFailed, Run, command, timed

RUN = Path("/run/trivet-bench-podman")

# Its default limits are higher than what root may set on a machine that withholds CAP_SYS_RESOURCE.
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")


class Podman:
    """The `podman` command, with crun below it as on most machines, storage of the bench's own."""

    name = "podman (command)"
    slow = False
    twin = False

    def __init__(self) -> None:
        self._words: list[str | Path] = [
            *("podman", "--root", DIRECTORY / "podman", "--runroot", RUN),
            *("--cgroup-manager", "cgroupfs", "--runtime", "crun", "--log-level", "error"),
        ]

    def open(self, account: Account) -> None:
        """Load the image, try it."""
        self._options = ["--network", "none", *LIMITS, "--cgroup-parent", account.path]
        command([*self._words, "load", "--quiet", "--input", archive()])
        self.run()

    def version(self) -> str:
        """Tell which version this is."""
        return command(["podman", "--version"]).strip()

    def run(self) -> Run:
        """`podman run --rm`."""
        return timed([*self._words, "run", "--rm", *self._options, NAME])

    def idle(self, name: str) -> int:
        """`podman run -d`."""
        command([*self._words, "run", "--detach", "--name", name, *self._options, NAME, MARK, "idle"])
        return int(command([*self._words, "inspect", "--format", "{{.State.Pid}}", name]))

    def exec(self, name: str) -> None:
        """`podman exec`."""
        command([*self._words, "exec", name, MARK, "true"])

    def stop(self, name: str) -> None:
        """`podman stop` and `podman rm`."""
        command([*self._words, "stop", name])
        command([*self._words, "rm", name])

    def close(self) -> None:
        """Remove containers, and what it keeps in /run."""
        with contextlib.suppress(PeerFailed):
            command([*self._words, "rm", "--all", "--force"])
        shutil.rmtree(RUN, ignore_errors=True)
