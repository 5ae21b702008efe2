"""Hosts of a network: namespaces that stand for machines, each with an engine of its own.

                 ┌ fabric ──────── fab0 10.77.0.1/24 (a bridge) ┐
    host 2 ── eth0 10.77.0.2                    10.77.0.3 eth0 ── host 3

Nothing of the machine's own network is touched, and everything ends with the processes that hold the namespaces.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.store import Authority, Store

# /sys of the namespace, with the machine's control groups in it.
_HOLD = """
set -e
mount --make-rprivate /
mount -t sysfs sysfs "$1"
mount --rbind /sys/fs/cgroup "$1/fs/cgroup"
mount --move "$1" /sys
ip link set lo up
echo ready
exec sleep infinity
"""


class Place:
    """A network namespace with its own /sys, kept by a process."""

    def __init__(self, stack: ExitStack) -> None:
        directory = tempfile.mkdtemp(prefix="tv", dir="/tmp")
        stack.callback(shutil.rmtree, directory, True)
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", _HOLD, "sh", directory], stdout=subprocess.PIPE
        )
        stack.callback(self._end)
        assert self._holder.stdout
        assert self._holder.stdout.readline() == b"ready\n"

    @property
    def words(self) -> tuple[str, ...]:
        """What a command line begins with to run there."""
        return ("nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--")

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command there; what it printed."""
        done = subprocess.run([*self.words, *words], capture_output=True, text=True, check=False, timeout=60)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def ip(self, words: str, check: bool = True) -> str:
        """Run `ip`."""
        return self.run("ip", *words.split(), check=check)

    def _end(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Fleet:
    """A fabric and its hosts."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self.fabric = Place(stack)
        self.fabric.ip("link add fab0 type bridge")
        self.fabric.ip("addr add 10.77.0.1/24 dev fab0")
        self.fabric.ip("link set fab0 up")

    def store(self) -> Store:
        """Add a store for all hosts, of one member in the fabric."""
        store = Store(self._directory / "etcd", [(self.fabric, "10.77.0.1")])
        self._stack.callback(store.kill)
        store.start()
        eventually(lambda: '"revision"' in store.ask("/v3/kv/range", '{"key":"YQ=="}'))
        return store

    def cluster(self) -> Store:
        """Add a store for all hosts, of three members on machines of their own, which want certificates."""
        places = [(self._place(number), f"10.77.0.{number}") for number in (11, 12, 13)]
        store = Store(self._directory / "etcd", places, Authority(self._directory / "authority"))
        self._stack.callback(store.kill)
        store.start()
        return store

    def stranger(self) -> tuple[Path, Path]:
        """Make a certificate that no store of ours knows the authority of, and its key."""
        return Authority(self._directory / "others").sign("stranger")

    def host(self, number: int, *options: str) -> Host:
        """Add a host with a running engine that knows the image busybox:test."""
        place = self._place(number)
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        self._stack.callback(shutil.rmtree, run, True)
        host = Host(place, f"10.77.0.{number}", self._directory / f"host{number}", run, *options)
        self._stack.callback(host.clean)
        host.start()
        host.ok("import", "-q", "-c", 'CMD ["sh"]', "-", "busybox:test", input=busybox_tar())
        return host

    def _place(self, number: int) -> Place:
        """Add a machine on the fabric."""
        place = Place(self._stack)
        self.fabric.ip(f"link add host{number} type veth peer name eth0 netns {place.words[2]}")
        self.fabric.ip(f"link set host{number} master fab0 up")
        place.ip(f"addr add 10.77.0.{number}/24 dev eth0")
        place.ip("link set eth0 up")
        place.ip("route add default via 10.77.0.1")
        return place


def eventually(happened: Callable[[], bool], patience: float = 30) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + patience
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


class Host(Daemon):
    """An engine in a namespace."""

    def __init__(self, place: Place, address: str, root: Path, run: Path, *options: str) -> None:
        super().__init__(root, run, *options)
        self.prefix = place.words
        self.place = place
        self.at = address

    def sh(self, name: str, script: str) -> str:
        """Run a shell in an instance; what it printed, also when it failed."""
        done = self.trivet("exec", name, "sh", "-c", script)
        return (done.stdout + done.stderr).decode().strip()


@contextmanager
def fleet(directory: Path) -> Iterator[Fleet]:
    """A fabric without hosts."""
    with ExitStack() as stack:
        yield Fleet(stack, directory)
