"""A mount namespace of the bench's own, for all peers alike.

On machines that use control groups version 1 beside an empty version 2 tree, crun 1.8 refuses to work as long as
it sees the latter. So nobody sees it; there is an empty directory for the groups crun tries to make there anyway.
Where /run isn't in memory, as it is on every machine that was set up as usual, everybody's is here.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

UNIFIED = Path("/sys/fs/cgroup/unified")
RUN = Path("/run")
INSIDE = "TRIVET_BENCH_INSIDE"


def enter(words: list[str]) -> None:
    """Begin again in a private mount namespace where the version 2 tree isn't shown, if there is a need for it."""
    steps = [f"mount -t tmpfs -o mode=755 bench {RUN}"] if not RUN.is_mount() else []
    if (UNIFIED / "cgroup.procs").exists():
        steps += [f"umount {UNIFIED}", f"mount -t tmpfs -o size=4m bench {UNIFIED}"]
    if INSIDE in os.environ or not steps or not shutil.which("unshare"):
        return
    script = " && ".join([*steps, 'exec "$@"'])
    line = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "bench.run", *words]
    os.execvpe(line[0], line, os.environ | {INSIDE: "1"})
