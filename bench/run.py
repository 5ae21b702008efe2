"""`make bench`: trivet at its three levels beside docker, podman, runc and crun, in one run, taking turns.

docs/bench.md tells how to read the tables. `make bench ARGS=--quick` is a smoke test.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from compileall import compile_dir
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trivet
from bench import application, build, crowd, harness, namespace, pull, report
from bench.contestant import Contestant
from bench.peers.docker import DockerApi, DockerCommand
from bench.peers.oci import Runtime
from bench.peers.peer import Peer
from bench.peers.podman import Podman
from bench.peers.trivet import BIN, TrivetApi, TrivetCommand
from bench.peers.trivet_container import TrivetContainer

LOCK = Path("/run/trivet-bench.lock")
APPLICATIONS = 8  # rounds of what takes seconds
MEASURES = ("run", "exec", "stop", "memory", "bridge", "application", "crowd", "pull", "build")


def peers() -> list[Peer]:
    """Name everybody who can be measured."""
    return [
        TrivetApi("process"),
        TrivetContainer(users=True),
        TrivetContainer(users=False),
        TrivetApi("vm"),
        TrivetCommand("process"),
        TrivetCommand("container"),
        TrivetCommand("vm"),
        DockerApi(),
        DockerCommand(),
        Podman(),
        *(Runtime("trivet-runtime", BIN / "trivet-runtime", users=users) for users in (True, False)),
        *(Runtime("crun", "crun", users=users) for users in (True, False)),
        *(Runtime("runc", "runc", users=users) for users in (True, False)),
    ]


def main(words: Sequence[str] | None = None) -> int:
    """Measure and report; returns the exit status."""
    words = sys.argv[1:] if words is None else words
    arguments = parse(words)
    if os.geteuid():
        print("bench: it starts containers and machines: run it as root", file=sys.stderr)
        return 1
    namespace.enter(list(words))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return compare(arguments, _teller())
    except KeyboardInterrupt:
        print("\nbench: stopped", file=sys.stderr)
        return 130


def compare(arguments: argparse.Namespace, tell: harness.Tell) -> int:
    """Let everybody get ready, take turns and leave; prints the tables."""
    compile_dir(trivet.__path__[0], quiet=1)  # as an installer does; PYTHONDONTWRITEBYTECODE would prevent it
    before = report.host()
    with ExitStack() as stack:
        stack.enter_context(alone(tell))
        contestants = []
        for peer in chosen(arguments.peers):
            tell(f"making ready: {peer.name}")
            contestants.append(Contestant(peer))
            stack.callback(contestants[-1].close)
            contestants[-1].open()
        if "run" in arguments.measures:
            harness.measure_runs(contestants, arguments.rounds, tell)
        if "exec" in arguments.measures:
            harness.measure_execs(contestants, arguments.rounds, tell)
        if "stop" in arguments.measures:
            harness.measure_stops(contestants, arguments.rounds, tell)
        if "bridge" in arguments.measures:
            harness.measure_bridged(contestants, arguments.rounds, tell)
        if "application" in arguments.measures:
            application.measure(contestants, min(arguments.rounds, APPLICATIONS), tell)
        if "memory" in arguments.measures:
            harness.measure_memory(contestants, arguments.instances, tell)
        if "crowd" in arguments.measures:
            for one in contestants:
                crowd.measure(one, arguments.crowd, tell)
        tell("cleaning up")
    tell("")
    results = [one.result for one in contestants]
    print(report.text(results))
    if "pull" in arguments.measures and not arguments.quick:
        pull.main(min(arguments.rounds, pull.ROUNDS))
    if "build" in arguments.measures and not arguments.quick:
        build.main(min(arguments.rounds, build.ROUNDS))
    print(f"Everything, samples included: {report.write(results, arguments.rounds, before, arguments.output)}")
    return 0 if any(one.present for one in contestants) else 1


@contextmanager
def alone(tell: harness.Tell) -> Iterator[None]:
    """Wait until no other bench runs on this machine: both would measure each other."""
    with LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another bench to end")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure trivet beside others.")
    parser.add_argument("--rounds", type=int, default=30, help="samples of each peer (default: 30)")
    parser.add_argument("--instances", type=int, default=20, help="idle instances for memory (default: 20)")
    parser.add_argument("--crowd", type=int, default=100, help="idle containers for crowd (default: 100)")
    parser.add_argument("--peers", default="", help="only those whose names contain one of these words: crun,container")
    parser.add_argument("--measures", type=_measures, default=MEASURES, help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--output", type=Path, help="file for the results (default: bench/results/DATE.json)")
    parser.add_argument("--quick", action="store_true", help="one sample of everything, few idle instances")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.rounds, arguments.instances, arguments.crowd = 1, 2, 4
    return arguments


def chosen(words: str) -> list[Peer]:
    """Pick the peers asked for."""
    wanted = [word for word in words.split(",") if word]
    return [peer for peer in peers() if not wanted or any(word in peer.name for word in wanted)]


def _measures(text: str) -> tuple[str, ...]:
    unknown = set(text.split(",")) - set(MEASURES)
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return tuple(text.split(","))


def _teller() -> harness.Tell:
    """Show what is going on: one line that changes on a terminal, a line per part elsewhere."""
    parts: set[str] = set()

    def tell(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif text and (part := text.partition(", round")[0]) not in parts:
            parts.add(part)
            print(part, file=sys.stderr, flush=True)

    return tell


if __name__ == "__main__":
    sys.exit(main())
