"""A full disk: one sentence naming the file or object, nothing half-made, and all goes on when there is room again."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import BIN, Daemon
from tests.fault.conftest import IMAGE

SIZE = 24 << 20


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Daemon]:
    """An engine whose root is a file system of 24 MiB."""
    with ExitStack() as undo:
        run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
        undo.callback(shutil.rmtree, run, True)
        root = tmp_path / "root"
        root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "trivet-test", root], check=True)
        undo.callback(_unmount, root)
        engine = Daemon(root, run)
        undo.callback(engine.clean)
        engine.start()
        engine.ok("import", "-q", "-c", 'CMD ["sh"]', "-", IMAGE, input=busybox_tar())
        yield engine


def _unmount(path: Path) -> None:
    subprocess.run(["umount", "-l", path], check=True)


def _files(root: Path) -> set[Path]:
    """List what takes space, except the records, which may grow."""
    return {path for path in root.rglob("*") if path.is_file() and not path.name.startswith("record.db")}


def _incompressible(size: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        entry = tarfile.TarInfo("noise")
        entry.size = size
        tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return output.getvalue()


@pytest.mark.parametrize("size", [SIZE // 2, 2 * SIZE], ids=["while storing", "while receiving"])
def test_an_image_that_does_not_fit_leaves_nothing(cramped: Daemon, size: int) -> None:
    """It fails with exit code 1 and one sentence, and the space is free again."""
    before = _files(cramped.root)
    done = cramped.trivet("import", "-q", "-", "big:1", input=_incompressible(size))
    complaint = done.stderr.decode()
    assert done.returncode == 1, complaint
    assert "no space left" in complaint
    assert "Traceback" not in complaint
    assert _files(cramped.root) == before
    assert cramped.ok("run", "--rm", IMAGE, "echo", "fine") == "fine"


def test_a_full_disk_stops_neither_the_program_nor_its_output(cramped: Daemon) -> None:
    """Output that can't be logged is still delivered; the exit code is kept."""
    script = "dd if=/dev/urandom of=/filler bs=1M count=100 2>/dev/null; seq 1 5000; exit 3"
    done = cramped.trivet("run", "--name", "full", IMAGE, "sh", "-c", script)
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines()[-1] == b"5000"
    cramped.ok("rm", "full")
    assert cramped.ok("run", "--rm", IMAGE, "echo", "fine") == "fine"


@pytest.mark.vm
def test_a_machine_waits_for_room_on_the_hosts_disk(cramped: Daemon) -> None:
    """It stands still instead of losing data, says why, and goes on when there is room and somebody says so."""
    cramped.ok("run", "-d", "--isolation", "vm", "--name", "full", IMAGE, "sh", "-c", "sleep 600")
    words = ["exec", "full", "sh", "-c", "dd if=/dev/urandom of=/filler bs=1M count=40 && sync && wc -c < /filler"]
    environment = {**os.environ, "TRIVET_HOST": cramped.address}
    command = [str(BIN / "trivet"), *words]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as writing:
        deadline = time.monotonic() + 60
        while (found := cramped.client.instances.get("full")).status != "paused":
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        assert found.error.startswith("no space left on the host's disk for ")
        subprocess.run(["mount", "-o", "remount,size=200m", cramped.root], check=True)
        cramped.ok("unpause", "full")
        output, _ = writing.communicate(timeout=60)
    assert output.strip() == str(40 << 20).encode()
    found = cramped.client.instances.get("full")
    assert (found.status, found.error) == ("running", "")
