"""Layers unpacked by an engine that is itself in a user namespace, as in a container of somebody's own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trivet.kernel.overlay import CONFINED

pytestmark = [
    pytest.mark.needs("root", "unshare", "setpriv"),
    pytest.mark.skipif(CONFINED, reason="these tests make a user namespace, and are in one"),
]

IDS = 4_000_000  # owners the namespace has
REPOSITORY = Path(__file__).parents[2]
LAYERS = """
import io, sys, tarfile
from pathlib import Path
from trivet.engine.snapshot.extract import extract

def layer(uid):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("dev", tarfile.DIRTYPE), ("dev/disk", tarfile.BLKTYPE), ("dev/pipe", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.uid, info.mode, info.devmajor = kind, uid, 0o755, 8
            archive.addfile(info)
    buffer.seek(0)
    return buffer

extract(layer(1234), Path(sys.argv[1]))
try:
    extract(layer(5_000_000), Path(sys.argv[2]))
except Exception as error:
    print(error)
"""


def confined(*words: str | Path, timeout: float = 240) -> str:
    """Run a program as root of a user namespace and of a mount namespace; return what it says."""
    waiting = 'read line; exec setpriv --reuid 0 --regid 0 --clear-groups "$@"'
    command = ["unshare", "--user", "--keep-caps", "--mount", "sh", "-c", waiting, "sh", *words]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=REPOSITORY
    ) as process:
        ours, its = (Path(f"/proc/{who}/ns/user") for who in ("self", process.pid))
        deadline = time.monotonic() + 20
        while its.readlink() == ours.readlink():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for kind in ("uid", "gid"):
            Path(f"/proc/{process.pid}/{kind}_map").write_text(f"0 0 {IDS}\n")
        said, _ = process.communicate("\n", timeout=timeout)
    assert process.returncode == 0, said
    return said


@pytest.mark.timeout(300)
def test_images_are_the_same_there(short_path: Path) -> None:
    """Whiteouts, opaque directories, links and attributes, hostile ones too, come to the same in a user namespace."""
    chosen = "(test_extract or mount or copy) and not everything_about_a_file and not full_disk"
    files = ("tests/image/test_extract.py", "tests/conformance/test_snapshotter.py")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, f"--basetemp={short_path}/t", *files)
    said = confined(sys.executable, *words)
    passed = re.search(r"(\d+) passed", said)
    assert passed, said
    assert int(passed[1]) > 100
    assert "failed" not in said


def test_devices_and_owners_it_cannot_have(tmp_path: Path) -> None:
    """Device nodes are left out, as nobody may make any there; an owner who isn't mapped is named."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    said = confined(sys.executable, "-c", LAYERS, first, second)
    assert "layer entry 'dev/' is refused: owner 5000000:0 is not mapped in the engine's user namespace" in said
    assert sorted(path.name for path in first.rglob("*")) == ["dev", "pipe"]
    assert (first / "dev").stat().st_uid == 1234
