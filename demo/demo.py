"""`make demo`: one image, a guest book on PostgreSQL, as a process, a container and a virtual machine.

What happens is done by the commands that are printed; they can be typed by hand just as well. With `--keep` the
engine and the three instances go on running.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench import memory

from demo import visitor
from demo.engine import engine
from demo.observation import Observation, observe, table
from demo.step import Failure, Waiting, headline, note, show, trivet, trivet_aloud, width
from trivet.base.error import TrivetError
from trivet.client.client import Client
from trivet.client.schema import Instance

SOURCE = "bootstrap:debian/bookworm"
BASE = "debian:bookworm"  # the name the engine gives it
IMAGE = "guestbook"
LEVELS = ("process", "container", "vm")
NAMES = tuple(f"demo-{level}" for level in LEVELS)
PATIENCE = 300.0  # seconds for the first answer; an emulated machine on a busy host is slow
COUNT = "select count(*) from entry"

EXPLANATION = """
 start to first answer      from `trivet run` to the first HTTP answer at the published port
 memory beyond the service  what the host runs for the instance besides the service's own processes
                            (PSS, nothing inside the kernel); the engine, which serves all
                            instances, takes {engine:.0f} MB besides"""


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="demo", description="One image, three isolation levels.")
    parser.add_argument("--keep", action="store_true", help="leave the engine and the instances running")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        if os.geteuid():
            raise Failure("it makes namespaces, networks and cgroups: run it as root")
        headline("trivet: one image, three isolation levels")
        with engine(keep=keep) as client:
            make_images(client)
            compare(client, keep=keep)
    except (Failure, TrivetError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", file=sys.stderr)
        return 130
    note(f"all of it took {time.monotonic() - began:.1f} s.")
    return 0


def make_images(client: Client) -> None:
    """Make the base image unless it is there, and build the service on it; the build has a cache of its own."""
    headline("A Debian base image, made from this machine's own mirror")
    if any(name == BASE for image in client.images.list() for name in image.names):
        note(f"{BASE} is there already")
    else:
        trivet_aloud("pull", SOURCE, wanted="bootstrap")
    headline("A guest book on it: PostgreSQL and a small web application, from demo/guestbook/Dockerfile")
    trivet_aloud("build", "-t", IMAGE, "demo/guestbook", wanted="[")


def compare(client: Client, *, keep: bool) -> None:
    """Run the image at every level, and print what was seen."""
    remove_leftovers(client)
    with instances(client, keep=keep):
        headline("The same line three times, but for the isolation level")
        seen = [run(client, level) for level in LEVELS]
        headline("Side by side")
        print(table(seen, width=width()), end="")
        print(EXPLANATION.format(engine=memory.proportional(client.system.info().pid) / 1e6))


def run(client: Client, level: str) -> Observation:
    """Start the guest book at one level, visit it, and look at it from inside and outside."""
    name = f"demo-{level}"
    began = time.monotonic()
    trivet(
        *("run", "-d", "--name", name, "--isolation", level, "-m", "512m"),
        *("-p", "127.0.0.1::18080", "-v", f"{name}:/var/lib/guestbook", IMAGE),
    )
    port = client.instances.get(name).ports[0].host_port
    with Waiting(f"{name}: waiting for its first answer"):
        visitor.wait_for_answer(port, PATIENCE, lambda: check_alive(client, name))
    first_answer = time.monotonic() - began
    with Waiting(f"{name}: writing and reading"):
        book = visitor.sign(port)
        note(f"http://127.0.0.1:{port} answers; wrote {len(visitor.ENTRIES)} entries, read {len(book)}")
    counted = trivet("exec", name, "psql", "-tAc", COUNT).strip()
    note(f"PostgreSQL counts {counted}")
    if counted != str(len(book)):
        raise Failure(f"{name}: the guest book showed {len(book)} entries, but PostgreSQL counts {counted}")
    return observe(client.instances.get(name), client.system.info(), first_answer, log_of(client, name))


def check_alive(client: Client, name: str) -> None:
    """Raise `Failure` with the last lines of its log when an instance has ended."""
    instance = client.instances.get(name)
    if instance.status != "running":
        reason = instance.error or f"exit code {instance.exit_code}"
        last = log_of(client, name).strip().splitlines()[-1:]
        raise Failure(f"{name} is {instance.status} ({reason}); its last words: {''.join(last) or 'none'}")


def log_of(client: Client, name: str) -> str:
    """Read what the service has printed."""
    return b"".join(output.data for output in client.instances.logs(name)).decode(errors="replace")


@contextmanager
def instances(client: Client, *, keep: bool) -> Iterator[None]:
    """Take the instances away in the end, whatever happens; images and volumes stay for the next time."""
    try:
        yield
        if keep:
            headline("They go on running. To end them:")
            show("trivet", "rm", "-f", *NAMES)
            return
        headline("Enough; images and volumes stay for the next time")
        trivet("stop", *NAMES)
        for instance in map(client.instances.get, NAMES):
            note(f"{instance.name} ended with status {instance.exit_code}")
        trivet("rm", *NAMES)
    finally:
        if not keep:
            remove_leftovers(client)


def remove_leftovers(client: Client) -> None:
    """Remove instances of ours, be they running: a demo that was broken off may have left them."""
    for instance in _ours(client):
        client.instances.remove(instance.id, force=True)


def _ours(client: Client) -> list[Instance]:
    return [instance for instance in client.instances.list(all=True) if instance.name in NAMES]


if __name__ == "__main__":
    sys.exit(main())
