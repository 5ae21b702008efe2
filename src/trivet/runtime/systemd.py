"""systemd's manager, asked over D-Bus (org.freedesktop.systemd1(5)) for transient units.

Root asks the machine's manager, an ordinary user the one of their own session.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jeepney import DBusAddress, MatchRule, Message, MessageType, Properties, message_bus, new_method_call
from jeepney.io.blocking import DBusConnection, open_dbus_connection

from trivet.base.error import Conflict, TimedOut, Unavailable

Property = tuple[str, tuple[str, Any]]
"""A unit's property: name, and value with its D-Bus signature."""

_BUS = "org.freedesktop.systemd1"
_MANAGER = DBusAddress("/org/freedesktop/systemd1", _BUS, f"{_BUS}.Manager")
_PATIENCE = 30.0
_GONE = (f"{_BUS}.NoSuchUnit", f"{_BUS}.UnitNotLoaded")
_EXISTS = f"{_BUS}.UnitExists"


class NoManager(Unavailable):
    """systemd can't be asked."""

    def __init__(self, cause: object) -> None:
        super().__init__(
            f"cannot reach systemd over D-Bus: {cause}", hint="install and start dbus, or leave --systemd-cgroup out"
        )


class Refused(Unavailable):
    """systemd's answer was no."""

    def __init__(self, what: str, name: str, words: str) -> None:
        super().__init__(f"systemd refuses to {what}: {words or name}")
        self.name = name


class Manager:
    """A connection to a manager."""

    def __init__(self, *, user: bool) -> None:
        """Connect. Raises `NoManager`."""
        try:
            self._connection: DBusConnection = open_dbus_connection(
                _address() if user else "SYSTEM", auth_timeout=_PATIENCE
            )
        except (OSError, KeyError, ValueError) as error:
            raise NoManager(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def root(self) -> str:
        """Give the manager's own control group, below which all its units are."""
        message = Properties(_MANAGER).get("ControlGroup")
        (_, path) = self._ask("name its control group", message)[0]
        return str(path).strip("/")

    def start(self, unit: str, properties: Sequence[Property]) -> None:
        """Make a transient unit and wait until it is there. Raises `Conflict` when there is one of that name."""
        body: tuple[Any, ...] = (unit, "fail", list(properties), [])
        call = new_method_call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", body)
        try:
            self._job(f"start {unit}", call)
        except Refused as error:
            if error.name != _EXISTS:
                raise
            raise Conflict(f"systemd has a unit {unit} already", hint=f"systemctl status {unit}") from error

    def change(self, unit: str, properties: Sequence[Property]) -> None:
        """Set properties of a unit until it ends."""
        body = (unit, True, list(properties))
        self._ask(f"change {unit}", new_method_call(_MANAGER, "SetUnitProperties", "sba(sv)", body))

    def attach(self, unit: str, pid: int) -> None:
        """Move a process into a unit's control group."""
        body = (unit, "", [pid])
        self._ask(f"move a process to {unit}", new_method_call(_MANAGER, "AttachProcessesToUnit", "ssau", body))

    def stop(self, unit: str) -> None:
        """Stop a unit, wait for it, and have it forgotten; one that isn't there is fine."""
        try:
            self._job(f"stop {unit}", new_method_call(_MANAGER, "StopUnit", "ss", (unit, "replace")))
        except Refused as error:
            if error.name not in _GONE:
                raise
        self.forget(unit)

    def forget(self, unit: str) -> None:
        """Let systemd forget that a unit failed."""
        try:
            self._ask(f"forget {unit}", new_method_call(_MANAGER, "ResetFailedUnit", "s", (unit,)))
        except Refused as error:
            if error.name not in _GONE:
                raise

    def _job(self, what: str, call: Message) -> None:
        """Ask for a job and wait for its end."""
        ended: deque[Message] = deque()
        rule = MatchRule(type="signal", sender=_BUS, interface=f"{_BUS}.Manager", member="JobRemoved")
        self._ask("tell about jobs", message_bus.AddMatch(rule))
        self._ask("tell about jobs", new_method_call(_MANAGER, "Subscribe"))
        deadline = time.monotonic() + _PATIENCE
        signal = MatchRule(type="signal", interface=f"{_BUS}.Manager", member="JobRemoved")
        with self._connection.filter(signal, queue=ended):
            job = self._ask(what, call)[0]
            while True:
                try:
                    message = self._connection.recv_until_filtered(ended, timeout=max(deadline - time.monotonic(), 0))
                except TimeoutError as error:
                    raise TimedOut(f"systemd did not {what} within {_PATIENCE:.0f} s") from error
                _, path, _, result = message.body
                if path == job:
                    break
        if result not in ("done", "skipped"):
            raise Refused(what, "", f"the job ended as {result}")

    def _ask(self, what: str, call: Message) -> tuple[Any, ...]:
        try:
            answer = self._connection.send_and_get_reply(call, timeout=_PATIENCE)
        except TimeoutError as error:
            raise TimedOut(f"systemd did not {what} within {_PATIENCE:.0f} s") from error
        except OSError as error:
            raise NoManager(error) from error
        body: tuple[Any, ...] = answer.body
        if answer.header.message_type is MessageType.error:
            names = {int(key): value for key, value in answer.header.fields.items()}
            raise Refused(what, str(names.get(_ERROR_NAME, "")), str(body[0]) if body else "")
        return body


_ERROR_NAME = 4  # D-Bus Specification, "Header Fields"


def _address() -> str:
    """Give the address of this user's bus."""
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"unix:path={_runtime()}/bus"


def _runtime() -> Path:
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
