"""`python -m bench.reproduce`: thirty Dockerfiles, built in two surroundings that have nothing in common; same digest?

    here                                   there
    today                                  500 days later (faketime)
    data on a disk                         data in memory: other order of directory entries
    files written in order, one date       in reverse order, other dates, other inodes
    umask 022, UTC, C, one processor       umask 077, Kiritimati, German, all processors, another host name

Base images are made once and carried over as an archive. `--quick` leaves out those that need Debian's tools.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.dockerfiles import LARGE, SMALL, Case, Files

BIN = Path(sys.executable).parent
APPLETS = ("sh", "cat", "echo", "ls", "id", "mkdir", "rm", "ln", "chmod", "stat", "env", "pwd", "touch", "hostname")
DATE = 1_600_000_000


class Surroundings(NamedTuple):
    """What differs between two places."""

    name: str
    directory: Path
    prefix: tuple[str, ...]
    env: dict[str, str]
    umask: int
    backwards: bool
    mtime: int


HERE = Surroundings(
    name="here",
    directory=Path(tempfile.gettempdir()),
    prefix=("taskset", "-c", "0"),
    env={"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "0"},
    umask=0o022,
    backwards=False,
    mtime=DATE,
)
THERE = Surroundings(
    name="there",
    directory=Path("/dev/shm"),
    prefix=("unshare", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh", "faketime", "-f", "+500d"),
    env={"TZ": "Pacific/Kiritimati", "LC_ALL": "de_DE.UTF-8", "PYTHONHASHSEED": "4711", "HOME": "/nonexistent"},
    umask=0o077,
    backwards=True,
    mtime=DATE + 12_345_678,
)


class Place:
    """An engine in its surroundings."""

    def __init__(self, around: Surroundings, directory: Path) -> None:
        self._around = around
        self.directory = directory
        self.address = f"unix://{directory}/run/s"
        self.env = {**os.environ, **around.env, "TRIVET_HOST": self.address}

    def command(self, *words: str | Path, prefix: bool = False) -> list[str]:
        """Put the surroundings in front of a command."""
        return [*(self._around.prefix if prefix else ()), *map(str, words)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the engine."""
        places = [f"--root={self.directory}/root", f"--run-dir={self.directory}/run"]
        command = self.command(BIN / "trivetd", *places, f"--listen={self.address}", prefix=True)
        with (self.directory / "log").open("wb") as log:
            engine = subprocess.Popen(
                command, env=self.env, stdout=log, stderr=log, umask=self._around.umask, start_new_session=True
            )
        try:
            self._wait(engine)
            yield
        finally:
            os.killpg(engine.pid, signal.SIGTERM)  # faketime is a parent of its command
            engine.wait(20)
            self._wait_end()
            subprocess.run([BIN / "trivetd", *places, "--uninstall"], env=self.env, check=True)

    def _wait(self, engine: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 30
        while not (self.directory / "run/s").exists():
            if engine.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.02)

    def _wait_end(self) -> None:
        deadline = time.monotonic() + 20
        while (self.directory / "run/s").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def trivet(self, *words: str | Path) -> str:
        """Run the command; its output."""
        done = subprocess.run(
            self.command(BIN / "trivet", *words), env=self.env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr[-2000:]}")
        return done.stdout.strip()

    def build(self, case: Case, base: str) -> str:
        """Build a case from files of its own; return the digest of the image's manifest."""
        context = self.directory / "context" / case.name
        write_files(
            context, {**case.files, "Dockerfile": case.dockerfile.replace("FROM @", f"FROM {base}")}, self._around
        )
        told = self.directory / "metadata"
        self.trivet(
            "build", "-q", "--no-cache", "--network=none", f"--metadata-file={told}", f"-t={case.name}", context
        )
        return str(json.loads(told.read_text())["containerimage.digest"])


def write_files(directory: Path, files: Files, around: Surroundings) -> None:
    """Write files in the order and with the times of a place; their modes are part of the input."""
    directory.mkdir(parents=True)
    names = sorted(files, reverse=around.backwards)
    for number, name in enumerate(names):
        path, content = directory / name.rstrip("/"), files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif content.startswith("->"):
            path.symlink_to(content.removeprefix("->"))
        else:
            path.write_text(content)
            path.chmod(0o644)
        os.utime(path, (around.mtime + number, around.mtime + number), follow_symlinks=False)
    for path in (directory, *directory.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


def make_small_base(place: Place) -> Path:
    """Make an image of busybox; return its archive."""
    context = place.directory / "base"
    users = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/:/bin/sh\n"
    write_files(context, {"passwd": users, "group": "root:x:0:\napp:x:1001:\nwheel:x:10:app\n", "tmp/": ""}, HERE)
    (context / "bin").mkdir()
    shutil.copy("/bin/busybox", context / "bin/busybox")
    for name in APPLETS:
        (context / "bin" / name).symlink_to("busybox")
    text = "FROM scratch\nCOPY bin /bin\nCOPY passwd group /etc/\nCOPY tmp /tmp\nENV PATH=/bin\n"
    (context / "Dockerfile").write_text(text)
    place.trivet("build", "-q", f"--timestamp={DATE}", "-t=small", context)
    return save(place, "small")


def save(place: Place, name: str) -> Path:
    """Save an image to an archive."""
    archive = place.directory / f"{name.replace(':', '-')}.tar"
    place.trivet("save", "-o", archive, name)
    return archive


def compare(cases: Sequence[tuple[Case, str]], here: Place, there: Place) -> int:
    """Build everything twice and print what came out; the number of those that differ."""
    different = 0
    for case, base in cases:
        one, two = here.build(case, base), there.build(case, base)
        different += one != two
        verdict = "same" if one == two else f"DIFFERENT: {two[7:19]}"
        print(f" {case.name:18} {one[7:19]}  {verdict}", flush=True)
    return different


def main(words: Sequence[str] | None = None) -> int:
    """Build all cases in two places; 0 if each gave the same digest in both."""
    parser = argparse.ArgumentParser(description="build thirty Dockerfiles in two surroundings; same digest?")
    parser.add_argument("--quick", action="store_true", help="only those that need nothing but busybox")
    arguments = parser.parse_args(words)
    if missing := [name for name in ("faketime", "taskset", "unshare", "busybox") if shutil.which(name) is None]:
        print(f"reproduce: needs {', '.join(missing)}", file=sys.stderr)
        return 1
    with ExitStack() as undo:
        places = []
        for around in (HERE, THERE):
            directory = Path(tempfile.mkdtemp(prefix=f"tr-{around.name}-", dir=around.directory))
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            (directory / "run").mkdir()
            places.append(Place(around, directory))
            undo.enter_context(places[-1].running())
        here, there = places
        cases = [(case, "small") for case in SMALL]
        there.trivet("load", "-i", make_small_base(here))
        if not arguments.quick:
            here.trivet("pull", "bootstrap:debian/bookworm")
            there.trivet("load", "-i", save(here, "debian:bookworm"))
            cases += [(case, "debian:bookworm") for case in LARGE]
        different = compare(cases, here, there)
    print(f"{len(cases) - different} of {len(cases)} the same")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
