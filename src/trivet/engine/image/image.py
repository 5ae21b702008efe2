"""Images, as the rest of the engine sees them: one method per use case."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from trivet.client import schema, schema_host, schema_image
from trivet.engine.disk.base import Bases
from trivet.engine.disk.disk import Disks
from trivet.engine.disk.model import IsDisk
from trivet.engine.image import (
    assemble,
    attestation,
    bootstrap,
    detail,
    load,
    push,
    retention,
    rootfs,
    save,
    source_registry,
)
from trivet.engine.image.attestation import Attestations
from trivet.engine.image.catalog import Catalog
from trivet.engine.image.commit import Draft
from trivet.engine.image.model import ImageNotFound, ImageRecord, Name, WrongPlatform
from trivet.engine.image.progress import Report, relay, silent
from trivet.engine.image.release import LayerBlobs, Released, release
from trivet.engine.image.source import Sources
from trivet.engine.image.source_registry import NO_MORE, More
from trivet.engine.image.trust import Trust
from trivet.engine.operation import Locks
from trivet.engine.snapshot.diff import Written, store_changes, write_layer
from trivet.engine.snapshot.snapshotter import Layered, Snapshotter
from trivet.engine.snapshot.stream import Readable
from trivet.isolation.plan import Root
from trivet.oci import config as configs
from trivet.oci import platform as platforms
from trivet.oci import reference as references
from trivet.oci.config import Image
from trivet.oci.layer import Layer
from trivet.oci.platform import Platform
from trivet.store import collect
from trivet.store.content import ContentStore
from trivet.store.lease import Lease, Leases
from trivet.store.partial import WEEK, Partials
from trivet.store.record import Records

CONFIGS = 256  # of images, kept decoded


class Images:
    """All images of one engine.

    Three things it can't know are told from outside: `users` maps an image id to the names of the instances
    that need it; `holders` are further sources of content that must stay (build cache), `unpacked` of layers
    that must stay on disk as they are (running builds).
    """

    def __init__(
        self,
        content: ContentStore,
        records: Records,
        snapshotters: Mapping[str, Snapshotter],
        leases: Leases,
        policy: Path | None = None,
        layer_blobs: LayerBlobs = LayerBlobs.KEEP,
    ) -> None:
        self.layer_blobs = layer_blobs
        self.trust = Trust(records, policy)
        self.attestations = Attestations(records)
        self.content = content
        self.records = records
        self.snapshotters = snapshotters
        self.leases = leases
        self.catalog = Catalog(records)
        self.partials = Partials(content)
        self.fetching = Locks()
        self.sources = content.elsewhere = Sources(self)
        self.disks = Disks(self, Bases(content.root.with_name("disk"), content))
        self._configs: dict[str, Image] = {}
        self.users: Callable[[str], Sequence[str]] = lambda key: ()
        self.holders: builtins.list[Callable[[], Iterable[collect.Root]]] = []
        self._arriving: builtins.list[Draft] = []
        self.unpacked: builtins.list[Callable[[], Iterable[Layered]]] = [lambda: tuple(self._arriving)]

    def recover(self) -> None:
        """At start-up, before anything else: drop what an engine that died was working on."""
        self.leases.reset()
        self.content.sweep()
        self.partials.drop(older=WEEK)

    def list(self) -> list[ImageRecord]:
        """List all images, oldest first."""
        return self.catalog.all()

    def find(self, ref: str) -> ImageRecord:
        """Find an image by name, digest, id or beginning of an id; also by what it was bootstrapped from.

        Raises `ImageNotFound`, whose hint is the command to get the image.
        """
        if ref.startswith(bootstrap.SCHEME):
            return self._bootstrapped(ref)
        return self.catalog.find(ref)[0]

    def usable(self, ref: str) -> ImageRecord:
        """Find an image to be run or built upon.

        Raises `ImageNotFound`; `IsDisk`; `ImageRefused` if the policy forbids it.
        """
        record = self.find(ref)
        if record.disk:
            raise IsDisk(ref)
        if not ref.startswith(bootstrap.SCHEME):
            self.trust.use(*self.catalog.find(ref), ref)
        return record

    def judge(self, asked: str, key: str) -> None:
        """Judge the image an instance was made from by this moment's policy, under the name it was asked for then.

        Raises `ImageRefused`.
        """
        if key and self.trust.judges and not asked.startswith(bootstrap.SCHEME):
            self.trust.use_again(self.catalog.find(key)[0], asked)

    def config(self, record: ImageRecord) -> Image:
        """Read an image's configuration. Raises `IsDisk`."""
        if record.disk:
            raise IsDisk(detail.title(record), "read the files of")
        known = self._configs.get(record.id)
        if known is None:
            known = configs.parse(self.content.read(record.id, limit=configs.LIMIT), subject=detail.title(record))
            if len(self._configs) >= CONFIGS:
                self._configs.clear()
            self._configs[record.id] = known
        return known

    def view(self, record: ImageRecord) -> schema_image.Image:
        """Show an image as the API lists it."""
        return detail.view(record)

    def inspect(self, ref: str) -> schema_image.ImageDetail:
        """Show everything about an image."""
        record = self.find(ref)
        shown = detail.inspect(self.content, record, None if record.disk else self.config(record))
        return msgspec.structs.replace(shown, attestations=self._attestations(record))

    def bill(self, ref: str) -> dict[str, Any]:
        """Tell which packages an image holds, as SPDX 2.3: the bill attached to it, or else one made now."""
        record, name = self.catalog.find(ref)
        if record.disk:
            raise IsDisk(ref, "list the packages of")
        manifest = name.manifest if name else record.manifest
        attached = [each for each in self.attestations.of(manifest) if each.kind == attestation.SPDX]
        title = name.familiar if name else record.id
        raw = self.attestations.read(self, attached[0]) if attached else attestation.bill(self, record, manifest, title)
        return dict(msgspec.json.decode(raw))

    def history(self, ref: str) -> builtins.list[dict[str, Any]]:
        """List how an image came about, newest first, with the size of each step's layer."""
        record = self.find(ref)
        return detail.history(record, None if record.disk else self.config(record))

    def tag(self, ref: str, target: str) -> ImageRecord:
        """Give an image a further name, taking it from another image that may have it."""
        record, name = self.catalog.find(ref)
        wanted = references.parse(target)
        if wanted.digest:
            raise references.MalformedReference(target, "a digest can't be given to an image")
        origin = name or Name(reference="", digest=record.digest, manifest=record.manifest)
        return self.catalog.add(record, [msgspec.structs.replace(origin, reference=str(wanted.tagged()))])

    def remove(self, ref: str, force: bool = False) -> schema.Removed:
        """Take a name from an image, and delete it with its last one. Raises `ImageInUse`."""
        return retention.remove(self, ref, force)

    async def pull(
        self, reference: str, platform: str = "", report: Report = silent, more: More = NO_MORE
    ) -> ImageRecord:
        """Get an image from its registry, or make it from packages (`bootstrap:debian/bookworm`), and unpack it.

        `more` is what comes beside it. Layers that are here aren't fetched again.
        Raises `Unavailable`, `ImageNotFound`, `WrongPlatform` and what the registry's errors say; nothing is recorded
        then.
        """
        wanted = platforms.parse(platform) if platform else platforms.host()
        if reference.startswith(bootstrap.SCHEME):
            return await asyncio.to_thread(bootstrap.make, self, reference, wanted, report)
        async with self.releasing():
            return await source_registry.pull(self, references.parse(reference).tagged(), wanted, report, more)

    async def push(self, reference: str, report: Report = silent, *, every: bool = False) -> str:
        """Send an image to the registry its name says; return the digest it has there.

        With `every` it goes with all its platforms or not at all (`MissingContent`).
        What the registry has isn't sent again. Raises `ImageNotFound` and what the registry's errors say.
        """
        async with self.releasing():
            return await push.push(self, references.parse(reference).tagged(), report, every=every)

    def load(self, file: Readable, report: Report = silent) -> builtins.list[str]:
        """Take the images of a docker-archive or OCI-layout tar (plain, gzip or zstd); return their names or ids."""
        names = load.load(self, file, report)
        for name in names:
            self.unpack(self.find(name), report)
        return names

    def save(self, names: Sequence[str], file: save.Writable, form: str = "docker", *, every: bool = False) -> None:
        """Write images as a tar: an OCI layout, with form `docker` also readable by `docker load`.

        With `every` all platforms of each are in it, or there is none (`MissingContent`).
        """
        try:
            save.save(self, names, file.write, form, every=every)
        finally:
            self._release()

    def import_(
        self,
        file: Readable,
        reference: str = "",
        changes: Sequence[str] = (),
        message: str = "",
        report: Report = silent,
    ) -> ImageRecord:
        """Make a one-layer image from the tar of a root file system."""
        record = rootfs.import_(self, file, reference, changes, message, report)
        self.unpack(record, report)
        return record

    def unpack(self, image: ImageRecord | Draft, report: Report = silent) -> None:
        """Unpack an image's layers now rather than for its first instance; nothing for another machine's image."""
        if snapshotter := self.unpacks(image):
            snapshotter.prepare(image, relay(report))

    def unpacks(self, image: ImageRecord | Draft) -> Snapshotter | None:
        """Find who unpacks an image ahead of its first instance; None for another machine's image."""
        if isinstance(image, ImageRecord) and image.disk:
            return None
        offered = image.config.platform if isinstance(image, Draft) else platforms.parse(image.platform)
        return self.snapshotters.get("mount") if platforms.runs_here(offered) else None

    @contextmanager
    def arriving(self, image: Draft) -> Iterator[None]:
        """Keep what is unpacked of an image that has no record yet."""
        self._arriving.append(image)
        try:
            yield
        finally:
            self._arriving.remove(image)

    @asynccontextmanager
    async def releasing(self) -> AsyncIterator[None]:
        """Release what was fetched meanwhile, if layers are to be kept unpacked only."""
        try:
            yield
        finally:
            await asyncio.to_thread(self._release)

    def _release(self) -> None:
        if self.layer_blobs is LayerBlobs.DISCARD:
            release(self)

    def release(self, *, dry_run: bool = False) -> builtins.list[Released]:
        """Delete the blobs of layers that are unpacked and can be fetched again, whatever the setting."""
        return release(self, dry_run=dry_run)

    def opened(self, digest: str, report: Report = silent) -> BinaryIO:
        """Open a blob from a thread; a layer that is kept unpacked only is fetched again, which `report` is told."""
        if not self.content.exists(digest) and self.sources.get(digest):
            self.sources.bring(digest, report)
        return self.content.open(digest)

    def draft(self, ref: str, platform: str = "") -> Draft:
        """Start a new image from one we have. Raises `WrongPlatform` if it is for another than `platform`."""
        record = self.find(ref)
        if platform:
            self.check_platform(record, ref, platforms.parse(platform))
        return Draft(config=self.config(record), layers=record.layers)

    def layer(self, root: Root, *, epoch: int | None = None, lease: Lease | None = None) -> Layer | None:
        """Store what was written to a root as a layer; None if nothing was. See `commit.commit`."""
        return store_changes(root, self.content, epoch=epoch, lease=lease)

    def written_layer(self, root: Root, *, epoch: int | None = None, lease: Lease | None = None) -> Written | None:
        """Write such a layer, which its `publish` stores."""
        return write_layer(root, self.content, epoch=epoch, lease=lease)

    def create(self, draft: Draft, names: Iterable[str] = ()) -> ImageRecord:
        """Make a draft an image, under the given names."""
        return self.create_all([draft], tuple(names))

    def create_all(
        self, drafts: Sequence[Draft], names: Sequence[str] = (), annotations: Mapping[str, str] | None = None
    ) -> ImageRecord:
        """Make drafts for several platforms one image under the given names; `annotations` are for their manifests."""
        return assemble.create(self, drafts, names, annotations or {})

    def check_platform(self, record: ImageRecord, ref: str, wanted: Platform | None = None) -> None:
        """Raise `WrongPlatform` unless an image is for `wanted` (default: can run on this machine)."""
        offered = platforms.parse(record.platform)
        if not (platforms.matches(wanted, offered) if wanted else platforms.runs_here(offered)):
            raise WrongPlatform(ref, record.platform, str(wanted or platforms.host()))

    def df(self) -> schema_host.Usage:
        """Add up what images take on disk as they came, each blob once."""
        return retention.usage(self)

    def df_layers(self) -> schema_host.Usage:
        """Measure what images take on disk unpacked."""
        return retention.usage_of_layers(self)

    def df_disks(self) -> schema_host.Usage:
        """Measure what disk images take as files for machines."""
        return retention.usage_of_disks(self)

    def prune(
        self,
        *,
        every: bool = False,
        dry_run: bool = False,
        first: Callable[[], object] = retention.nothing,
        without: Collection[str] = (),
        layer_blobs: bool = False,
    ) -> schema.Removed:
        """Delete images without a name that nobody uses (with `every` also named ones), then what nothing needs.

        `first` as in `sweep`; with `layer_blobs` also what `release` does. A dry run may take the instances `without`
        for gone, whose records `first` forgets.
        """
        return retention.prune(
            self, every=every, dry_run=dry_run, first=first, without=without, layer_blobs=layer_blobs
        )

    def sweep(self, *, dry_run: bool = False, first: Callable[[], object] = retention.nothing) -> int:
        """Collect garbage: what nothing needs any more, and what `first` makes such. Return the bytes freed."""
        return retention.sweep(self, dry_run=dry_run, first=first)

    def why(self, text: str) -> builtins.list[str]:
        """Tell what keeps a blob: the chain from it up to an image, instance or lease; empty if nothing does.

        The beginning of a digest will do. Of a layer that is kept unpacked only, its repository is the first link.
        Raises `MalformedDigest`, `BlobNotFound`, `AmbiguousDigest`.
        """
        away = {each.id: each.repositories[0] for each in self.sources.all() if not self.content.exists(each.id)}
        digest = self.content.find(text, also=away)
        chain = collect.why(self.content, retention.roots(self), digest)
        if chain and digest in away:
            chain.insert(1, f"its unpacked form; {away[digest]} has the blob")
        return chain

    def check(self, repair: bool = False) -> builtins.list[schema_host.Finding]:
        """Verify records and blobs; with `repair` drop what is broken."""
        return retention.check(self, repair)

    def _attestations(self, record: ImageRecord) -> builtins.list[dict[str, Any]]:
        """Show what is told about an image."""
        subjects = {record.manifest, *(name.manifest for name in record.names)}
        return [{"digest": each.id, "kind": each.kind} for each in self.attestations.of(*subjects)]

    def _bootstrapped(self, ref: str) -> ImageRecord:
        try:
            return self.catalog.find(bootstrap.image_name(ref))[0]
        except ImageNotFound as error:
            raise ImageNotFound(ref) from error
