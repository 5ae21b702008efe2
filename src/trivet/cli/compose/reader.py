"""Reading values of one service; what can't be read is told with its place."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any

from trivet.base.error import TrivetError
from trivet.cli import value
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.merge import Value, as_list
from trivet.cli.compose.project import Project


class Reader:
    """Reads values of one service; what can't be read is told with its place."""

    def __init__(self, name: str, service: Value, project: Project) -> None:
        self.name, self.service, self.project = name, service, project
        self.is_job = name in project.jobs
        self.place = f"{'jobs' if self.is_job else 'services'}.{name}"

    def get(self, key: str, read: Callable[[str], Any], default: Any = None, within: Value | None = None) -> Any:
        """Read one value as text. Raises `ComposeError`."""
        found = (self.service if within is None else within).get(key)
        if found is None:
            return default
        try:
            return read(str(found).lower() if isinstance(found, bool) else str(found))
        except (ArgumentTypeError, TrivetError, ValueError) as error:
            raise ComposeError(f"{self.place}.{key}", str(error)) from error

    def flag(self, key: str, default: bool = False, within: Value | None = None) -> bool:
        """Read what is true or false, also as a text that a variable was put into. Raises `ComposeError`."""
        return bool(self.get(key, value.boolean, default, within))

    def mapping(self, key: str) -> Value:
        """Read a mapping, empty where there is none. Raises `ComposeError`."""
        found = self.service.get(key) or {}
        if not isinstance(found, dict):
            raise ComposeError(f"{self.place}.{key}", "is not a mapping")
        return found

    def each(self, key: str, read: Callable[[str], Any] = str) -> list[Any]:
        """Read a list, or one value as a list of one. Raises `ComposeError`."""
        found = self.service.get(key)
        return [self.get(key, read, within={key: one}) for one in ([] if found is None else as_list(found))]
