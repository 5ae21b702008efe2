"""The image every peer runs: static busybox and the marking program, as a directory and as a docker-archive."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

DIRECTORY = Path("build/bench").absolute()
NAME = "trivet-bench:1"
MARK = "/bin/mark"
SOURCE = Path(__file__).with_name("mark.c")


class MissingProgram(Exception):
    """What the image is made of isn't installed."""


def rootfs() -> Path:
    """Make the directory; returns it. Raises `MissingProgram`."""
    compiler, busybox = shutil.which("musl-gcc"), shutil.which("busybox")
    if not compiler or not busybox:
        raise MissingProgram("the bench needs musl-gcc and a static busybox: apt-get install musl-tools busybox-static")
    root = DIRECTORY / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-static", "-O2", "-s", "-o", root / MARK[1:], SOURCE], check=True)
    shutil.copy(busybox, root / "bin/busybox")
    (root / "bin/sh").unlink(missing_ok=True)
    (root / "bin/sh").symlink_to("busybox")
    return root


def archive() -> Path:
    """Make a docker-archive of the directory, the same bytes for the same content; returns its path."""
    layer = _layer(rootfs())
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": [MARK]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": "bench"}],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest()
    manifest = [{"Config": f"{name}.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    path = DIRECTORY / "image.tar"
    with tarfile.open(path, "w") as tar:
        for title, data in (
            ("layer.tar", layer),
            (f"{name}.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(title)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def _layer(root: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, path.relative_to(root), recursive=False, filter=_anonymous)
    return buffer.getvalue()


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
