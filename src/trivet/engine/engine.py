"""The face the doors call: each use case is one call and its event. What happens is in the nouns' own packages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from trivet.base.version import VERSION
from trivet.client.schema import PruneRequest, Removed
from trivet.client.schema_host import Finding, Info, Usage
from trivet.client.schema_image import Image, ImageDetail, LoginRequest
from trivet.client.schema_network import Network, NetworkRequest
from trivet.client.schema_path import Way
from trivet.client.schema_secret import Secret, SecretRequest
from trivet.client.schema_volume import Volume, VolumeRequest
from trivet.engine import inventory, keeping
from trivet.engine.artifact import Artifacts
from trivet.engine.backup import Backups
from trivet.engine.capacity.broker import Broker
from trivet.engine.checkpoint.checkpoint import Checkpoints
from trivet.engine.disk_image import DiskImages
from trivet.engine.event import Events
from trivet.engine.image import bootstrap, detail, lookup
from trivet.engine.image.lookup import Listed
from trivet.engine.image.model import ImageRecord
from trivet.engine.image.progress import Report
from trivet.engine.image.source_registry import NO_MORE, More
from trivet.engine.instance import commit
from trivet.engine.instance.context import Context
from trivet.engine.instance.instance import Instances
from trivet.engine.machine.machine import Machines
from trivet.engine.network import why
from trivet.engine.network.flow import Flows
from trivet.oci import reference as references
from trivet.oci.reference import Reference
from trivet.registry import login
from trivet.registry.auth import Credentials


class Engine:
    """One host's engine. `spool` is where uploads wait."""

    def __init__(self, context: Context, engine_id: str, spool: Path, capacity: Broker) -> None:
        self.context = context
        self.capacity = capacity
        self.id = engine_id
        self.spool = spool
        self.instances = Instances(context)
        self.machines = Machines(context)
        self.backups = Backups(self)
        self.flows = Flows(context.networks)
        self.disks = DiskImages(self)
        self.artifacts = Artifacts(self)
        self.checkpoints = Checkpoints(context)

    @property
    def events(self) -> Events:
        """The events of everything."""
        return self.context.events

    # images

    async def list_images(self, filters: dict[str, list[str]]) -> list[Image]:
        """List images, newest first."""
        images = self.context.images
        records = await asyncio.to_thread(images.list)
        return [images.view(record) for record in reversed(inventory.select_images(records, filters))]

    async def inspect_image(self, ref: str) -> ImageDetail:
        """Show everything about an image."""
        return await asyncio.to_thread(self.context.images.inspect, ref)

    async def bill(self, ref: str) -> dict[str, Any]:
        """Tell which packages an image holds, as SPDX 2.3."""
        return await asyncio.to_thread(self.context.images.bill, ref)

    async def remove_image(self, ref: str, *, force: bool) -> Removed:
        """Take a name from an image, and delete it with its last one."""
        record = await asyncio.to_thread(self.context.images.find, ref)
        removed = await asyncio.to_thread(self.context.images.remove, ref, force)
        for name in removed.untagged:
            self.events.emit("image", "untag", record.id, name)
        if removed.deleted:
            self.events.emit("image", "remove", record.id, ref)
        return removed

    async def tag_image(self, ref: str, target: str) -> None:
        """Give an image a further name."""
        record = await asyncio.to_thread(self.context.images.tag, ref, target)
        self.events.emit("image", "tag", record.id, target)

    async def pull_image(self, reference: str, platform: str, report: Report, more: More = NO_MORE) -> dict[str, Any]:
        """Get an image from its registry, or make it from packages."""
        record = await self.context.images.pull(reference, platform, report, more)
        asked = "" if reference.startswith(bootstrap.SCHEME) else references.parse(reference).tagged().familiar
        return self._made("pull", record, asked)

    async def push_image(self, reference: str, report: Report, *, every: bool = False) -> dict[str, Any]:
        """Send an image to the registry its name says."""
        digest = await self.context.images.push(reference, report, every=every)
        self.events.emit("image", "push", digest, reference)
        return {"name": reference, "digest": digest}

    async def look_up_image(self, reference: Reference) -> Listed:
        """Tell what a registry has under a name."""
        return await lookup.look_up(reference)

    async def login(self, wish: LoginRequest) -> str:
        """Try a name and password at a registry and remember them; return the file."""
        return await login.login(wish.registry, Credentials(wish.user, wish.password))

    async def logout(self, registry: str) -> bool:
        """Forget what is remembered for a registry; tell whether there was anything."""
        return await login.logout(registry)

    async def load_images(self, file: BinaryIO, report: Report) -> dict[str, Any]:
        """Take images from a docker-archive or OCI-layout tar."""
        names = await asyncio.to_thread(self.context.images.load, file, report)
        for name in names:
            self.events.emit("image", "load", self.context.images.find(name).id, name)
        return {"names": names}

    def check_image_name(self, reference: str) -> None:
        """Raise `MalformedReference` unless `reference` can name an image; "" is no name."""
        if reference:
            references.parse(reference)

    async def import_image(
        self, file: BinaryIO, reference: str, changes: Sequence[str], message: str, report: Report
    ) -> dict[str, Any]:
        """Make an image from the tar of a root file system."""
        images = self.context.images
        record = await asyncio.to_thread(images.import_, file, reference, changes, message, report)
        asked = references.parse(reference).tagged().familiar if reference else ""
        return self._made("import", record, asked)

    def _made(self, action: str, record: ImageRecord, asked: str = "") -> dict[str, Any]:
        """Tell what was made, by the name it was asked for by if it has several."""
        name = asked if asked in detail.names(record) else detail.title(record)
        self.events.emit("image", action, record.id, name)
        return {"name": name, "id": record.id, "digest": record.digest}

    async def commit(
        self, ref: str, name: str, *, changes: Sequence[str], author: str, message: str, pause: bool
    ) -> str:
        """Make an image of an instance; return its id."""
        key = self.instances.key(ref)
        record = await commit.commit(
            self.context, key, name, changes=changes, author=author, message=message, pause=pause
        )
        self._made("commit", record)
        self.instances.tell(key, "commit", image_id=record.id, reference=name, comment=message)
        return record.id

    async def why(self, digest: str) -> list[str]:
        """Tell what keeps a blob, from itself up to an image, lease or build step; empty if nothing does.

        The beginning of a digest will do. Raises `MalformedDigest`, `BlobNotFound`, `AmbiguousDigest`.
        """
        return await asyncio.to_thread(self.context.images.why, digest)

    def save_images(self, names: Sequence[str], file: BinaryIO, form: str, *, every: bool = False) -> None:
        """Write images as a tar. Blocking."""
        self.context.images.save(names, file, form, every=every)

    # volumes

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Create a volume."""
        volume = await asyncio.to_thread(self.context.volumes.create, request)
        self.events.emit("volume", "create", volume.name, volume.name, driver="local")
        return self._show(volume.name)

    async def list_volumes(self, filters: dict[str, list[str]], *, size: bool) -> list[Volume]:
        """List volumes."""
        volumes = await asyncio.to_thread(self.context.volumes.list, self.volume_users(), size)
        return inventory.select_volumes(volumes, filters)

    async def inspect_volume(self, name: str) -> Volume:
        """Describe a volume."""
        return self._show(name)

    async def resize_volume(self, name: str, size: str) -> Volume:
        """Let a volume with a size hold more."""
        await asyncio.to_thread(self.context.volumes.resize, name, size)
        self.events.emit("volume", "resize", name, name, size=size)
        return self._show(name)

    def _show(self, name: str) -> Volume:
        return self.context.volumes.show(name, self.volume_users())

    async def remove_volume(self, name: str, *, force: bool) -> None:
        """Remove a volume nobody uses; with `force` a missing one is fine."""
        await asyncio.to_thread(self.context.volumes.remove, name, self.volume_users(), force)
        self.events.emit("volume", "remove", name, name, driver="local")

    def volume_users(self) -> dict[str, list[str]]:
        """Tell which instances use which volume, by its name."""
        users: dict[str, list[str]] = {}
        for record in self.context.table.all():
            for volume in record.volumes:
                users.setdefault(volume, []).append(record.name)
        return users

    # secrets

    async def create_secret(self, request: SecretRequest) -> Secret:
        """Keep a secret."""
        made = await asyncio.to_thread(self.context.secrets.create, request)
        self.events.emit("secret", "create", made.id, made.name)
        return made

    async def list_secrets(self) -> list[Secret]:
        """List secrets."""
        return self.context.secrets.list(self._secret_users())

    async def inspect_secret(self, ref: str) -> Secret:
        """Describe a secret."""
        wanted = self.context.secrets.find(ref).id
        return next(each for each in await self.list_secrets() if each.id == wanted)

    async def remove_secret(self, ref: str) -> None:
        """Forget a secret that no instance has."""
        gone = await asyncio.to_thread(self.context.secrets.remove, ref, self._secret_users())
        self.events.emit("secret", "remove", gone.id, gone.name)

    def _secret_users(self) -> dict[str, list[str]]:
        users: dict[str, list[str]] = {}
        for record in self.context.table.all():
            for grant in record.request.secrets:
                users.setdefault(grant.source, []).append(record.name)
        return users

    # networks

    async def create_network(self, request: NetworkRequest) -> Network:
        """Create a network."""
        network = await asyncio.to_thread(self.context.networks.create, request)
        self.events.emit("network", "create", network.id, network.name, type=network.driver)
        return network

    async def list_networks(self, filters: dict[str, list[str]]) -> list[Network]:
        """List networks."""
        return inventory.select_networks(await asyncio.to_thread(self.context.networks.list), filters)

    async def inspect_network(self, ref: str) -> Network:
        """Describe a network."""
        return await asyncio.to_thread(self.context.networks.find, ref)

    async def remove_network(self, ref: str) -> None:
        """Remove a network nobody is on."""
        network = await asyncio.to_thread(self.context.networks.find, ref)
        await asyncio.to_thread(self.context.networks.remove, ref)
        self.events.emit("network", "remove", network.id, network.name, type=network.driver)

    async def why_network(self, source: str, target: str, port: int, protocol: str, version: int) -> Way:
        """Tell what becomes of a connection; `source` and `target` are instances, host, world, or an address."""
        source, target = (self.instances.speaker(each) for each in (source, target))
        return await asyncio.to_thread(why.why, self.context.networks, source, target, port, protocol, version)

    # the whole

    async def info(self) -> Info:
        """Describe engine and host."""
        return await asyncio.to_thread(inventory.info, self.context, self.id, VERSION)

    async def usage(self) -> list[Usage]:
        """Measure what is stored."""
        return await asyncio.to_thread(inventory.usage, self.context, self.volume_users())

    async def check(self, *, repair: bool) -> list[Finding]:
        """Verify store and records, and with `repair` mend what can be mended."""
        return await keeping.check(self.context, repair)

    async def prune(self, request: PruneRequest) -> Removed:
        """Remove what nobody needs."""
        return await keeping.prune(self.context, request)
