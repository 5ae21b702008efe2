"""Replace the instances of a service one after another, as `deploy.update_config` says; a bad one doesn't stay."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from trivet.base.error import TrivetError
from trivet.cli import value
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.plan import Change
from trivet.client.schema import Instance, InstanceRequest, TakeoverRequest

if TYPE_CHECKING:
    from trivet.cli.compose.apply import Application

ORDERS = ("stop-first", "start-first")
ACTIONS = ("pause", "continue", "rollback")
BEAT = 0.1


class Rollout:
    """The rolling update of one service. Raises `ComposeError` for a configuration that can't be meant."""

    def __init__(self, application: Application, name: str, service: dict[str, Any], *, start: bool) -> None:
        self._application, self._name, self._start = application, name, start
        found = (service.get("deploy") or {}).get("update_config") or {}
        place = f"services.{name}.deploy.update_config"
        self._order = str(found.get("order", "stop-first"))
        self._on_failure = str(found.get("failure_action", "pause"))
        for key, text, known in (("order", self._order, ORDERS), ("failure_action", self._on_failure, ACTIONS)):
            if text not in known:
                raise ComposeError(f"{place}.{key}", f"{text!r} is none of {', '.join(known)}")
        self._together = int(found.get("parallelism", 1))
        self._delay = value.duration(str(found.get("delay", "0")))
        self._watched = bool(found) or self._order == "start-first"
        self._monitor = value.duration(str(found.get("monitor", "0")))

    def run(self, changes: list[Change]) -> None:
        """Replace the instances. Raises what went wrong, after undoing what the configuration says."""
        size = self._together or len(changes)
        batches = [changes[index : index + size] for index in range(0, len(changes), size)]
        done: list[Change] = []
        for number, batch in enumerate(batches):
            if number and self._delay:
                time.sleep(self._delay)
            for change in batch:
                try:
                    self._replace(change, change.current, change.request)
                    done.append(change)
                except TrivetError as error:
                    if self._on_failure == "continue":
                        self._application.tell(change.name, f"not updated: {error.message}")
                        continue
                    if self._on_failure == "rollback":
                        self._back(done)
                    raise

    def _back(self, done: list[Change]) -> None:
        for change in reversed(done):
            now = self._application.client.instances.get(change.name)
            if change.current:
                self._replace(change, now, change.current.request)
                self._application.tell(change.name, "rolled back")

    def _replace(self, change: Change, old: Instance | None, request: InstanceRequest | None) -> None:
        if old is None or request is None:
            return
        request = self._application.carried(request, old)
        if self._order == "start-first" and self._start and old.status == "running":
            if not _alone(request):
                self._start_first(change, old, request)
                return
            self._application.tell(change.name, "is stopped first: two cannot have one address")
        self._stop_first(change, old, request)

    def _start_first(self, change: Change, old: Instance, request: InstanceRequest) -> None:
        application, client = self._application, self._application.client
        with suppress(TrivetError):  # of an update that was killed
            client.instances.remove(f"{request.name}-next", force=True)
        quiet = msgspec.structs.replace(request, name=f"{request.name}-next", ports=[])
        key = application.create(quiet, change.files)
        try:
            application.start(self._name, key)
            self._watch(key)
            if request.ports:
                wish = TakeoverRequest(source=old.id, ports=request.ports, drain=request.stop_timeout)
                client.instances.take_over(key, wish)
        except BaseException:
            client.instances.remove(key, force=True)
            raise
        application.stop(self._name, old.id)
        client.instances.remove(old.id, force=True)
        client.instances.rename(key, request.name)
        application.tell(change.name, "replaced")

    def _stop_first(self, change: Change, old: Instance, request: InstanceRequest) -> None:
        application, client = self._application, self._application.client
        aside = f"{old.id[:12]}_{request.name}"
        was_running = old.status in ("running", "paused", "restarting")
        if was_running:
            application.stop(self._name, old.id)
        client.instances.rename(old.id, aside)
        key = ""
        try:
            key = application.create(request, change.files)
            if self._start:
                application.start(self._name, key)
                self._watch(key)
        except BaseException:
            if key:
                client.instances.remove(key, force=True)
            client.instances.rename(old.id, request.name)
            if was_running:
                client.instances.start(old.id)
            raise
        client.instances.remove(old.id, force=True)
        application.tell(change.name, "recreated")

    def _watch(self, key: str) -> None:
        """Wait until a new instance is healthy, and runs on for as long as it is to be monitored."""
        if not self._watched:
            return
        self._application.await_healthy(key, None, checked_only=True)
        end = time.monotonic() + self._monitor
        while time.monotonic() < end:
            time.sleep(BEAT)
            self._application.await_healthy(key, None, checked_only=True)


def _alone(request: InstanceRequest) -> bool:
    """Tell whether two of these can't run side by side: each wants the same address, or the host's own ports."""
    fixed = any(one.ip or one.ip6 or one.mac or one.network == "host" for one in request.networks)
    return fixed or (request.isolation == "process" and bool(request.ports))
