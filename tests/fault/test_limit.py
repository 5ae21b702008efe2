"""A writable layer of limited size: full is full, inside and only there; everything else works as without a limit."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon
from tests.fault.conftest import IMAGE

FILL = "dd if=/dev/urandom of=/big bs=1M count=100 2>&1 | grep -o 'No space left'"
KEEP = f"{FILL}; stat -c %s /big; rm /big; echo kept >/kept"


@pytest.fixture(params=["overlay", "erofs", "copy"])
def limiting(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A running engine with a snapshotter of each kind, and an image."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        engine = Daemon(tmp_path / "root", run, f"--snapshotter={request.param}")
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield engine


def _filled(engine: Daemon, *options: str) -> None:
    shown = engine.ok("run", "--name", "one", "--storage-opt", "size=64m", *options, IMAGE, "sh", "-c", KEEP)
    error, written = shown.splitlines()
    assert error == "No space left"
    assert 32 << 20 < int(written) <= 64 << 20


def _mounts(engine: Daemon) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if f"{engine.root}/snapshot/overlay/instance/" in line]


@pytest.mark.parametrize("options", [("--userns", "host"), ("--isolation", "process"), ()], ids=str)
def test_full_is_full(victim: Daemon, options: tuple[str, ...]) -> None:
    """A program gets ENOSPC at the limit, may delete and go on; the limit is shown, and what is removed is gone."""
    _filled(victim, *options)
    assert victim.client.instances.get("one").request.storage_size == 64 << 20
    assert "of 67.1 MB" in victim.ok("ps", "-as")
    victim.ok("rm", "one")
    assert _mounts(victim) == []
    assert list(victim.root.glob("snapshot/overlay/instance/*")) == []


@pytest.mark.vm
def test_full_is_full_in_a_machine(victim: Daemon) -> None:
    """A machine's drive has the size that was asked for."""
    _filled(victim, "--isolation", "vm")


def test_all_else_works(limiting: Daemon) -> None:
    """diff, cp, export and commit see what was written; it outlives the engine and the host's mounts."""
    _filled(limiting)
    assert "A /kept" in limiting.ok("diff", "one").splitlines()
    assert limiting.ok("cp", "one:/kept", "-") != ""
    done = limiting.trivet("export", "one")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        names = archive.getnames()
    assert "kept" in names
    assert not any("lost+found" in name for name in names)
    limiting.ok("commit", "one", "two:1")
    assert limiting.ok("run", "--rm", "two:1", "cat", "/kept") == "kept"
    limiting.ok("run", "-d", "--name", "busy", "--storage-opt", "size=32m", IMAGE, "sh", "-c", "echo 1 >/1; sleep 600")
    limiting.kill()
    for place in _mounts(limiting):
        subprocess.run(["umount", "-l", place], check=True)
    limiting.start()
    assert limiting.ok("exec", "busy", "cat", "/1") == "1"
    assert limiting.ok("start", "-a", "one").splitlines()[0] == "No space left"
    limiting.ok("rm", "-f", "busy", "one")
    assert limiting.client.system.check() == []


def test_wrong_limits_are_refused(victim: Daemon) -> None:
    """What can't be a limit is named, and nothing is left."""
    for words, complaint in (
        (("size=1m",), "16 MiB at least"),
        (("inodes=5",), "known is size="),
        (("size=x",), "size"),
    ):
        done = victim.trivet("create", "--storage-opt", *words, IMAGE)
        assert done.returncode != 0
        assert complaint in done.stderr.decode()
    assert victim.client.instances.list(all=True) == []
    assert list(victim.root.glob("snapshot/overlay/instance/*")) == []
