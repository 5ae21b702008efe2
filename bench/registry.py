"""`python -m bench.registry`: our registry's throughput and memory beside docker-registry's, taking turns.

Each client keeps one connection and moves blobs of random bytes; uploads go POST, PATCH, PUT, as docker's do.
A figure is the median of the rounds: MB per second over all clients, and the seconds of processor the server
took for a GB, which says more where others use the machine too.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.image.conftest import debian_registry
from tests.image.served import trivet_registry

MB = 1_000_000
PIECE = 1 << 20
BINARY = {"Content-Type": "application/octet-stream"}


class Case(NamedTuple):
    """Blobs of so many MB, moved by so many clients at once."""

    size: int
    clients: int


CASES = [Case(size, clients) for size in (1, 10, 100) for clients in (1, 16)]
SERVERS: dict[str, Callable[[Path], AbstractContextManager[str]]] = {
    "trivet": trivet_registry,
    "docker-registry": debian_registry,
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--largest", type=int, default=100, help="MB of the largest blob")
    args = parser.parse_args()
    print(f"{'MB':>4} {'clients':>7}  {'':15} {'up MB/s':>8} {'s/GB':>5} {'down MB/s':>10} {'s/GB':>5} {'peak MB':>8}")
    for case in CASES:
        if case.size <= args.largest:
            measure(case, args.rounds)


def measure(case: Case, rounds: int) -> None:
    """Measure one case on both, round by round in alternating order."""
    figures: dict[str, list[tuple[float, ...]]] = {name: [] for name in SERVERS}
    for turn in range(rounds):
        for name in sorted(SERVERS, reverse=bool(turn % 2)):
            with _running(name) as address:
                process = _process(address)
                up = _counted(process, lambda address=address: upload(address, case))  # type: ignore[misc]
                down = _counted(process, lambda address=address: download(address, case))  # type: ignore[misc]
                figures[name].append((*up, *down, _peak(process)))
    for name, found in figures.items():
        up, taken, down, given, peak = (median(column) for column in zip(*found, strict=True))
        speeds = f"{up:8.0f} {taken:5.1f} {down:10.0f} {given:5.1f}"
        print(f"{case.size:4} {case.clients:7}  {name:15} {speeds} {peak:8.0f}", flush=True)


def _counted(process: Path, work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Work, and tell MB per second and the processor seconds of the server for a GB."""
    before = _processor(process)
    megabytes, seconds = work()
    return megabytes / seconds, (_processor(process) - before) / megabytes * 1000


def _processor(process: Path) -> float:
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def upload(address: str, case: Case) -> tuple[float, float]:
    """Upload blobs nobody has; MB and seconds."""
    count = max(1, min(20, 100 // case.size) // case.clients)
    blobs = [[os.urandom(case.size * MB) for _ in range(count)] for _ in range(case.clients)]
    names = [[hashlib.sha256(blob).hexdigest() for blob in row] for row in blobs]

    def work(number: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=120)
        for blob, name in zip(blobs[number], names[number], strict=True):
            _, where = _ask(connection, "POST", f"/v2/bench/c{number}/blobs/uploads/", b"")
            _, where = _ask(connection, "PATCH", where, blob)
            status, _ = _ask(connection, "PUT", f"{where}{'&' if '?' in where else '?'}digest=sha256:{name}", b"")
            assert status == 201
        connection.close()

    return case.clients * count * case.size, _timed(work, case.clients)


def download(address: str, case: Case) -> tuple[float, float]:
    """Download one blob again and again; MB and seconds."""
    blob = os.urandom(case.size * MB)
    name = f"sha256:{hashlib.sha256(blob).hexdigest()}"
    connection = http.client.HTTPConnection(address, timeout=120)
    _, where = _ask(connection, "POST", "/v2/bench/down/blobs/uploads/", b"")
    _ask(connection, "PUT", f"{where}{'&' if '?' in where else '?'}digest={name}", blob)
    connection.close()
    count = max(1, min(40, 400 // case.size) // case.clients)

    def work(number: int) -> None:
        connection, buffer = http.client.HTTPConnection(address, timeout=120), bytearray(PIECE)
        for _ in range(count):
            connection.request("GET", f"/v2/bench/down/blobs/{name}")
            answer, received = connection.getresponse(), 0
            while size := answer.readinto(buffer):
                received += size
            assert received == case.size * MB
        connection.close()

    return case.clients * count * case.size, _timed(work, case.clients)


def _timed(work: Callable[[int], None], clients: int) -> float:
    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter()
        for done in [pool.submit(work, number) for number in range(clients)]:
            done.result()
        return time.perf_counter() - began


def _ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes) -> tuple[int, str]:
    connection.request(method, path, body, BINARY)
    answer = connection.getresponse()
    answer.read()
    where = answer.headers.get("Location", "")
    return answer.status, where[where.find("/v2/") :] if where else ""


@contextmanager
def _running(name: str) -> Iterator[str]:
    with ExitStack() as undo:
        place = Path(tempfile.mkdtemp(prefix="trivet-bench-registry"))
        undo.callback(shutil.rmtree, place, ignore_errors=True)
        yield undo.enter_context(SERVERS[name](place))


def _process(address: str) -> Path:
    """Find the process that listens at an address."""
    port = int(address.rpartition(":")[2])
    inode = next(
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if f":{port:04X} 00000000" in line
    )
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink().name != f"socket:[{inode}]":
                continue
        except OSError:
            continue
        return link.parents[1]
    raise LookupError(address)


def _peak(process: Path) -> float:
    """Read a process's peak resident memory, in MB."""
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


if __name__ == "__main__":
    main()
