"""From the wire's problem to an exception: the kinds of `base/error.py`, one class each."""

from __future__ import annotations

import errno

import msgspec

from trivet.base import error
from trivet.base.error import TrivetError, Unavailable
from trivet.client.schema import Problem

CLASSES: dict[str, type[TrivetError]] = {
    kind.kind.value: kind
    for kind in (
        error.NotFound,
        error.AlreadyExists,
        error.Conflict,
        error.InvalidArgument,
        error.Denied,
        error.Unauthenticated,
        error.Unavailable,
        error.Unsupported,
        error.Exhausted,
        error.TimedOut,
        error.Cancelled,
        error.Corrupt,
        error.Internal,
    )
}

REFUSED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127

# What a failed start exits with, by the errno of the step that failed; the same table as Docker's, which reads texts.
EXIT_CODES = {
    errno.ENOENT: NOT_FOUND,
    errno.ENOTDIR: NOT_EXECUTABLE,
    errno.EACCES: NOT_EXECUTABLE,
    errno.EPERM: NOT_EXECUTABLE,
    errno.ENOEXEC: NOT_EXECUTABLE,
    errno.EISDIR: NOT_EXECUTABLE,
}


class EngineGone(Unavailable):
    """Nobody answers, or the answer broke off."""


class ProgramFailed(TrivetError):
    """The program could not be started; `exit_code` is 125, 126 or 127."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


def error_of(problem: Problem) -> TrivetError:
    """Build the exception a problem stands for; unknown kinds become `Internal`."""
    if problem.exit_code:
        return ProgramFailed(problem.message, exit_code=problem.exit_code, hint=problem.hint)
    return CLASSES.get(problem.kind, error.Internal)(problem.message, hint=problem.hint)


def error_of_head(status: int) -> TrivetError:
    """Build the exception of a failed HEAD, which has a status and nothing else."""
    kinds = {403: error.Denied, 404: error.NotFound, 409: error.Conflict, 501: error.Unsupported}
    return kinds.get(status, error.Internal)(f"the engine answered {status}")


def error_of_answer(status: int, body: bytes) -> TrivetError:
    """Build the exception of a non-2xx answer, whose body should be a `Problem`."""
    try:
        return error_of(msgspec.json.decode(body, type=Problem))
    except msgspec.DecodeError:
        text = body[:200].decode(errors="replace").strip()
        return error.Internal(f"the engine answered {status}: {text or 'nothing'}", hint="is something else listening?")


def error_of_start(number: int, text: bytes) -> ProgramFailed:
    """Build the exception of a FAILED frame: errno, and a `Problem` as JSON (or plain text)."""
    code = EXIT_CODES.get(number, REFUSED)
    try:
        problem = msgspec.json.decode(text, type=Problem)
    except msgspec.DecodeError:
        return ProgramFailed(text.decode(errors="replace") or "the program could not be started", exit_code=code)
    return ProgramFailed(problem.message, exit_code=problem.exit_code or code, hint=problem.hint)
