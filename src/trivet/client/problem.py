"""From the wire's problem to an exception: the kinds of `base/error.py`, one class each."""

from __future__ import annotations

import errno

import msgspec

from trivet.base import error
from trivet.base.error import TrivetError, Unavailable
from trivet.client.schema_progress import Problem

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


class EngineGone(Unavailable):
    """Nobody answers, or the answer broke off."""


class ProgramFailed(TrivetError):
    """The program could not be started, for a reason that isn't the program itself."""

    exit_code = 125


class ProgramNotExecutable(ProgramFailed):
    """The program is there, but can't be executed."""

    exit_code = 126


class ProgramNotFound(ProgramFailed):
    """There is no such program in the image."""

    exit_code = 127


# The reason of a failed start by the errno of the step that failed; Docker has the same table by texts.
BY_ERRNO: dict[int, type[ProgramFailed]] = {
    errno.ENOENT: ProgramNotFound,
    errno.ENOTDIR: ProgramNotExecutable,
    errno.EACCES: ProgramNotExecutable,
    errno.EPERM: ProgramNotExecutable,
    errno.ENOEXEC: ProgramNotExecutable,
    errno.EISDIR: ProgramNotExecutable,
}
BY_EXIT_CODE = {kind.exit_code: kind for kind in (ProgramFailed, ProgramNotExecutable, ProgramNotFound)}


def error_of(problem: Problem) -> TrivetError:
    """Build the exception a problem stands for; unknown kinds become `Internal`."""
    kind = BY_EXIT_CODE.get(problem.exit_code) or CLASSES.get(problem.kind, error.Internal)
    return kind(problem.message, hint=problem.hint)


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
    try:
        problem = msgspec.json.decode(text, type=Problem)
    except msgspec.DecodeError:
        problem = Problem(kind="internal", message=text.decode(errors="replace") or "the program could not be started")
    kind = BY_EXIT_CODE.get(problem.exit_code) or BY_ERRNO.get(number, ProgramFailed)
    return kind(problem.message, hint=problem.hint)
