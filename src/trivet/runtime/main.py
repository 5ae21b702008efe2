"""`trivet-runtime`: where the command begins; what it does is in command.py.

Every start pays for what is imported, so nothing is that isn't needed, on the way to any verb.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT = "typing_extensions"  # msgspec takes it when it is there, a quarter of the time of a start


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is the verb's, or 1 after an error. Without `words` they are the process's own."""
    given = sys.argv[1:] if words is None else words
    code = _command(given)
    return code if words is not None else _leave(code)


def _leave(code: int) -> int:
    """End the process without taking the interpreter apart first."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = code or 1
    os._exit(code)


def _command(words: Sequence[str]) -> int:
    gc.disable()  # until the verb's modules are there, nothing becomes garbage
    hidden = ABSENT not in sys.modules
    if hidden:
        sys.modules[ABSENT] = None  # type: ignore[assignment]
    try:
        from trivet.runtime import command
    finally:
        if hidden:
            del sys.modules[ABSENT]
    try:
        return command.main(words)
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.exit(main())
