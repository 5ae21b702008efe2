"""The public face of the client: one engine, its nouns as attributes.

>>> from trivet.client.client import Client
>>> client = Client()
>>> created = client.instances.create(InstanceRequest(image="debian:bookworm", command=["uname", "-r"]))
>>> with client.instances.attach(created.id, start=True) as stream:
...     for event in stream:
...         print(event)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from trivet.client.address import default_socket, parse_address
from trivet.client.transport import Transport

if TYPE_CHECKING:
    from trivet.client.artifact import Artifacts
    from trivet.client.capacity import Capacities
    from trivet.client.checkpoint import Checkpoints
    from trivet.client.image import Images
    from trivet.client.instance import Instances
    from trivet.client.machine import Machines
    from trivet.client.network import Networks
    from trivet.client.registry import Registries
    from trivet.client.secret import Secrets
    from trivet.client.system import System
    from trivet.client.volume import Volumes


class Client:
    """Talk to the engine at `host` (`unix:///PATH`), TRIVET_HOST, or the default address.

    At the default address an engine that isn't running is started, unless `start` is False; `notify`
    hears of it when that takes long. Every request has a connection of its own, so that one client
    may be used by several threads. A noun is imported when it is first used: a command needs one or two.
    """

    def __init__(
        self, host: str = "", *, start: bool = True, notify: Callable[[str], None] = lambda text: None
    ) -> None:
        host = host or os.environ.get("TRIVET_HOST", "")
        self._notify = notify
        path = parse_address(host) if host else default_socket()
        self.transport = Transport(path, self._start if start and not host else None)

    @cached_property
    def instances(self) -> Instances:
        """Instances: create, start, attach, exec, logs, stop, remove, ..."""
        from trivet.client.instance import Instances

        return Instances(self.transport)

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Snapshots and clones of instances."""
        from trivet.client.checkpoint import Checkpoints

        return Checkpoints(self.transport)

    @cached_property
    def machines(self) -> Machines:
        """Machines with an operating system of their own: what only they can do."""
        from trivet.client.machine import Machines

        return Machines(self.transport)

    @cached_property
    def images(self) -> Images:
        """Images: pull, push, build, load, save, tag, remove, ..."""
        from trivet.client.image import Images

        return Images(self.transport)

    @cached_property
    def artifacts(self) -> Artifacts:
        """Artifacts: push, attach, pull, referrers."""
        from trivet.client.artifact import Artifacts

        return Artifacts(self.transport)

    @cached_property
    def volumes(self) -> Volumes:
        """Volumes."""
        from trivet.client.volume import Volumes

        return Volumes(self.transport)

    @cached_property
    def secrets(self) -> Secrets:
        """Secrets."""
        from trivet.client.secret import Secrets

        return Secrets(self.transport)

    @cached_property
    def networks(self) -> Networks:
        """Networks."""
        from trivet.client.network import Networks

        return Networks(self.transport)

    @cached_property
    def registries(self) -> Registries:
        """Registries: log in and out."""
        from trivet.client.registry import Registries

        return Registries(self.transport)

    @cached_property
    def capacity(self) -> Capacities:
        """What was promised, is used and decided."""
        from trivet.client.capacity import Capacities

        return Capacities(self.transport)

    @cached_property
    def system(self) -> System:
        """The engine itself: ping, info, disk use, check, prune, events."""
        from trivet.client.system import System

        return System(self.transport)

    def _start(self, socket_path: str) -> None:
        from trivet.client.start import start_engine  # needed once in an engine's life

        start_engine(socket_path, self._notify)
