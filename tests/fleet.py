"""Hosts of a network: namespaces that stand for machines, each with an engine of its own.

                 ┌ fabric ──────── fab0 10.77.0.1/24 (a bridge) ┐
    host 2 ── eth0 10.77.0.2                    10.77.0.3 eth0 ── host 3

Nothing of the machine's own network is touched, and everything ends with the processes that hold the namespaces.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.busybox import busybox_tar
from tests.conftest import Daemon

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

    def ip(self, words: str) -> str:
        """Run `ip`."""
        return self.run("ip", *words.split())

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
        """Add a store for all hosts."""
        store = Store(self.fabric, self._directory / "etcd")
        self._stack.callback(store.kill)
        store.start()
        return store

    def host(self, number: int, *options: str) -> Host:
        """Add a host with a running engine that knows the image busybox:test."""
        place = Place(self._stack)
        self.fabric.ip(f"link add host{number} type veth peer name eth0 netns {place.words[2]}")
        self.fabric.ip(f"link set host{number} master fab0 up")
        place.ip(f"addr add 10.77.0.{number}/24 dev eth0")
        place.ip("link set eth0 up")
        place.ip("route add default via 10.77.0.1")
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        self._stack.callback(shutil.rmtree, run, True)
        host = Host(place, f"10.77.0.{number}", self._directory / f"host{number}", run, *options)
        self._stack.callback(host.clean)
        host.start()
        host.ok("import", "-q", "-c", 'CMD ["sh"]', "-", "busybox:test", input=busybox_tar())
        return host


class Store:
    """An etcd of one member in the fabric, which keeps its data when it is killed."""

    URL = "http://10.77.0.1:{}"

    def __init__(self, place: Place, directory: Path) -> None:
        self._place, self._directory = place, directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What an engine is told."""
        return "etcd://10.77.0.1:2379"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        client, peer = (self.URL.format(port) for port in (2379, 2380))
        words = [
            *("etcd", "--data-dir", str(self._directory), "--name", "one", "--log-level", "error"),
            *("--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer),
            *("--initial-advertise-peer-urls", peer, "--initial-cluster", f"one={peer}"),
        ]
        with (self._directory.parent / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen([*self._place.words, *words], stdout=log, stderr=log)
        eventually(lambda: '"revision"' in self.ask("/v3/kv/range", '{"key":"YQ=="}'))

    def ask(self, path: str, body: str) -> str:
        """Speak to it."""
        ask = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], sys.argv[2].encode(), 5).read().decode())"
        return self._place.run(sys.executable, "-c", ask, self.URL.format(2379) + path, body, check=False)

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


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
