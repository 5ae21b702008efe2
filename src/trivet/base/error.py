"""The closed set of error kinds, and the exception every noun derives its own from.

    TrivetError
    ├── NotFound          the named object does not exist
    ├── AlreadyExists     the name, port or file is taken
    ├── Conflict          the object is in a status that forbids this
    ├── InvalidArgument   the request itself is wrong, now and always
    ├── Denied            policy or permission says no
    ├── Unauthenticated   the other side wants to know who we are
    ├── Unavailable       a helper, host or registry does not answer
    ├── Unsupported       this level, machine or version cannot do it
    ├── Exhausted         no space, no address, no memory left
    ├── TimedOut          it took longer than allowed
    ├── Cancelled         somebody asked to stop
    ├── Corrupt           stored or received data is not what it says it is
    └── Internal          a defect of trivet

Each door maps the kind once: HTTP status, Docker's text, the command's exit code.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """What went wrong, for machines."""

    NOT_FOUND = "not-found"
    ALREADY_EXISTS = "already-exists"
    CONFLICT = "conflict"
    INVALID_ARGUMENT = "invalid-argument"
    DENIED = "denied"
    UNAUTHENTICATED = "unauthenticated"
    UNAVAILABLE = "unavailable"
    UNSUPPORTED = "unsupported"
    EXHAUSTED = "exhausted"
    TIMED_OUT = "timed-out"
    CANCELLED = "cancelled"
    CORRUPT = "corrupt"
    INTERNAL = "internal"


class TrivetError(Exception):
    """One sentence for people, a kind for machines, perhaps a next step.

    `message` is lower case, has no full stop, and names the object and the cause.
    `hint` is the next command to type, or what to install. `exit_code` is 126 or 127 where the program
    that was to run is the reason, 0 otherwise.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL
    exit_code: ClassVar[int] = 0

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(TrivetError):
    kind = Kind.NOT_FOUND


class AlreadyExists(TrivetError):
    kind = Kind.ALREADY_EXISTS


class Conflict(TrivetError):
    kind = Kind.CONFLICT


class InvalidArgument(TrivetError):
    kind = Kind.INVALID_ARGUMENT


class Denied(TrivetError):
    kind = Kind.DENIED


class Unauthenticated(TrivetError):
    kind = Kind.UNAUTHENTICATED


class Unavailable(TrivetError):
    kind = Kind.UNAVAILABLE


class Unsupported(TrivetError):
    kind = Kind.UNSUPPORTED


class Exhausted(TrivetError):
    kind = Kind.EXHAUSTED


class TimedOut(TrivetError):
    kind = Kind.TIMED_OUT


class Cancelled(TrivetError):
    kind = Kind.CANCELLED


class Corrupt(TrivetError):
    kind = Kind.CORRUPT


class Internal(TrivetError):
    kind = Kind.INTERNAL
