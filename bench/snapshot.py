"""`python -m bench.snapshot`: how long a database stands still while its volume is snapshotted, and what came of it.

PostgreSQL as the host has it, in a container with a volume of its own, written to by pgbench all the time. Of each
snapshot the engine tells how long the container stood still; the last one is cloned, and the copy's sums and indexes
are checked. What is waited for, too, is told: the processor's other users (/proc/loadavg) lengthen a moment.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from bench.network import _ask, _until
from bench.peers.trivet import BIN

GOAL = 0.1  # seconds
USER = 70
IMAGE, DATABASE, COPY = "bench-postgres", "bank", "bank-copy"
SERVE = "test -d /data/db || initdb -D /data/db -A trust >/dev/null; exec postgres -D /data/db -k /tmp -h ''"
SUMS = """select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
    (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)"""


def programs() -> Path | None:
    """Find PostgreSQL's programs, of the newest version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    return found[-1].parent if found else None


def image() -> bytes:
    """Make an image of nothing but names: the programs are the host's, shown below /usr."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in ("etc", "usr", "tmp", "data", "proc", "dev", "sys"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        for name in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(link)
        for name, text in (("passwd", f"postgres:x:{USER}:{USER}::/tmp:/bin/sh\n"), ("group", f"postgres:x:{USER}:\n")):
            file = tarfile.TarInfo(f"etc/{name}")
            file.size = len(text)
            tar.addfile(file, io.BytesIO(text.encode()))
    return made.getvalue()


@contextmanager
def engine(directory: Path) -> Iterator[list[str]]:
    """Run an engine of the bench's own; the command that talks to it."""
    words = ["--root", str(directory / "root"), "--run-dir", str(directory / "run"), "--spares", "0"]
    command = [str(BIN / "trivet"), "--host", f"unix://{directory}/run/trivet.sock"]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, True)
        stack.callback(subprocess.run, [str(BIN / "trivetd"), *words, "--uninstall"], check=False)
        process = subprocess.Popen([str(BIN / "trivetd"), *words, "--log-level", "error"])
        stack.callback(process.wait)
        stack.callback(process.terminate)
        _until([*command, "version"])
        stack.callback(subprocess.run, [*command, "rm", "-f", DATABASE, COPY], capture_output=True, check=False)
        subprocess.run([*command, "import", "-q", "-", IMAGE], input=image(), stdout=subprocess.DEVNULL, check=True)
        yield command


def start(command: list[str], name: str, home: Path) -> None:
    """Start a database on the volume of its name, and wait until it answers."""
    host = [
        "--mount",
        "type=bind,src=/usr,dst=/usr,ro",
        "-v",
        f"{name}:/data",
        "--user",
        "postgres",
        "--network",
        "none",
    ]
    _ask([*command, "run", "-d", "--name", name, *host, "-e", f"PATH={home}:/usr/bin", IMAGE, "sh", "-c", SERVE])
    _until([*command, "exec", name, "psql", "-h", "/tmp", "-Atc", "select 1", "postgres"])


def ask(command: list[str], name: str, question: str) -> str:
    """Put a question to a database."""
    return _ask([*command, "exec", name, "psql", "-h", "/tmp", "-Atc", question, "postgres"]).strip()


def measure(command: list[str], home: Path, rounds: int, scale: int, clients: int) -> list[dict[str, Any]]:
    """Take snapshots while the database is written to; the records of all but the first, which reads everything."""
    _ask([*command, "volume", "create", "-o", f"o=uid={USER},gid={USER},mode=0700", DATABASE])
    start(command, DATABASE, home)
    _ask([*command, "exec", DATABASE, "pgbench", "-h", "/tmp", "-q", "-i", "-s", str(scale), "postgres"])
    busy = ["pgbench", "-h", "/tmp", "-n", "-c", str(clients), "-T", "36000", "postgres"]
    _ask([*command, "exec", "-d", DATABASE, *busy])
    for number in range(rounds + 1):
        time.sleep(1)
        _ask([*command, "volume", "snapshot", "-q", f"{DATABASE}@{number}"])
    shown = _ask([*command, "volume", "snapshots", "--json", DATABASE])
    return [json.loads(line) for line in shown.splitlines()][1:]


def check(command: list[str], home: Path, snapshot: str) -> None:
    """Clone a snapshot and have the database's own tools look at it. Raises `RuntimeError` naming what is wrong."""
    _ask([*command, "volume", "clone", "-q", snapshot, COPY])
    start(command, COPY, home)
    sums = set(ask(command, COPY, SUMS).split("|"))
    if len(sums) != 1:
        raise RuntimeError(f"the sums of the copy differ: {', '.join(sorted(sums))}")
    tool = ["pg_amcheck", "-h", "/tmp", "--install-missing", "--heapallindexed", "-d", "postgres"]
    _ask([*command, "exec", COPY, *tool])


def main() -> int:
    """Measure and print; 1 where the goal was missed, or the copy is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--scale", type=int, default=40, help="of pgbench: 16 MB each")
    parser.add_argument("--clients", type=int, default=4)
    args = parser.parse_args()
    home = programs()
    if home is None:
        print("left out: PostgreSQL isn't installed (apt-get install postgresql)")
        return 0
    with engine(Path(tempfile.mkdtemp(prefix="tbs", dir="/var/tmp"))) as command:
        found = measure(command, home, args.rounds, args.scale, args.clients)
        load = Path("/proc/loadavg").read_text().split()[0]
        size = _ask([*command, "exec", DATABASE, "sh", "-c", "find /data | wc -l; du -sm /data | cut -f1"]).split()
        done = int(ask(command, DATABASE, "select count(*) from pgbench_history"))
        check(command, home, f"{DATABASE}@{args.rounds}")
    pauses = sorted(each["pause"] * 1000 for each in found)
    added = median(each["added"] for each in found) / 1e6
    print(f"{size[1]} MB in {size[0]} files, {done} transactions meanwhile, load {load}; the copy is sound")
    print(f"stood still, ms: {pauses[0]:.0f} at least, {median(pauses):.0f} in the median, {pauses[-1]:.0f} at most")
    print(f"a snapshot added {added:.0f} MB")
    met = median(pauses) <= GOAL * 1000
    print(f"stands still, ms, median: {median(pauses):.0f}, goal ≤ {GOAL * 1000:.0f}, {'yes' if met else 'no'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
