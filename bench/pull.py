"""Pull and unpack a large image, trivet and docker beside one another: `python -m bench.pull`.

An image of about 500 MB in 30 000 files and five layers lies in a registry on this machine. Each contestant begins
with an empty store: the time until `pull` has ended, until a first program of the image has run, the CPU time of
command, daemon and kernel for both, and the most disk that was taken beyond what stays. Contestants take turns.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median

from bench.account import Account
from bench.table import draw

FILES, LAYERS, ROUNDS = 30_000, 5, 3
BIN = Path(sys.executable).parent
NAME = "bench/large:1"
Row = tuple[float, float, float, float]
"""Seconds until pulled, until a program has run, of CPU time for both; MB taken for a while beyond what stays."""


def layer(number: int) -> bytes:
    """Make a layer's tar: directories of files with half-compressible content, and busybox in the first one."""
    pick = random.Random(number)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if number == 0:
            busybox = shutil.which("busybox")
            assert busybox, "apt-get install busybox-static"
            info = archive.gettarinfo(busybox, "bin/true")
            archive.addfile(info, io.BytesIO(Path(busybox).read_bytes()))
        for index in range(FILES // LAYERS):
            size = int(pick.lognormvariate(8.77, 1.35))
            info = tarfile.TarInfo(f"data/{number}/{index % 100}/file-{index}")
            info.size = min(size, 4 << 20)
            half = pick.randbytes(info.size // 3 + 1)
            archive.addfile(info, io.BytesIO((half + b"lorem ipsum dolor sit " * (info.size // 22 + 1))[: info.size]))
    return buffer.getvalue()


def run(*words: str | Path, env: dict[str, str] | None = None, input: bytes | None = None) -> bytes:
    """Run a program that must succeed."""
    return subprocess.run(
        words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, input=input, timeout=600, env=env
    ).stdout


def taken(directory: Path) -> int:
    """Tell what a file system has in use."""
    state = os.statvfs(directory)
    return (state.f_blocks - state.f_bfree) * state.f_frsize


@contextmanager
def disk(place: Path) -> Iterator[Path]:
    """Mount an ext4 file system of one's own, so that what is taken can be told and nobody's deletions slow it down."""
    image, point = place / "disk.img", place / "disk"
    point.mkdir(parents=True)
    run("truncate", "-s", "6G", image)
    run("mke2fs", "-q", "-t", "ext4", "-F", "-E", "lazy_itable_init=1,nodiscard", image)
    run("mount", "-o", "loop", image, point)
    try:
        yield point
    finally:
        for _ in range(50):
            if subprocess.run(["umount", point], stderr=subprocess.DEVNULL).returncode == 0:
                break
            time.sleep(0.1)
        else:  # somebody's new mount namespace has a copy of a layer's mount
            run("umount", "--lazy", point)
        image.unlink()


@contextmanager
def trivet(place: Path, kind: str) -> Iterator[list[str]]:
    """Run an engine; yield the command that talks to it."""
    run_dir = Path(tempfile.mkdtemp(prefix="tb", dir="/tmp"))
    words = [f"--root={place}/root", f"--run-dir={run_dir}", "--docker-listen=none", f"--snapshotter={kind}"]
    engine = subprocess.Popen([BIN / "trivetd", *words], stderr=subprocess.DEVNULL)
    command = [str(BIN / "trivet"), "--host", f"unix://{run_dir}/trivet.sock"]
    try:
        _wait(lambda: (run_dir / "trivet.sock").exists())
        yield command
    finally:
        engine.terminate()
        engine.wait(20)
        run(BIN / "trivetd", *words, "--uninstall")
        shutil.rmtree(run_dir, ignore_errors=True)


@contextmanager
def docker(place: Path) -> Iterator[list[str]]:
    """Run a dockerd of one's own; yield the command that talks to it."""
    socket = f"unix://{place}/docker.sock"
    options = ["--data-root", f"{place}/data", "--exec-root", f"{place}/exec", "-p", f"{place}/pid", "-H", socket]
    daemon = subprocess.Popen(
        ["dockerd", *options, "--iptables=false", "--bridge=none"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    command = ["docker", "-H", socket]
    try:
        _wait(lambda: subprocess.run([*command, "version"], capture_output=True).returncode == 0)
        yield command
    finally:
        daemon.terminate()
        daemon.wait(30)


@contextmanager
def accounting(name: str) -> Iterator[Account]:
    """Count the CPU time of what is started meanwhile."""
    account = Account(name)
    account.enter()
    try:
        yield account
    finally:
        account.close()


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.1)


def measure(command: list[str], reference: str, disk_of: Path, account: Account) -> Row:
    """Pull and run; see `Row`."""
    peak, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], taken(disk_of))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin, cpu = time.monotonic(), account.cpu()
    run(*command, "pull", "-q", reference)
    pulled = time.monotonic() - begin
    run(*command, "run", "--rm", "--network", "none", reference, "/bin/true")
    first, cpu = time.monotonic() - begin, account.cpu() - cpu
    ended.set()
    watcher.join()
    os.sync()
    return pulled, first, cpu, max(peak[0] - taken(disk_of), 0) / 1e6


def main(rounds: int = ROUNDS) -> None:
    """Make the image, measure, print a table."""
    contestants: dict[str, Callable[[Path], AbstractContextManager[list[str]]]] = {
        "trivet, overlay": lambda place: trivet(place, "overlay"),
        "trivet, erofs": lambda place: trivet(place, "erofs"),
    }
    if shutil.which("dockerd"):
        contestants["docker"] = docker
    found: dict[str, list[Row]] = {name: [] for name in contestants}
    with ExitStack() as undo:
        place = Path(undo.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp")))
        words = ["registry", "serve", "--root", f"{place}/registry", "--listen", "127.0.0.1:0"]
        registry = subprocess.Popen([BIN / "trivet", *words], stdout=subprocess.PIPE)
        undo.callback(registry.wait)
        undo.callback(registry.terminate)
        assert registry.stdout is not None
        reference = f"{registry.stdout.readline().decode().split()[-1]}/{NAME}"
        size = publish(place, reference)
        print(f"Pull: {size / 1e6:.0f} MB in {FILES} files and {LAYERS} layers", flush=True)
        for number in range(rounds):
            order = list(contestants)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                home = place / f"{name.replace(', ', '-')}-{number}"
                with disk(home) as store, accounting("pull") as account, contestants[name](store) as command:
                    found[name].append(measure(command, reference, store, account))
                figures = " ".join(f"{value:.2f}" for value in found[name][-1])
                print(f"{name}: {figures}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    print(report(found))


def publish(place: Path, reference: str) -> int:
    """Build the image and push it; return its unpacked size."""
    size = 0
    context = place / "context"
    context.mkdir()
    lines = ["FROM scratch"]
    for number in range(LAYERS):
        data = layer(number)
        size += len(data)
        (context / f"{number}.tar").write_bytes(data)
        lines.append(f"ADD {number}.tar /")
    (context / "Dockerfile").write_text("\n".join(lines) + "\n")
    with trivet(place / "maker", "overlay") as command:
        run(*command, "build", "-q", "-t", reference, context)
        run(*command, "push", "-q", reference)
    shutil.rmtree(context)
    return size


def report(found: dict[str, list[Row]]) -> str:
    """Lay out medians with the worst of twenty, and how many times less than docker's they are."""
    base = [median(column) for column in zip(*found["docker"], strict=True)] if "docker" in found else []
    rows = []
    for name, measured in found.items():
        cells = [name]
        for number, column in enumerate(zip(*measured, strict=True)):
            unit = "MB" if number == 3 else "s"
            times = f" ×{base[number] / median(column):.1f}" if base and number < 3 else ""
            cells.append(f"{median(column):.1f} ({worst(column):.1f}) {unit}{times}")
        rows.append(cells)
    head = ["median (95 %), times less than docker", "pulled", "first program has run", "CPU", "disk beyond"]
    return draw(head, rows, width=120, right=True)


def worst(column: Sequence[float]) -> float:
    """Find the 95th percentile."""
    return sorted(column)[max(-(-len(column) * 95 // 100) - 1, 0)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench.pull")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    main(parser.parse_args().rounds)
