"""A store of one's own, images made in it, tars with any content, and a real registry."""

from __future__ import annotations

import io
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.image.served import trivet_registry

from trivet.engine.image.image import Images
from trivet.engine.image.model import ImageRecord
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.store.content import ContentStore
from trivet.store.lease import Leases
from trivet.store.record import Records

MakeImages = Callable[[str], Images]


@pytest.fixture
def make_images(tmp_path: Path) -> Iterator[MakeImages]:
    """Makes an engine's images, all of its own, in a directory of the given name."""
    opened: list[Records] = []

    def make(name: str) -> Images:
        root = tmp_path / name
        content = ContentStore(root / "content")
        records = Records(root / "record.db")
        opened.append(records)
        overlay = OverlaySnapshotter(root / "overlay", content)
        return Images(content, records, {"mount": overlay}, Leases(records))

    yield make
    for records in opened:
        records.close()


@pytest.fixture
def images(make_images: MakeImages) -> Images:
    """The images of an engine of one's own."""
    return make_images("engine")


@pytest.fixture
def image(images: Images) -> ImageRecord:
    """A small image, test/base:1, in `images`."""
    return images.import_(io.BytesIO(small_tar()), "test/base:1", ['CMD ["/bin/true"]', "ENV A=b"])


def small_tar(**files: bytes) -> bytes:
    """Make the tar of a small root file system."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in {"etc/hostname": b"small\n", **files}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(params=["trivet", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a running registry, ours and Debian's docker-registry, empty, on loopback."""
    start = trivet_registry if request.param == "trivet" else debian_registry
    with start(tmp_path / "served") as address:
        yield address


@contextmanager
def debian_registry(place: Path, *, htpasswd: str = "") -> Iterator[str]:
    """Run Debian's docker-registry with its data below `place`; yield HOST:PORT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config, users = place / "registry.yml", place / "htpasswd"
    place.mkdir(exist_ok=True)
    users.write_text(htpasswd)
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\n"
        f"storage: {{filesystem: {{rootdirectory: {place}/registry}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', secret: test}}\n"
        + (f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\n" if htpasswd else "")
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(url: str) -> None:
    """Wait until somebody answers at an address."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 10
    while True:
        try:
            opener.open(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
