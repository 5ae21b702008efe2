"""Snapshots of volumes: take, put back, copy, read as a tar. They are artifacts in the content store."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from trivet.base.error import AlreadyExists, Conflict, Corrupt, InvalidArgument, NotFound
from trivet.client.schema_host import Finding
from trivet.client.schema_volume import VolumeSnapshot
from trivet.engine.snapshot.extract import extract
from trivet.engine.snapshot.stream import Budget
from trivet.engine.volume.capture import Capture, Parts
from trivet.engine.volume.model import VolumeRecord
from trivet.engine.volume.recipe import (
    ARTIFACT,
    RECIPE,
    BrokenSnapshot,
    Recipe,
    Stream,
    Writer,
    encode,
    manifest_of,
    read,
)
from trivet.engine.volume.volume import Volumes
from trivet.oci import manifest as manifests
from trivet.oci.descriptor import Descriptor
from trivet.oci.manifest import Manifest
from trivet.store.collect import Root
from trivet.store.content import ContentStore, explaining_full
from trivet.store.lease import Lease, Leases
from trivet.store.record import Records

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_KEEP_FREE = 64 << 20  # bytes that putting back leaves on the disk
_NOW = "%Y%m%d-%H%M%S"

Count = Callable[[int], None]
Earlier = list[tuple[Manifest, Recipe]]
Findings = list[Finding]
Shown = list["SnapshotRecord"]  # inside the class `list` is the method


class Pause:
    """How long others stand still, in seconds, once that is over; 0 while nobody has."""

    def __init__(self) -> None:
        self._begun = 0.0
        self.seconds = 0.0

    def begin(self) -> None:
        """The first is about to stand still."""
        self._begun = time.monotonic()

    def end(self) -> None:
        """The last goes on."""
        self.seconds = time.monotonic() - self._begun


@contextmanager
def _nobody() -> Iterator[Pause]:
    """Nobody uses the volume, so nobody has to stand still."""
    yield Pause()


class SnapshotRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. `size` is its content's, `added` what it took on disk, `pause` how long its users stood still (s).

    One that is `passing` is made on the way to something else, and doesn't outlive the engine.
    """

    volume: str
    name: str
    digest: str
    created: str
    size: int
    added: int = 0
    pause: float = 0.0
    passing: bool = False

    @property
    def id(self) -> str:
        """VOLUME@NAME, which no other snapshot has."""
        return f"{self.volume}@{self.name}"

    def show(self) -> VolumeSnapshot:
        """Render for the API."""
        return VolumeSnapshot(**{name: getattr(self, name) for name in VolumeSnapshot.__struct_fields__})


class NoSuchSnapshot(NotFound):
    """A name that no snapshot of the volume has."""

    def __init__(self, volume: str, name: str) -> None:
        super().__init__(f"no such snapshot: {volume}@{name}", hint=f"list them: trivet volume snapshots {volume}")


class Snapshots:
    """All snapshots of one engine's volumes. Methods block and may be called from any thread."""

    def __init__(self, volumes: Volumes, content: ContentStore, records: Records, leases: Leases) -> None:
        self.content = content
        self.leases = leases
        self.volumes = volumes
        self._records = records
        self._table = records.table("volume-snapshot", SnapshotRecord)
        for record in self._table.all():
            if record.passing:
                self._table.delete(record.id)
        volumes.kept = lambda name: [record.name for record in self.list(name)]

    def roots(self) -> Iterator[Root]:
        """List the content that snapshots need, for `store/collect`."""
        for record in self._table.all():
            yield Root(f"snapshot {record.id}", record.digest)

    def list(self, volume: str = "") -> Shown:
        """List snapshots, oldest first: all, or those of a volume."""
        return [record for record in self._table.all() if volume in ("", record.volume) and not record.passing]

    def find(self, volume: str, name: str) -> SnapshotRecord:
        """Find a snapshot. Raises `NoSuchVolume`, `NoSuchSnapshot`."""
        self.volumes.find(volume)
        record = self._table.get(f"{volume}@{name}")
        if record is None:
            raise NoSuchSnapshot(volume, name)
        return record

    def free_name(self, volume: str, name: str) -> str:
        """Check a new snapshot's name; "" makes one up from the time. Raises `InvalidArgument`, `AlreadyExists`."""
        name = name or datetime.now(UTC).strftime(_NOW)
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"snapshot {name!r} has an invalid name: letters, digits, '_', '.', '-' are possible")
        if self._table.get(f"{volume}@{name}"):
            raise AlreadyExists(f"volume {volume} has a snapshot {name}", hint=f"trivet volume rm {volume}@{name}")
        return name

    def take(
        self,
        volume: str,
        name: str = "",
        still: Callable[[], AbstractContextManager[Pause]] = _nobody,
        count: Count = lambda size: None,
        *,
        passing: bool = False,
    ) -> SnapshotRecord:
        """Take a snapshot; those who use the volume stand still inside `still` only. Nothing is left if it fails."""
        source = self.volumes.find(volume)
        self.volumes.ready(volume)
        name = f"passing-{secrets.token_hex(4)}" if passing else self.free_name(volume, name)
        with self.leases.hold(f"snapshot {volume}@{name}") as lease, self._scratch() as scratch:
            stream, writer, pack, pause = self._capture(source, scratch, still, count, lease)
            recipe, layers = writer.recipe(stream, pack.digest)
            raw = encode(recipe)
            config = Descriptor(media_type=RECIPE, digest=self.content.add(raw, lease=lease), size=len(raw))
            created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            about = {"org.opencontainers.image.created": created, "org.opencontainers.image.title": volume}
            manifest = msgspec.json.encode(manifest_of(config, layers, about), order="deterministic")
            record = SnapshotRecord(
                volume=volume,
                name=name,
                digest=self.content.add(manifest, lease=lease),
                created=created,
                size=recipe.size,
                added=pack.size + len(raw),
                pause=round(pause, 4),
                passing=passing,
            )
            self.add(record)
        return record

    def add(self, record: SnapshotRecord) -> None:
        """Record a snapshot whose content is here and leased. Raises `AlreadyExists`, `NoSuchVolume`."""
        with self._records.transaction():
            self.volumes.find(record.volume)
            self._table.insert(record.id, record, name=record.id)

    def remove(self, volume: str, name: str) -> SnapshotRecord:
        """Forget a snapshot; its content goes with the next collection, unless others share it."""
        record = self.find(volume, name)
        self._table.delete(record.id)
        return record

    def rename(self, volume: str, new: str, follow: Callable[[VolumeRecord], object] = lambda renamed: None) -> None:
        """Rename a volume that nobody has open, with its snapshots; who names it is to `follow` in the transaction."""
        with self._records.transaction():
            for record in self.list(volume):
                self._table.delete(record.id)
                moved = msgspec.structs.replace(record, volume=new)
                self._table.insert(moved.id, moved, name=moved.id)
            renamed = self.volumes.rename(volume, new)
            follow(renamed)
        self.volumes.settle(renamed)

    def unpack(self, record: SnapshotRecord, directory: Path, count: Count = lambda size: None) -> None:
        """Put a snapshot's content into an empty directory, which becomes what the volume was."""
        with self.open(record) as stream:
            if stream.recipe.size > self.content.free() - _KEEP_FREE:
                needed = f"it needs {stream.recipe.size >> 20} MiB, {self.content.free() >> 20} MiB are free"
                raise Conflict(f"cannot put snapshot {record.id} back: {needed}", hint="trivet system prune")
            with explaining_full(directory):
                budget = Budget(bytes=max(stream.recipe.size, 1))
                extract(_Counted(stream, count), directory, budget=budget, whiteouts=False, devices=False)

    def open(self, record: SnapshotRecord) -> Stream:
        """Open a snapshot as the tar stream it is. Raises `BrokenSnapshot`."""
        return Stream(self.content, self.manifest(record.digest, record.id), record.id)

    def write(self, record: SnapshotRecord, file: BinaryIO) -> None:
        """Write a snapshot as a tar."""
        with self.open(record) as stream:
            while piece := stream.read(1 << 20):
                file.write(piece)

    def check(self) -> Findings:
        """Read every blob that snapshots need; find what is missing or damaged. Nothing is mended: it is data."""
        found: Findings = []
        for record in self.list():
            try:
                manifest = self.manifest(record.digest, record.id)
                for blob in (manifest.config, *manifest.layers):
                    self.content.verify(blob.digest)
                read(self.content, manifest, record.id)
            except (Corrupt, NotFound) as error:
                repair = f"trivet volume rm {record.id}"
                found.append(Finding(object=f"snapshot {record.id}", problem=error.message, repair=repair))
        return found

    def manifest(self, digest: str, subject: str) -> Manifest:
        """Read a snapshot's manifest. Raises `BrokenSnapshot` if it is another kind of thing."""
        parsed = manifests.parse(self.content.read(digest, limit=manifests.LIMIT), subject=subject)
        if not isinstance(parsed, Manifest) or ARTIFACT not in (parsed.artifact_type, parsed.config.media_type):
            raise BrokenSnapshot(subject, "it is no snapshot of a volume")
        return parsed

    def _capture(
        self,
        source: VolumeRecord,
        scratch: Path,
        still: Callable[[], AbstractContextManager[Pause]],
        count: Count,
        lease: Lease,
    ) -> tuple[Parts, Writer, _Pack, float]:
        with self.content.ingest(lease=lease) as pack:
            writer = Writer(pack, self._earlier(source.name, lease))
            capture = Capture(Path(source.mountpoint), writer, scratch, count)
            capture.approach()
            with still() as pause:
                capture.sweep(aside=True)
            stream = capture.finish()
        return stream, writer, _Pack(pack.digest, pack.size), pause.seconds

    def _earlier(self, volume: str, lease: Lease) -> Earlier:
        """Read the volume's last snapshot, whose packs are used on."""
        found: Earlier = []
        for record in self.list(volume)[-1:]:
            try:
                manifest = self.manifest(record.digest, record.id)
                lease.add(*(layer.digest for layer in manifest.layers))
                found.append((manifest, read(self.content, manifest, record.id)))
            except (Corrupt, NotFound):
                continue  # then everything is written anew
        return found

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        path = Path(tempfile.mkdtemp(dir=self.content.scratch))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


class _Pack(msgspec.Struct, frozen=True):
    digest: str
    size: int


class _Counted:
    """A stream that tells how far it is."""

    def __init__(self, stream: Stream, count: Count) -> None:
        self._stream = stream
        self._count = count
        self._done = 0

    def read(self, size: int = -1, /) -> bytes:
        """Read on."""
        piece = self._stream.read(size)
        self._done += len(piece)
        self._count(self._done)
        return piece
