"""`python -m bench.network`: what a bridge carries and how soon names are answered, beside docker, taking turns.

Two idle containers are on a network made for them, each engine in a network namespace of its own. The programs that
measure are Python's, run in the containers' network namespaces, the same for both: one connection for some seconds
from one to the other, and one question after another about the other's name at 127.0.0.11.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.account import Account
from bench.image import MARK, NAME, archive
from bench.namespace import UNIFIED
from bench.peers.docker import DockerCommand
from bench.peers.trivet import BIN

ONE, TWO = "bench-one", "bench-two"
READY = 60.0
GOALS = (("throughput, ratio to docker", "≥", 0.95), ("DNS answer, ms, median", "≤", 1.0))
SINK = """
import socket
server = socket.create_server(("0.0.0.0", 5001))
print("ready", flush=True)
connection, _ = server.accept()
while connection.recv(1 << 20):
    pass
"""
SOURCE = """
import socket, sys, time
client = socket.create_connection((sys.argv[1], 5001), 10)
data, sent, begin = bytes(1 << 20), 0, time.monotonic()
while time.monotonic() - begin < float(sys.argv[2]):
    client.sendall(data)
    sent += len(data)
print(sent / (time.monotonic() - begin))
"""
ASKER = """
import socket, struct, sys, time
name = b"".join(bytes([len(part)]) + part.encode() for part in sys.argv[1].split("."))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
client.connect(("127.0.0.11", 53))
for number in range(int(sys.argv[2])):
    begin = time.perf_counter()
    client.send(struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + name + struct.pack(">BHH", 0, 1, 1))
    answer = client.recv(512)
    assert answer[3] & 15 == 0 and answer[7], answer
    print(time.perf_counter() - begin)
"""


class Pair(NamedTuple):
    """Two containers: the processes whose networks are theirs, and the address of the second."""

    one: int
    two: int
    address: str


@contextmanager
def trivet(directory: Path) -> Iterator[Pair]:
    """A pair of an engine of the bench's own."""
    run = directory / "run"
    words = ["--root", str(directory / "root"), "--run-dir", str(run)]
    command = [str(BIN / "trivet"), "--host", f"unix://{run}/trivet.sock"]
    with ExitStack() as stack:
        stack.callback(subprocess.run, [str(BIN / "trivetd"), *words, "--uninstall"], check=False)
        engine = subprocess.Popen([str(BIN / "trivetd"), *words, "--log-level", "error"])
        stack.callback(engine.wait)
        stack.callback(engine.terminate)
        _until([*command, "version"])
        _ask([*command, "load", "-q", "-i", str(archive())])
        _ask([*command, "network", "create", "bench"])
        for name in (ONE, TWO):
            _ask([*command, "run", "-d", "--name", name, "--network", "bench", NAME, MARK, "idle"])
            stack.callback(_ask, [*command, "rm", "-f", name])
        found = json.loads(_ask([*command, "inspect", ONE, TWO]))
        address = found[1]["networks"][0]["addresses"][0].partition("/")[0]
        yield Pair(found[0]["pid"], found[1]["pid"], address)


@contextmanager
def docker(directory: Path) -> Iterator[Pair]:
    """A pair of a dockerd of the bench's own."""
    peer, account = DockerCommand(), Account("network")
    with ExitStack() as stack:
        stack.callback(account.close)
        stack.callback(peer.close)
        peer.open(account)
        command = ["docker", "--host", peer._host]
        subprocess.run([*command, "network", "rm", "bench"], capture_output=True, check=False)  # an earlier round's
        _ask([*command, "network", "create", "bench"])
        for name in (ONE, TWO):
            _ask([*command, "run", "--detach", "--name", name, "--network", "bench", NAME, MARK, "idle"])
        found = json.loads(_ask([*command, "inspect", ONE, TWO]))
        address = found[1]["NetworkSettings"]["Networks"]["bench"]["IPAddress"]
        yield Pair(found[0]["State"]["Pid"], found[1]["State"]["Pid"], address)


PEERS: dict[str, Callable[[Path], AbstractContextManager[Pair]]] = {"trivet": trivet, "docker": docker}


def main() -> None:
    """Measure and print a table; with --one a single round of one peer, in the network namespace it is in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--one", choices=PEERS)
    args = parser.parse_args()
    if args.one:
        _round(args.one, args.seconds, args.questions)
        return
    rates: dict[str, list[float]] = {name: [] for name in PEERS}
    answers: dict[str, list[float]] = {name: [] for name in PEERS}
    for number in range(args.rounds):
        for name in list(PEERS)[:: 1 if number % 2 else -1]:
            words = ["--one", name, "--seconds", str(args.seconds), "--questions", str(args.questions)]
            inside = f'if mountpoint -q {UNIFIED}; then umount {UNIFIED}; fi; exec "$@"'  # as bench.run does
            hidden = ["unshare", "--net", "--mount", "sh", "-c", inside, "sh"]
            command = [*hidden, sys.executable, "-m", "bench.network", *words]
            found = json.loads(_ask(command).splitlines()[-1])
            rates[name].append(found["rate"])
            answers[name] += found["answers"]
    print(f"{'':8} {'MB/s':>8} {'DNS ms':>8} {'95 %':>8}")
    for name in PEERS:
        ordered = sorted(answers[name])
        print(
            f"{name:8} {median(rates[name]) / 1e6:8.0f} {median(ordered) * 1000:8.3f}"
            f" {ordered[len(ordered) * 95 // 100] * 1000:8.3f}"
        )
    reached = (median(rates["trivet"]) / median(rates["docker"]), median(answers["trivet"]) * 1000)
    for (title, sign, limit), value in zip(GOALS, reached, strict=True):
        met = value >= limit if sign == "≥" else value <= limit
        print(f"{title}: {value:.3g}, goal {sign} {limit:g}, {'yes' if met else 'no'}")


def _round(name: str, seconds: float, questions: int) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    directory = Path(tempfile.mkdtemp(prefix="tbn", dir="/run"))
    try:
        with PEERS[name](directory) as pair:
            _until(_inside(pair.one, ASKER, TWO, "1"))
            answers = [float(line) for line in _ask(_inside(pair.one, ASKER, TWO, str(questions))).split()]
            rate = _rate(pair, seconds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps({"rate": rate, "answers": answers}))


def _rate(pair: Pair, seconds: float) -> float:
    with subprocess.Popen(_inside(pair.two, SINK), stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout
        assert sink.stdout.readline() == "ready\n"
        return float(_ask(_inside(pair.one, SOURCE, pair.address, str(seconds))))


def _inside(pid: int, script: str, *words: str) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", script, *words]


def _until(command: list[str]) -> None:
    end = time.monotonic() + READY
    while subprocess.run(command, capture_output=True, check=False).returncode:
        if time.monotonic() > end:
            raise TimeoutError(f"it never succeeded: {' '.join(command[:4])}")
        time.sleep(0.1)


def _ask(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:6])}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
