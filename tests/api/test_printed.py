"""What the pages about images and registries print is typed, line by line, as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.busybox import busybox_tar

DOCS = Path(__file__).parents[2] / "docs"
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.needs("root", "unshare", "qemu-img"), pytest.mark.timeout(300)]

BEGIN = """
set -eu
ip link set lo up
mkdir -p /run/trivet-registry
mount -t tmpfs none /run/trivet-registry
trivetd --root "$PWD/engine" --run-dir "$RUN" --spares 0 2>"$PWD/log" &
engine=$!
trap 'kill $(jobs -p); wait; trivetd --root "$PWD/engine" --run-dir "$RUN" --uninstall' EXIT
until trivet version >/dev/null 2>&1; do kill -0 $engine; sleep 0.2; done
trivet import -q -c 'CMD ["sh"]' busybox.tar web:1
set -x
"""
LISTENS = "& until [ -e /run/trivet-registry/5000.crt ]; do sleep 0.2; done"


def block(page: str, beginning: str) -> str:
    """Find the first block of commands after a heading, without its comments."""
    text = f"\n{(DOCS / page).read_text()}".split(f"\n{beginning}\n", 1)[1]
    found = re.search(r"^```\n(trivet .*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, beginning
    return re.sub(r" +#.*$", "", found[1], flags=re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, short_path: Path) -> Iterator[Path]:
    """A directory with the files that the pages name."""
    (tmp_path / "busybox.tar").write_bytes(busybox_tar())
    for name in ("report.json", "scan.json"):
        (tmp_path / name).write_text("{}")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "debian.qcow2", "1M"], check=True)
    yield tmp_path
    shutil.rmtree(tmp_path / "engine", ignore_errors=True)


def test_pages_about_images(place: Path, short_path: Path) -> None:
    """A registry of one's own, files in it, and disk images: each command succeeds."""
    serve = block("registry.md", "# The registry").replace("/var/lib/registry", "$PWD/registry").replace("&", LISTENS)
    disks = block("image.md", "## Disk images").replace("trivet image import appliance.ova web-disk:1", ":")
    script = "\n".join((BEGIN, serve.replace("team/web", "web"), block("image.md", "## Files in registries"), disks))
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RUN": str(short_path / "run"),
        "TRIVET_HOST": f"unix://{short_path}/run/trivet.sock",
    }
    command = ["unshare", "-n", "-m", "bash", "-c", script]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (place / "reports/report.json").read_text() == "{}"
    assert (place / "debian.vmdk").stat().st_size > 0
