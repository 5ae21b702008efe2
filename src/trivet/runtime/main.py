"""`trivet-runtime`: where the command begins; what it does is in command.py.

Every start pays for what is imported, so nothing is that isn't needed, on the way to any verb.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ABSENT = "typing_extensions"  # msgspec takes it when it is there, a quarter of the time of a start


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code is the verb's, or 1 after an error. Without `words` they are the process's own."""
    given = sys.argv[1:] if words is None else words
    if "run" in given:
        from trivet.runtime import replay

        code = replay.run(given)
        if code is not None and words is None:
            sys.stderr.flush()
            os._exit(code)  # nothing is left that the interpreter would have to take apart first
        if code is not None:
            return code
    return _command(given)


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
