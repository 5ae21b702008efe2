"""Real builds in a test: an engine's parts without the engine, and a look at what came out from outside."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import msgspec

from trivet.build.build import Builder
from trivet.build.cache import Cache
from trivet.build.kept import Kept
from trivet.build.secret import Offered
from trivet.build.tool import Tools
from trivet.client.schema import Progress
from trivet.client.schema_build import BuildRequest
from trivet.engine.image.image import Images
from trivet.engine.network.network import Networks
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.isolation.container import ContainerDriver
from trivet.kernel import cgroup
from trivet.oci.config import Config, Image
from trivet.store.content import ContentStore
from trivet.store.lease import Leases
from trivet.store.record import Records

BASE = "base"
BUSYBOX = Path("/bin/busybox")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
GROUP = b"root:x:0:\napp:x:1001:\nwheel:x:10:app\n"

APPLETS = (
    *("sh", "cat", "echo", "ls", "id", "mkdir", "rm", "ln", "chmod", "stat", "sleep", "env", "pwd", "touch", "cp"),
    *("mv", "test", "readlink", "hostname", "ip", "wget", "dd", "yes", "head"),
)

Content = bytes | str | tarfile.TarInfo


def make_tar(files: dict[str, Content], *, mtime: int = 1_700_000_000) -> bytes:
    """Make a tar: bytes are files, strings links, a name with a slash at its end is a directory."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.mtime = mtime
            if isinstance(content, tarfile.TarInfo):
                pass
            elif name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size, info.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return raw.getvalue()


class File(NamedTuple):
    """A file of a built image."""

    info: tarfile.TarInfo
    content: bytes


class Built(NamedTuple):
    """What a build gave and said."""

    id: str
    names: list[str]
    progress: list[Progress]
    image: Image
    layers: list[dict[str, File]]

    @property
    def config(self) -> Config:
        """The image's defaults."""
        return self.image.defaults

    @property
    def files(self) -> dict[str, File]:
        """All files of the image, the layers laid over one another."""
        return merged(self.layers)

    @property
    def output(self) -> str:
        """Everything the commands wrote."""
        return "".join(step.stream for step in self.progress)

    @property
    def cached(self) -> int:
        """How many steps came from the cache."""
        return sum(step.status.endswith("· cached") for step in self.progress)

    @property
    def run(self) -> int:
        """How many steps did something."""
        return sum(step.status.endswith(" s") and " · " in step.status for step in self.progress)


def merged(layers: list[dict[str, File]]) -> dict[str, File]:
    """Lay layers over one another."""
    found: dict[str, File] = {}
    for layer in layers:
        for path, file in layer.items():
            directory, name = os.path.split(path)
            gone = PurePosixPath(directory, name.removeprefix(".wh.")) if name.startswith(".wh.") else None
            if gone is None:
                found[path] = file
            else:
                found = {each: kept for each, kept in found.items() if not PurePosixPath(each).is_relative_to(gone)}
    return found


def base_files() -> dict[str, Content]:
    """List the files of the image `base`."""
    links: dict[str, Content] = {f"bin/{name}": "busybox" for name in APPLETS}
    files: dict[str, Content] = {"bin/busybox": BUSYBOX.read_bytes(), **links}
    return files | {"etc/passwd": PASSWD, "etc/group": GROUP, "tmp/": "", "usr/lib/": "", "lib": "usr/lib"}


class Workshop:
    """A builder with a store of its own and an image `base` of busybox."""

    def __init__(self, root: Path, run: Path) -> None:
        self.root = root
        self.records = Records(root / "record.db")
        content = ContentStore(root / "content")
        self.snapshotter = OverlaySnapshotter(root / "snapshot", content)
        self.images = Images(content, self.records, {"mount": self.snapshotter}, Leases(self.records))
        self.networks = Networks(self.records, f"build-test-{os.getpid()}", run)
        self.networks.ensure_default()
        self.cgroup = f"trivet-test-{os.getpid()}"
        self.run = run
        self.cache = Cache(self.records, content.exists, Kept(root / "build" / "cache"))
        self.images.holders.append(self.cache.roots)
        self.builder = self.make_builder()
        self._make_base()

    @property
    def dated(self) -> int:
        """When the image `base` was made, in Unix time."""
        record = self.images.find(BASE)
        return int(datetime.fromisoformat(self.images.config(record).created or "").timestamp())

    def make_builder(self) -> Builder:
        """Make a builder, as an engine does when it starts."""
        tools = Tools(
            images=self.images,
            snapshotter=self.snapshotter,
            networks=self.networks,
            driver=ContainerDriver(),
            cache=self.cache,
            offered=Offered(self.run),
            home=self.root / "build",
            run=self.run / "b",
            cgroup=self.cgroup,
            cdi=(self.root / "cdi", self.root / "cdi-later"),
        )
        return Builder(tools)

    def build(self, dockerfile: str, files: dict[str, Content] | None = None, **request: Any) -> Built:
        """Build with this Dockerfile and these files as the context."""
        return asyncio.run(self.building(dockerfile, files, **request))

    async def building(
        self,
        dockerfile: str,
        files: dict[str, Content] | None = None,
        *,
        mtime: int = 1_700_000_000,
        file: str = "Dockerfile",
        **request: Any,
    ) -> Built:
        """Build, inside a loop of the test's own."""
        context = make_tar({**(files or {}), "Dockerfile": dockerfile.encode()}, mtime=mtime)
        progress: list[Progress] = []
        wish = msgspec.convert({"dockerfile": file, "network": "none", **request}, BuildRequest)
        result = await self.builder.build(wish, io.BytesIO(context), progress.append)
        return self.look(result["id"], result["names"], progress)

    def build_remote(self, remote: str) -> Built:
        """Build a context that is elsewhere."""
        wish = BuildRequest(network="none", remote=remote)
        result = asyncio.run(self.builder.build(wish, io.BytesIO(make_tar({})), lambda step: None))
        return self.look(result["id"], result["names"], [])

    def look(self, ref: str, names: list[str], progress: list[Progress]) -> Built:
        """Read an image out of the store, with nothing but gzip and tarfile."""
        record = self.images.find(ref)
        layers = [
            read_layer(gzip.decompress(self.images.content.path(layer.digest).read_bytes())) for layer in record.layers
        ]
        return Built(record.id, names, progress, self.images.config(record), layers)

    def leftovers(self) -> list[str]:
        """List what builds should have removed."""
        found = [str(path) for path in (self.root / "build" / "work").iterdir()]
        found += [str(path) for path in (self.run / "b").glob("*")]
        found += [name for name in self.snapshotter.instances() if name.startswith("build-")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}/*/")]
        found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line]
        return found + [lease.purpose for lease in self.images.leases.all()]

    def close(self) -> None:
        """Take everything off the host."""
        self.networks.remove_all()
        cgroup.Group(cgroup.detect(), self.cgroup).remove()
        self.records.close()

    def _make_base(self) -> None:
        self.images.import_(io.BytesIO(make_tar(base_files())), BASE, ["ENV FROM_BASE=yes", 'CMD ["sh"]'])


def read_layer(raw: bytes) -> dict[str, File]:
    """Read an uncompressed layer."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        found = {}
        for info in archive:
            file = archive.extractfile(info) if info.isfile() else None
            found[info.name.rstrip("/")] = File(info, file.read() if file else b"")
        return found


@contextmanager
def opened(root: Path, run: Path) -> Iterator[Workshop]:
    """A workshop that is taken down afterwards."""
    workshop = Workshop(root, run)
    try:
        yield workshop
    finally:
        workshop.close()
