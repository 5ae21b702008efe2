"""`trivet-runtime`: where the command begins; what it does is in command.py.

Every start pays for what is imported, so nothing is that isn't needed, on the way to any verb.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is the verb's, or 1 after an error."""
    with _absent("typing_extensions"):  # msgspec takes it when it is there, a quarter of the time of a start
        from trivet.runtime import command
    return command.main(sys.argv[1:] if words is None else words)


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Let an import find no such module."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


if __name__ == "__main__":
    sys.exit(main())
