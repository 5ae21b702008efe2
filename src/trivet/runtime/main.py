"""`trivet-runtime`: where the command begins; what it does is in command.py.

Every start pays for what is imported, so nothing is that isn't needed, on the way to any verb.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

ABSENT = "typing_extensions"  # msgspec takes it when it is there, a quarter of the time of a start


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is the verb's, or 1 after an error."""
    words = sys.argv[1:] if words is None else words
    if "run" in words:
        from trivet.runtime import replay

        code = replay.run(words)
        if code is not None:
            return code
    return _command(words)


def _command(words: Sequence[str]) -> int:
    hidden = ABSENT not in sys.modules
    if hidden:
        sys.modules[ABSENT] = None  # type: ignore[assignment]
    try:
        from trivet.runtime import command
    finally:
        if hidden:
            del sys.modules[ABSENT]
    return command.main(words)


if __name__ == "__main__":
    sys.exit(main())
