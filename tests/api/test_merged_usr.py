"""An image whose /bin is a link to usr/bin, as most distributions have it: what is copied to /bin gets there."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon

pytestmark = pytest.mark.needs("root")


def merged(source: bytes) -> bytes:
    """Move /bin of a root file system to /usr/bin, and leave a link."""
    output = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(source)) as reader, tarfile.open(fileobj=output, mode="w") as writer:
        for member in reader:
            content = reader.extractfile(member) if member.isreg() else None
            if member.name.split("/")[0] == "bin":
                member.name = f"usr/{member.name}"
            writer.addfile(member, content)
        directory = tarfile.TarInfo("usr/opt")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        writer.addfile(directory)
        for name, target in {"bin": "usr/bin", "opt": "/usr/opt"}.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            writer.addfile(link)
    return output.getvalue()


@pytest.fixture(scope="module")
def image(daemon: Daemon) -> str:
    """The name of such an image."""
    daemon.ok("import", "-q", "-c", 'CMD ["sh"]', "-", "merged:test", input=merged(busybox_tar()))
    return "merged:test"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """Files for /bin and /opt, as somebody has them who doesn't know of the links."""
    directory = tmp_path / "context" / "rootfs"
    for name in ("bin/hello", "opt/tool/run", "etc/hello"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("#!/bin/sh\necho hello\n")
        (directory / name).chmod(0o755)
    return directory


LOOK = "set -e; readlink /bin; readlink /opt; /usr/bin/hello; /usr/opt/tool/run; /etc/hello; ls -d /usr/bin/sh"
SEEN = "usr/bin\n/usr/opt\nhello\nhello\nhello\n/usr/bin/sh"


def test_build(daemon: Daemon, image: str, rootfs: Path) -> None:
    """COPY rootfs/ / puts files where the image's links lead, and keeps the links."""
    (rootfs.parent / "Dockerfile").write_text(f"FROM {image}\nCOPY rootfs/ /\n")
    daemon.ok("build", "-q", "-t", "copied:test", rootfs.parent)
    assert daemon.ok("run", "--rm", "copied:test", "sh", "-c", LOOK) == SEEN


@pytest.mark.parametrize("running", [True, False], ids=["running", "created"])
def test_copy(daemon: Daemon, image: str, rootfs: Path, running: bool) -> None:
    """`cp` of the same tree does the same, whether the instance runs or not."""
    name = f"merged-{running}".lower()
    if running:
        daemon.ok("run", "-d", "--name", name, image, "sleep", "600")
        daemon.ok("cp", f"{rootfs}/.", f"{name}:/")
        assert daemon.ok("exec", name, "sh", "-c", LOOK) == SEEN
    else:
        daemon.ok("create", "--name", name, image, "sh", "-c", LOOK)
        daemon.ok("cp", f"{rootfs}/.", f"{name}:/")
        assert daemon.ok("start", "-a", name) == SEEN
    daemon.ok("rm", "-f", name)
