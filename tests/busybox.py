"""An image's root file system with a shell: busybox, every applet linked, made from the host's own."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

import pytest

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"
GROUP = b"root:x:0:\nuser:x:1000:\naudio:x:29:\n"


@cache
def busybox_tar() -> bytes:
    """Write the root file system: /bin with busybox and its applets, /etc, /tmp and a few mount points."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no program busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, check=True, text=True).stdout.split()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, mode in {
            "bin": 0o755,
            "etc": 0o755,
            "tmp": 0o1777,
            "root": 0o700,
            "proc": 0o755,
            "dev": 0o755,
        }.items():
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, mode
            tar.addfile(directory)
        program = Path(busybox).read_bytes()
        for name, content in {"bin/busybox": program, "etc/passwd": PASSWD, "etc/group": GROUP}.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), 0o755 if name.startswith("bin") else 0o644
            tar.addfile(file, io.BytesIO(content))
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return output.getvalue()
