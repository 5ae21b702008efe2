"""An OCI runtime's command with a --root and a bundle of busybox: `trivet-runtime`, or another one to compare with."""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("trivet-runtime")
APPLETS = """
sh cat sleep id hostname tty stty true echo ls stat grep touch mkdir chmod mknod dd nice ionice kill mount readlink wc
cut head tail tee date ulimit dnsdomainname ip ping nproc taskset uname dirname basename test printf rm mv cp ln
"""
GROUP = f"trivet-runtime-test-{os.getpid()}"


class Runtime:
    """The command, and the bundle it is given."""

    def __init__(self, command: Path | str, root: Path, bundle: Path) -> None:
        self.command = command
        self.root = root
        self.bundle = bundle
        self.id = f"test-{secrets.token_hex(4)}"

    def __call__(self, *words: str | Path, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a verb to its end."""
        command: list[str | Path] = [self.command, "--root", self.root, *words]
        # Files, not pipes: a container that goes on has them, too, and would hold pipes open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(command, cwd=self.bundle, input=stdin, stdout=out, stderr=err, timeout=60, **options)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, out.read(1 << 20), err.read(1 << 20))

    def json(self, *words: str) -> Any:
        """Run and read the answer."""
        done = self(*words)
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def configure(self, *argv: str, **process: Any) -> None:
        """Write config.json as `spec` does, for this program."""
        self.write(self.example() | {}, list(argv), process)

    def write(self, config: dict[str, Any], argv: list[str], process: dict[str, Any]) -> None:
        """Write a config.json for this program."""
        config["process"] |= {"args": argv, "terminal": False} | process
        (self.bundle / "config.json").write_text(json.dumps(config))

    def change(self, changes: dict[str, Any], *argv: str) -> None:
        """Write config.json as `spec` does, with some parts merged in."""
        config = self.example()
        config["process"] |= {"args": list(argv), "terminal": False}
        (self.bundle / "config.json").write_text(json.dumps(merge(config, changes)))

    def example(self) -> dict[str, Any]:
        """Read what `spec` writes, with a control group of the test's."""
        path = self.bundle / "config.json"
        path.unlink(missing_ok=True)
        assert self("spec").returncode == 0
        config: dict[str, Any] = json.loads(path.read_text())
        config["linux"]["cgroupsPath"] = f"/{GROUP}/{self.id}"
        return config

    def left(self) -> list[Path]:
        """List what containers have left under --root; stored plans are the runtime's own (docs/decisions/0030)."""
        return [path for path in self.root.iterdir() if path.name != "plans@"]

    def until(self, status: str) -> None:
        """Wait for a status."""
        until(lambda: self.json("state", self.id)["status"] == status)

    def clean(self) -> bool:
        """Tell whether nothing of any container is left in --root and in the control groups."""
        return not groups(f"{GROUP}/{self.id}") and self.left() == []


def merge(config: Any, changes: Any) -> Any:
    """Put changes over a configuration: objects are merged, anything else replaced, None removes."""
    if not (isinstance(config, dict) and isinstance(changes, dict)):
        return copy.deepcopy(changes)
    merged = config | {key: merge(config.get(key), value) for key, value in changes.items()}
    return {key: value for key, value in merged.items() if value is not None}


def until(done: Callable[[], object], seconds: float = 10) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def groups(path: str) -> list[Path]:
    """List the directories of a control group: one below every hierarchy of version 1, or the one of version 2."""
    return [place for pattern in (path, f"*/{path}") for place in Path("/sys/fs/cgroup").glob(pattern)]


def bundle(path: Path) -> Path:
    """Make a bundle's root file system: busybox and its links."""
    for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "data"):
        (path / "rootfs" / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", path / "rootfs/bin/busybox")
    for name in APPLETS.split():
        (path / "rootfs/bin" / name).symlink_to("busybox")
    return path


def made(command: Path | str, path: Path) -> Iterator[Runtime]:
    """Give the command with a bundle; whatever is left is deleted."""
    root = Path(tempfile.mkdtemp(prefix="tr-", dir="/run"))
    runtime = Runtime(command, root, bundle(path))
    try:
        yield runtime
    finally:
        for name in runtime("list", "--quiet").stdout.decode().split():
            runtime("delete", "--force", name)
        shutil.rmtree(root)
        for group in groups(GROUP):
            for below in (*group.glob("*/"), group):
                until(lambda below=below: _removed(below))  # type: ignore[misc]


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    """`trivet-runtime` with a bundle of busybox."""
    yield from made(COMMAND, tmp_path)
