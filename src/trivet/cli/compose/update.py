"""Replace the instances of a service one after another, as `deploy.update_config` says; a bad one doesn't stay."""

from __future__ import annotations

import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
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


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How instances are replaced: `together` at once (0: all), `ratio` of them may fail."""

    order: str
    on_failure: str
    together: int
    delay: float
    monitor: float
    ratio: float


def policy(name: str, service: dict[str, Any], key: str = "update_config") -> Policy:
    """Read `update_config` or `rollback_config`. Raises `ComposeError` for what can't be meant."""
    place, found = f"services.{name}.deploy.{key}", (service.get("deploy") or {}).get(key) or {}
    actions = ACTIONS if key == "update_config" else ACTIONS[:2]
    order, action = str(found.get("order", "stop-first")), str(found.get("failure_action", "pause"))
    for what, text, known in (("order", order, ORDERS), ("failure_action", action, actions)):
        if text not in known:
            raise ComposeError(f"{place}.{what}", f"{text!r} is none of {', '.join(known)}")
    try:
        return Policy(
            order=order,
            on_failure=action,
            together=int(found.get("parallelism", 1)),
            delay=value.duration(str(found.get("delay") or "0")),
            monitor=value.duration(str(found.get("monitor") or "0")),
            ratio=float(found.get("max_failure_ratio") or 0),
        )
    except (ValueError, ArgumentTypeError) as error:
        raise ComposeError(place, str(error)) from error


class Rollout:
    """The rolling update of one service. Raises `ComposeError` for a configuration that can't be meant."""

    def __init__(self, application: Application, name: str, service: dict[str, Any], *, start: bool) -> None:
        self._application, self._name, self._start = application, name, start
        deploy = service.get("deploy") or {}
        self._policy = self._forth = policy(name, service)
        self._back = policy(name, service, "rollback_config") if deploy.get("rollback_config") else self._forth
        self._watched = bool(deploy.get("update_config")) or self._forth.order == "start-first"

    def run(self, changes: list[Change]) -> None:
        """Replace the instances. Raises what went wrong, after undoing what the configuration says."""
        done: list[Change] = []
        failed = 0
        for change in self._paced(changes):
            try:
                self._replace(change, change.current, change.request)
                done.append(change)
            except TrivetError as error:
                failed += 1
                if self._policy.on_failure == "continue" or failed / len(changes) <= self._policy.ratio:
                    self._application.tell(change.name, f"not updated: {error.message}")
                    continue
                if self._policy.on_failure == "rollback":
                    self._roll_back(done)
                raise

    def _paced(self, changes: list[Change]) -> Iterator[Change]:
        """Give one after another, with the delay between batches."""
        size = self._policy.together or len(changes)
        for number, change in enumerate(changes):
            if number and number % size == 0 and self._policy.delay:
                time.sleep(self._policy.delay)
            yield change

    def _roll_back(self, done: list[Change]) -> None:
        self._policy = self._back
        for change in self._paced(done[::-1]):
            now = self._application.client.instances.get(change.name)
            if change.current is None:
                continue
            try:
                self._replace(change, now, change.current.request)
                self._application.tell(change.name, "rolled back")
            except TrivetError as error:
                if self._policy.on_failure != "continue":
                    raise
                self._application.tell(change.name, f"not rolled back: {error.message}")

    def _replace(self, change: Change, old: Instance | None, request: InstanceRequest | None) -> None:
        if old is None or request is None:
            return
        request = self._application.carried(request, old)
        if self._policy.order == "start-first" and self._start and old.status == "running":
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
        end = time.monotonic() + self._policy.monitor
        while time.monotonic() < end:
            time.sleep(BEAT)
            self._application.await_healthy(key, None, checked_only=True)


def _alone(request: InstanceRequest) -> bool:
    """Tell whether two of these can't run side by side: each wants the same address, or the host's own ports."""
    fixed = any(one.ip or one.ip6 or one.mac or one.network == "host" for one in request.networks)
    return fixed or (request.isolation == "process" and bool(request.ports))
