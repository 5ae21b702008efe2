"""What a table has read or written lately, so that it needn't be read again.

Only the holder of the record file's lock may use it; it is emptied when a transaction is taken back.
"""

from __future__ import annotations

from collections.abc import Callable

LIMIT = 4096  # of records


class Known:
    """Records of one kind by key and by name. What isn't here may exist all the same."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str | None, object]] = {}
        self._keys: dict[str, str] = {}
        self.everything: list[object] | None = None
        """All there are, oldest first, until something changes."""
        self.followers: list[Callable[[str], object]] = []

    def tell(self, key: str) -> None:
        """Tell those who follow that a record was written or removed."""
        for follower in self.followers:
            follower(key)

    def get(self, key: str) -> object | None:
        """Give the record of a key."""
        found = self._values.get(key)
        return found and found[1]

    def by_name(self, name: str) -> object | None:
        """Give the record of a name."""
        key = self._keys.get(name)
        return None if key is None else self.get(key)

    def keep(self, key: str, name: str | None, value: object) -> None:
        """Remember a record under its key and its name, and under no other name."""
        self.drop(key)
        if len(self._values) >= LIMIT:
            self.clear()
        self._values[key] = name, value
        if name is not None:
            self._keys[name] = key

    def change(self, key: str, value: object) -> None:
        """Replace a record that is remembered; its name stays."""
        self.everything = None
        if found := self._values.get(key):
            self._values[key] = found[0], value

    def drop(self, key: str) -> None:
        """Forget a record."""
        self.everything = None
        found = self._values.pop(key, None)
        if found and found[0] is not None:
            self._keys.pop(found[0], None)

    def clear(self) -> None:
        """Forget all."""
        self.everything = None
        self._values.clear()
        self._keys.clear()
