"""Disk images and engines that die in the middle of them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from tests.conftest import Daemon
from tests.image.test_disk import MIB, make_raw

pytestmark = pytest.mark.needs("root", "qemu-img")


def names(directory: Path) -> list[str]:
    """List what is in a directory, if it is there."""
    return sorted(each.name for each in directory.glob("*"))


@pytest.mark.parametrize("after", [0.05, 0.3, 0.8, 1.5])
def test_a_killed_import_leaves_nothing(victim: Daemon, tmp_path: Path, after: float) -> None:
    """Whenever the engine dies during an import, the next one has no half image, no scratch files, and can do it."""
    raw, qcow2 = make_raw(tmp_path / "disk.raw", size=96 * MIB), tmp_path / "disk.qcow2"
    with raw.open("r+b") as file:
        for number in range(64):
            file.write(bytes([number + 1]) * MIB)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, qcow2], check=True)
    blobs = victim.root / "content/blobs/sha256"
    before = names(blobs)
    running = victim.begin("image", "import", "-q", str(qcow2), "box:1")
    time.sleep(after)
    victim.kill()
    running.wait(20)
    victim.start()
    done = "box:1" in victim.ok("images", "--format", "name").split()
    victim.ok("image", "prune", "-f")
    assert names(victim.root / "content/scratch") == names(victim.root / "content/ingest") == []
    assert done or names(blobs) == before
    victim.ok("image", "import", "-q", qcow2, "box:1")
    victim.ok("image", "export", "-q", "box:1", tmp_path / "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == raw.read_bytes()


def test_two_imports_of_the_same_disk_at_once(victim: Daemon, tmp_path: Path) -> None:
    """Both succeed, and it is one image with two names."""
    raw = make_raw(tmp_path / "disk.raw")
    running = [victim.begin("image", "import", "-q", str(raw), f"box:{number}") for number in range(2)]
    assert [each.wait(60) for each in running] == [0, 0]
    assert len({victim.client.images.get(f"box:{number}").id for number in range(2)}) == 1
