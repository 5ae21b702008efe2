"""What can go wrong inside a launch, said in the words of the person who typed the command.

Every level executes its plan with the same launcher, so one table translates its failures for all.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from trivet.base.error import Denied, Exhausted, Internal, InvalidArgument, NotFound, TrivetError, Unsupported
from trivet.launch.failure import LaunchError
from trivet.launch.operation import Bind, Exec, Mount, OpenOverlay, OpenTree, Operation, Sysctl, User, WorkingDirectory


class ProgramNotFound(NotFound):
    """The program isn't in the image (the command's exit code 127)."""

    exit_code = 127

    def __init__(self, name: str, path: str, instance: str) -> None:
        where = "" if "/" in name else f" in PATH ({path or 'not set'})"
        super().__init__(f"program {name} not found{where} of {instance}")


class ProgramNotExecutable(Denied):
    """The program is there and can't be executed (the command's exit code 126)."""

    exit_code = 126

    def __init__(self, name: str, instance: str, cause: str, *, hint: str | None = None) -> None:
        super().__init__(f"cannot execute program {name} of {instance}: {cause}", hint=hint)


class UnknownUser(InvalidArgument):
    """The user or group isn't in the image's /etc/passwd or /etc/group, or isn't a number in range."""

    def __init__(self, spec: str, instance: str, cause: str) -> None:
        super().__init__(f"cannot run {instance} as user {spec}: {cause}")


class MountSourceMissing(NotFound):
    """A host path that was to be shown inside isn't there."""

    def __init__(self, source: str, target: str = "") -> None:
        where = f" at {target}" if target else ""
        super().__init__(f"cannot mount {source}{where}: no such file or directory on the host")


class MountFailed(InvalidArgument):
    """A mount that the kernel refused."""

    def __init__(self, target: str, cause: str) -> None:
        super().__init__(f"cannot mount at {target}: {cause}")


class WorkingDirectoryInvalid(InvalidArgument):
    """A working directory that can't be entered or made."""

    def __init__(self, path: str, instance: str, cause: str) -> None:
        super().__init__(f"cannot enter working directory {path} of {instance}: {cause}")


class SysctlRefused(InvalidArgument):
    """A kernel parameter that isn't there or doesn't take the value."""

    def __init__(self, path: str, value: str, cause: str) -> None:
        super().__init__(f"cannot set sysctl {path.replace('/', '.')} to {value!r}: {cause}")


class ArgumentsTooLong(InvalidArgument):
    """More arguments and environment than the kernel takes."""

    def __init__(self, instance: str) -> None:
        super().__init__(f"the arguments and environment of {instance} are too long for the kernel")


class SetupFailed(Internal):
    """A step that should have worked; names it as `--dry-run` shows it."""

    def __init__(self, instance: str, step: str, cause: str) -> None:
        super().__init__(f"cannot set up {instance}: {cause} (step: {step})")


class SetupUnsupported(Unsupported):
    """A step this kernel can't do."""

    def __init__(self, instance: str, step: str, cause: str) -> None:
        super().__init__(f"cannot set up {instance}: {cause} (step: {step})")


class LayersUnmapped(Unsupported):
    """A kernel or file system on which layers can't be shown with other owners."""

    def __init__(self, instance: str, cause: str) -> None:
        super().__init__(
            f"cannot give {instance} users of its own: {cause}",
            hint="that takes Linux 5.19 and layers on a file system such as ext4, xfs or btrfs; or use --userns host",
        )


class SetupExhausted(Exhausted):
    """A step for which space, memory or a quota was missing."""

    def __init__(self, instance: str, step: str, cause: str) -> None:
        super().__init__(f"cannot set up {instance}: {cause} (step: {step})")


def explain(operation: Operation | None, number: int, text: str, instance: str) -> TrivetError:
    """Say what a failed operation means. `text` is the launcher's, "" if it had nothing to add to errno."""
    cause = text or (os.strerror(number).lower() if number else "unknown cause")
    match operation:
        case Exec():
            return _program(operation, number, text, instance)
        case User():
            return UnknownUser(operation.spec, instance, cause)
        case Bind() if number == errno.ENOENT and not os.path.lexists(operation.source):
            return MountSourceMissing(operation.source, operation.target)
        case OpenTree() if number == errno.ENOENT and not os.path.lexists(operation.source):
            return MountSourceMissing(operation.source)
        case OpenOverlay() if number == errno.EINVAL:
            return LayersUnmapped(instance, _with(cause, number))
        case OpenTree() if number not in _EXHAUSTED:
            return MountFailed(operation.source, _with(cause, number))
        case Bind() | Mount() if number not in _EXHAUSTED:
            return MountFailed(operation.target, _with(cause, number))
        case WorkingDirectory():
            return WorkingDirectoryInvalid(operation.path, instance, cause)
        case Sysctl():
            return SysctlRefused(operation.path, operation.value, _with(cause, number))
        case _:
            step = operation.describe() if operation is not None else "launch"
            return _KIND.get(number, SetupFailed)(instance, step[:120], _with(cause, number))


@contextmanager
def explained(instance: str) -> Iterator[None]:
    """Say in those words what could not be launched."""
    try:
        yield
    except LaunchError as error:
        raise explain(error.operation, error.errno, error.text, instance) from error
    except (ValueError, OverflowError) as error:  # a NUL byte in a string, a number beyond 64 bits
        raise InvalidArgument(f"cannot start {instance}: {error}") from error


def exit_code(error: TrivetError) -> int:
    """Give the exit code of the command: 127 not found, 126 can't be executed, 125 anything else."""
    match error:
        case ProgramNotFound():
            return 127
        case ProgramNotExecutable():
            return 126
        case _:
            return 125


def _program(operation: Exec, number: int, text: str, instance: str) -> TrivetError:
    name = operation.argv[0]
    path = next((word[5:] for word in operation.env if word.startswith("PATH=")), "")
    match number:
        case errno.ENOENT if "interpreter" in text:
            return ProgramNotExecutable(
                name, instance, text, hint="the image lacks the program's interpreter or loader"
            )
        case errno.ENOENT | errno.ENOTDIR:
            return ProgramNotFound(name, path, instance)
        case errno.ENOEXEC:
            return ProgramNotExecutable(
                name,
                instance,
                "exec format error",
                hint="the program may be built for another architecture, or be a script without a #! line",
            )
        case errno.E2BIG:
            return ArgumentsTooLong(instance)
        case _:
            return ProgramNotExecutable(name, instance, text or os.strerror(number).lower())


def _with(cause: str, number: int) -> str:
    """Add errno's words unless they are in the text already."""
    words = os.strerror(number).lower() if number else ""
    return cause if not words or words in cause.lower() else f"{cause}: {words}"


_EXHAUSTED = (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
_KIND: dict[int, type[SetupFailed | SetupUnsupported | SetupExhausted]] = {
    errno.ENOSYS: SetupUnsupported,
    errno.EOPNOTSUPP: SetupUnsupported,
    errno.ENODEV: SetupUnsupported,
    **dict.fromkeys(_EXHAUSTED, SetupExhausted),
}
