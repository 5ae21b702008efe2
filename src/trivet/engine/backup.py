"""Snapshots of volumes, as the doors call them: taken of running instances, put back, copied, sent to registries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from trivet.client.schema import Progress
from trivet.client.schema_volume import VolumeRequest, VolumeSnapshot
from trivet.engine.checkpoint.renaming import follow_volume
from trivet.engine.image.download import ingesting
from trivet.engine.image.progress import Meter, Report, late, silent
from trivet.engine.instance.status import Word
from trivet.engine.instance.still import users_still
from trivet.engine.snapshot.extract import extract
from trivet.engine.volume import recipe as recipes
from trivet.engine.volume.model import VolumeInUse
from trivet.engine.volume.recipe import BrokenSnapshot
from trivet.engine.volume.snapshot import SnapshotRecord
from trivet.oci import digest as digests
from trivet.oci import manifest as manifests
from trivet.oci import reference as references
from trivet.oci.descriptor import OCI_MANIFEST, Descriptor
from trivet.oci.manifest import Manifest
from trivet.oci.reference import Reference
from trivet.registry import mirror
from trivet.registry.client import RegistryClient
from trivet.registry.push import Pusher

if TYPE_CHECKING:
    from trivet.engine.engine import Engine


class Backups:
    """One method per use case."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._context = engine.context
        self._snapshots = engine.context.snapshots

    async def take(self, volume: str, name: str, report: Report = silent) -> dict[str, Any]:
        """Take a snapshot; instances that use the volume stand still for its last moment."""
        record = await self._take(volume, name, report)
        self._emit("snapshot", volume, record.name)
        shown: dict[str, Any] = msgspec.to_builtins(record.show())
        return shown

    async def list(self, volume: str) -> list[VolumeSnapshot]:
        """List snapshots: a volume's, or all for ""."""
        if volume:
            await asyncio.to_thread(self._context.volumes.find, volume)
        return [record.show() for record in await asyncio.to_thread(self._snapshots.list, volume)]

    async def remove(self, volume: str, name: str) -> None:
        """Remove a snapshot and what only it needed."""
        record = await asyncio.to_thread(self._snapshots.find, volume, name)
        await asyncio.to_thread(self._forget, record)
        self._emit("snapshot-remove", volume, name)

    async def clone(self, volume: str, name: str, target: str, report: Report = silent) -> dict[str, Any]:
        """Make a new volume of a snapshot, or of what the volume is now."""
        record = await asyncio.to_thread(self._snapshots.find, volume, name) if name else None
        await asyncio.to_thread(self.check_free, target)
        taken = record or await self._take(volume, "", report, passing=True)
        try:
            await self._new(target, taken, report)
        finally:
            if taken.passing:
                await asyncio.to_thread(self._forget, taken)
        return {"name": target}

    async def rollback(self, volume: str, name: str, report: Report = silent) -> dict[str, Any]:
        """Make a volume what it was. Raises `VolumeInUse` while an instance that uses it runs."""
        record = await asyncio.to_thread(self._snapshots.find, volume, name)
        await self._replace(volume, partial(self._unpack, record, report))
        self._emit("rollback", volume, name)
        return {"name": volume, "snapshot": name}

    async def rename(self, volume: str, new: str) -> None:
        """Rename a volume, with its snapshots, also for instances that don't run. Raises `VolumeInUse`."""
        self._context.volumes.find(volume)
        async with self._resting(volume, "renaming a volume of") as users:
            follow = partial(follow_volume, self._context, users)
            await asyncio.to_thread(self._snapshots.rename, volume, new, follow)
        self._engine.events.emit("volume", "rename", new, new, formerly=volume)

    async def export(self, volume: str, name: str) -> Callable[[BinaryIO], None]:
        """Prepare to write a volume as a tar, as it is now or as a snapshot has it; what is returned does it."""
        if name:
            record = await asyncio.to_thread(self._snapshots.find, volume, name)
            return partial(self._snapshots.write, record)
        taken = await self._take(volume, "", silent, passing=True)
        return partial(self._write_and_forget, taken)

    def check_free(self, volume: str) -> None:
        """Raise what is wrong with the name of a new volume."""
        self._context.volumes.check_free(volume)

    async def import_(self, volume: str, file: BinaryIO, report: Report = silent) -> dict[str, Any]:
        """Make a new volume of a tar. Nothing is left if that fails."""
        await asyncio.to_thread(self.check_free, volume)
        await self._made(volume, lambda path: extract(file, path, whiteouts=False, devices=False))
        return {"name": volume}

    async def push(self, volume: str, name: str, reference: str, report: Report = silent) -> dict[str, Any]:
        """Send a snapshot to a registry as an artifact; what is there isn't sent again."""
        target = references.parse(reference).tagged()
        record = await asyncio.to_thread(self._snapshots.find, volume, name)
        raw = await asyncio.to_thread(self._snapshots.content.read, record.digest, limit=manifests.LIMIT)
        manifest = await asyncio.to_thread(self._snapshots.manifest, record.digest, record.id)
        place = (await asyncio.to_thread(mirror.places, target))[-1]
        report(Progress(status=f"pushing {record.id} to {target.familiar}"))
        with self._snapshots.leases.hold(f"push of snapshot {record.id}") as lease:
            lease.add(record.digest)
            async with Pusher(place.domain, place.path, insecure=place.insecure) as pusher:
                for blob in (manifest.config, *manifest.layers):
                    meter = Meter(report, digests.short(blob.digest), blob.size)
                    opened = partial(self._snapshots.content.open, blob.digest)
                    way = await pusher.blob(blob, opened, partial(meter.count, "uploading"))
                    report(Progress(id=digests.short(blob.digest), status=str(way), current=blob.size, total=blob.size))
                digest = await pusher.manifest(raw, OCI_MANIFEST, target.tag or record.digest)
        self._emit("push", volume, name)
        return {"name": target.familiar, "digest": digest}

    async def pull(self, reference: str, volume: str, report: Report = silent) -> dict[str, Any]:
        """Fetch a snapshot from a registry: as a new volume with that snapshot, or as one more of a volume we have."""
        source = references.parse(reference).tagged()
        name = await asyncio.to_thread(self._snapshots.free_name, volume, source.tag or "")
        known = self._context.volumes.get(volume) is not None
        with self._snapshots.leases.hold(f"pull of {source.familiar}") as lease:
            digest, manifest = await self._fetch(source, lease.add, report)
            about = manifest.annotations or {}
            recipe = await asyncio.to_thread(recipes.read, self._snapshots.content, manifest, source.familiar)
            record = SnapshotRecord(
                volume=volume,
                name=name,
                digest=digest,
                created=about.get("org.opencontainers.image.created", "")[:40],
                size=recipe.size,
                added=sum(layer.size for layer in manifest.layers),
            )
            if not known:
                await self._new(volume, record, report)
            await asyncio.to_thread(self._snapshots.add, record)
        self._emit("pull", volume, name)
        return {"name": volume, "snapshot": name, "digest": digest, "restored": not known}

    async def _fetch(self, source: Reference, hold: Callable[[str], None], report: Report) -> tuple[str, Manifest]:
        place = (await asyncio.to_thread(mirror.places, source))[-1]
        report(Progress(status=f"pulling {source.familiar}"))
        content = self._snapshots.content
        async with RegistryClient(place.domain, insecure=place.insecure) as registry:
            fetched = await registry.manifest(place.path, source.identifier)
            parsed = manifests.parse(fetched.raw, media_type=fetched.media_type, subject=source.familiar)
            if not isinstance(parsed, Manifest):
                raise BrokenSnapshot(source.familiar, "it is no snapshot of a volume")
            hold(fetched.digest)
            await asyncio.to_thread(content.add, fetched.raw, fetched.digest)
            await asyncio.to_thread(self._snapshots.manifest, fetched.digest, source.familiar)
            for blob in (parsed.config, *parsed.layers):
                await self._blob(registry, place.path, blob, report)
        return fetched.digest, parsed

    async def _blob(self, registry: RegistryClient, repository: str, blob: Descriptor, report: Report) -> None:
        """Get a blob unless it is here, going on where an earlier pull broke off."""
        short, images = digests.short(blob.digest), self._context.images
        async with images.fetching.hold(blob.digest, "pulling"):
            if not self._snapshots.content.exists(blob.digest):
                meter = Meter(report, short, blob.size)
                async with ingesting(images.partials.ingest(blob.digest, blob.size)) as ingest:
                    await registry.blob(repository, blob, ingest, partial(meter.count, "downloading"))
        report(Progress(id=short, status="downloaded", current=blob.size, total=blob.size))

    async def _take(self, volume: str, name: str, report: Report, *, passing: bool = False) -> SnapshotRecord:
        meter = Meter(late(report), volume, 0)
        still = partial(users_still, self._context, volume, asyncio.get_running_loop())
        count = partial(meter.count, "reading")
        return await asyncio.to_thread(self._snapshots.take, volume, name, still, count, passing=passing)

    def _unpack(self, record: SnapshotRecord, report: Report, path: Path) -> None:
        meter = Meter(late(report), record.volume, record.size)
        self._snapshots.unpack(record, path, partial(meter.count, "writing"))

    async def _new(self, volume: str, record: SnapshotRecord, report: Report) -> None:
        await self._made(volume, partial(self._unpack, record, report))

    async def _made(self, volume: str, fill: Callable[[Path], object]) -> None:
        """Create a volume and fill it; it goes again if that fails."""
        await self._engine.create_volume(VolumeRequest(name=volume))
        try:
            await self._replace(volume, fill)
        except BaseException:
            await asyncio.to_thread(self._context.volumes.remove, volume, None, True)
            raise

    async def _replace(self, volume: str, fill: Callable[[Path], object]) -> None:
        """Exchange a volume's content while no instance that uses it can start."""

        def work() -> None:
            with self._context.volumes.replacing(volume) as path:
                fill(path)

        async with self._resting(volume, "replacing a volume of"):
            await asyncio.to_thread(work)

    @asynccontextmanager
    async def _resting(self, volume: str, doing: str) -> AsyncIterator[frozenset[str]]:
        """Let no instance that uses a volume start meanwhile; tells their ids. Raises `VolumeInUse` when one runs."""
        context = self._context
        async with AsyncExitStack() as stack:
            users = frozenset(record.id for record in context.table.all() if volume in record.volumes)
            for key in sorted(users):
                await stack.enter_async_context(context.locks.hold(key, doing))
            stack.enter_context(context.volumes.closed(volume))  # to instances that don't exist yet
            running = [
                record.name
                for record in context.table.all()
                if volume in record.volumes and record.word not in (Word.CREATED, Word.EXITED)
            ]
            if running:
                raise VolumeInUse(volume, running, action="stop")
            yield users

    def _write_and_forget(self, record: SnapshotRecord, file: BinaryIO) -> None:
        try:
            self._snapshots.write(record, file)
        finally:
            self._forget(record)

    def _forget(self, record: SnapshotRecord) -> None:
        self._snapshots.remove(record.volume, record.name)
        self._context.images.sweep()

    def _emit(self, action: str, volume: str, snapshot: str) -> None:
        self._engine.events.emit("volume", action, volume, volume, snapshot=snapshot)
