"""Make an application what its files say: dependencies first, side by side where nothing waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from typing import Literal, TypeVar

import msgspec

from trivet.base.error import Conflict, TrivetError
from trivet.cli.compose import hook, plan, secret, store
from trivet.cli.compose.plan import Change
from trivet.cli.compose.project import Project, needed
from trivet.cli.compose.update import Rollout
from trivet.client.client import Client
from trivet.client.schema import Instance, InstanceRequest, MountRequest

WORKERS = 16
BEAT = 0.1

T = TypeVar("T")
Tell = Callable[[str, str], None]
Pull = Literal["missing", "never"]


class Unready(Conflict):
    """A service that others wait for isn't what they wait for."""


class Application:
    """One application at an engine; `tell` hears (object, what happened)."""

    def __init__(self, client: Client, project: Project, tell: Tell, *, grace: int | None = None) -> None:
        self.client, self.project, self.grace = client, project, grace
        self.renew = False
        self._tell, self._lock = tell, threading.Lock()
        self.changed = set[str]()

    def tell(self, name: str, words: str) -> None:
        """Say what happened; called from several threads."""
        with self._lock:
            self._tell(name, words)

    def make_stores(self, names: Sequence[str]) -> None:
        """Make the networks and volumes that services need."""
        for network in plan.missing_networks(self.client, self.project, names):
            self.client.networks.create(network)
            self.tell(f"network {network.name}", "created")
        for volume in plan.missing_volumes(self.client, self.project, names):
            self.client.volumes.create(volume)
            self.tell(f"volume {volume.name}", "created")

    def converge(self, changes: dict[str, list[Change]], *, start: bool = True, limit: float | None = None) -> None:
        """Do what a plan says. Raises the first failure, once what had been begun has ended."""
        end = None if limit is None else time.monotonic() + limit

        def one(name: str) -> None:
            if start:
                self._await_dependencies(name, changes, end)
            self._service(name, changes[name], start=start)

        self.each_service(list(changes), one)

    def each_service(self, names: Sequence[str], do: Callable[[str], None], *, reverse: bool = False) -> None:
        """Call `do` for services, those that are needed first, or last with `reverse`."""
        graph: dict[str, set[str]] = {name: set() for name in names}
        for name in names:
            for other in set(needed(self.project.service(name))) & set(names):
                graph[other if reverse else name].add(name if reverse else other)
        order = TopologicalSorter(graph)
        order.prepare()
        with ThreadPoolExecutor(WORKERS) as pool:
            running: dict[Future[None], str] = {}
            while order.is_active():
                running |= {pool.submit(do, name): name for name in order.get_ready()}
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    future.result()
                    order.done(name)

    def together(self, do: Callable[[T], None], things: Sequence[T]) -> None:
        """Call `do` for every thing, side by side; raises the first failure once all have ended."""
        with ThreadPoolExecutor(WORKERS) as pool:
            for future in [pool.submit(do, thing) for thing in things]:
                future.result()

    def await_ready(self, names: Sequence[str], limit: float | None = None) -> None:
        """Wait until services run, and are healthy where that is checked. Raises `Unready`."""
        end = None if limit is None else time.monotonic() + limit
        self.each_service(names, lambda name: self._await(name, "service_healthy", end, checked_only=True))

    def instances(self, name: str) -> list[Instance]:
        """List the instances of a service."""
        there = plan.present(self.client, self.project.name)
        return [one for one in there if one.labels.get(plan.SERVICE) == name and not plan.is_one_off(one)]

    def create(self, request: InstanceRequest, files: Sequence[secret.File] = (), *, pull: Pull = "never") -> str:
        """Make an instance with its secrets and configs; nothing stays when that fails."""
        key = self.client.instances.create(msgspec.structs.replace(request, pull=pull)).id
        try:
            if files:
                self.client.instances.write_archive(key, "/", lambda writer: secret.archive(list(files), writer))
        except BaseException:
            self.client.instances.remove(key, force=True, volumes=True)
            raise
        return key

    def start(self, name: str, ref: str) -> None:
        """Start an instance of service `name`, and run what is to follow a start."""
        self.client.instances.start(ref)
        hook.run(self.client, self.project, name, "post_start", ref)

    def stop(self, name: str, ref: str) -> None:
        """Stop an instance, after what is to precede that."""
        service = {**self.project.dormant, **self.project.services}.get(name)
        if service and service.get("pre_stop") and self.client.instances.get(ref).status == "running":
            hook.run(self.client, self.project, name, "pre_stop", ref)
        self.client.instances.stop(ref, grace=self.grace)

    def carried(self, request: InstanceRequest, old: Instance) -> InstanceRequest:
        """Let a successor keep the anonymous volumes of `old`."""
        if self.renew:
            return request
        named = [mount for mount in request.mounts if mount.kind != "volume" or mount.source]
        targets = {mount.target for mount in named}
        kept = [
            MountRequest(kind="volume", source=mount.name, target=mount.target, read_only=mount.read_only)
            for mount in old.mounts
            if mount.kind == "volume" and mount.name and mount.target not in targets
        ]
        replaced = {mount.target for mount in kept}
        fresh = [mount for mount in request.mounts if mount not in named and mount.target not in replaced]
        return msgspec.structs.replace(request, mounts=[*named, *fresh, *kept])

    def _service(self, name: str, changes: list[Change], *, start: bool) -> None:
        service = self.project.service(name)
        fresh = [one.name for one in changes if one.action in ("create", "recreate")]
        if start and service.get("pre_start") and fresh:
            hook.before(self, name, fresh)
        self.together(lambda change: self._one(name, change, start=start), changes)
        renewed = [change for change in changes if change.action == "recreate"]
        if renewed:
            Rollout(self, name, service, start=start).run(renewed)
            self.changed.add(name)

    def _one(self, name: str, change: Change, *, start: bool) -> None:
        if change.action == "remove" and change.current:
            self.stop(name, change.current.id)
            self.client.instances.remove(change.current.id, force=True, volumes=True)
            self.tell(change.name, "removed")
        elif change.action == "create" and change.request:
            key = self.create(change.request, change.files)
            self.tell(change.name, "created")
            if start:
                self._begin(name, change.name, key)
            self.changed.add(name)
        elif change.action == "start" and change.current and start:
            self._begin(name, change.name, change.current.id)
        elif change.action == "keep" and change.current and self._must_restart(name):
            self.client.instances.restart(change.current.id, grace=self.grace)
            self.tell(change.name, "restarted")

    def _begin(self, name: str, label: str, key: str) -> None:
        self.start(name, key)
        self.tell(label, "started")

    def _must_restart(self, name: str) -> bool:
        wishes = needed(self.project.service(name))
        return any(
            store.truth(how.get("restart"), "restart") and other in self.changed for other, how in wishes.items()
        )

    def _await_dependencies(self, name: str, changes: dict[str, list[Change]], end: float | None) -> None:
        for other, how in needed(self.project.service(name)).items():
            condition = how.get("condition", "service_started")
            if condition != "service_started" and (other in changes or self.instances(other)):
                try:
                    self._await(other, condition, end)
                except TrivetError as error:
                    if store.truth(how.get("required", True), "required"):
                        raise Unready(f"cannot start {name}: {error.message}", hint=error.hint) from error
                    self.tell(other, f"is not waited for: {error.message}")

    def _await(self, name: str, condition: str, end: float | None, *, checked_only: bool = False) -> None:
        for instance in self.instances(name):
            if condition == "service_completed_successfully":
                status = self.client.instances.wait(instance.id)
                if status.code:
                    hint = f"trivet logs {instance.name}"
                    raise Unready(f"{instance.name} ended with exit code {status.code}", hint=hint)
            elif condition == "service_healthy":
                self.await_healthy(instance.id, end, checked_only=checked_only)

    def _last(self, ref: str) -> str:
        """Give the last line an instance wrote."""
        said = b"".join(output.data for output in self.client.instances.logs(ref, tail=1)).decode(errors="replace")
        return f": {said.strip()[-200:]}" if said.strip() else ""

    def await_healthy(self, ref: str, end: float | None, *, checked_only: bool = False) -> None:
        """Wait until an instance is healthy; one that isn't checked need only run. Raises `Unready`."""
        while True:
            found = self.client.instances.get(ref)
            hint = f"trivet logs {found.name}"
            if checked_only and found.status == "exited" and not found.exit_code:
                return  # it had something to do, and did it
            if found.status not in ("running", "restarting", "paused"):
                raise Unready(
                    f"{found.name} has {found.status} with exit code {found.exit_code}{self._last(ref)}", hint=hint
                )
            if found.health is None:
                if checked_only:
                    return
                raise Unready(f"{found.name} has no health check", hint="add healthcheck: to its service")
            if found.health.status == "healthy":
                return
            if found.health.status == "unhealthy":
                last = found.health.log[-1].output.strip() if found.health.log else ""
                raise Unready(f"{found.name} is unhealthy{f': {last[:200]}' if last else ''}", hint=hint)
            if end is not None and time.monotonic() > end:
                raise Unready(f"{found.name} is not healthy in time", hint=hint)
            time.sleep(BEAT)
