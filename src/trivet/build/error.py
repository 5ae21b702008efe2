"""What can go wrong in a build.

BuildError
├── DockerfileError   an instruction is wrong; says file:line
├── ContextError      the context or .dockerignore is wrong
└── StepFailed        a RUN command ended with a status other than 0
"""

from __future__ import annotations

from trivet.base.error import InvalidArgument


class BuildError(InvalidArgument):
    """A build that cannot go on. Names of files that are no UTF-8 are shown escaped."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message.encode("utf-8", "backslashreplace").decode(), hint=hint)


class DockerfileError(BuildError):
    """An instruction that cannot be understood or carried out."""

    def __init__(self, file: str, line: int, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{file}:{line}: {problem}", hint=hint)
        self.file = file
        self.line = line


class ContextError(BuildError):
    """A build context that cannot be used."""


class StepFailed(BuildError):
    """A command of a RUN instruction failed; `output` is its last lines."""

    def __init__(self, file: str, line: int, command: str, code: int, output: str) -> None:
        tail = f":\n{output}" if output else ""
        super().__init__(f"{file}:{line}: RUN {command} ended with exit code {code}{tail}", hint=_hint(code))
        self.file = file
        self.line = line
        self.command = command
        self.code = code
        self.output = output


def _hint(code: int) -> str | None:
    if code == 127:
        return "the program is not in the image; install it in an earlier step"
    if code == 126:
        return "the program is there but cannot be executed; look at its mode and its interpreter"
    if code == 137:
        return "it was killed; perhaps memory ran out"
    return None
