"""The instructions of a Dockerfile, as written: variables are not expanded yet."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from trivet.build.device import RunDevice
from trivet.build.mount import RunMount
from trivet.build.source import Heredoc


class Instruction(msgspec.Struct, frozen=True, kw_only=True):
    """What all instructions know: the line they begin at, and their text with continuations joined."""

    keyword: ClassVar[str] = ""
    line: int
    text: str


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command in exec form (a JSON array), or in shell form: then `words` is one line for the shell."""

    words: tuple[str, ...]
    shell: bool

    def argv(self, shell: tuple[str, ...]) -> tuple[str, ...]:
        """Give what is executed, with `shell` (program and options) in front of the shell form."""
        return (*shell, *self.words) if self.shell else self.words


class From(Instruction, frozen=True, kw_only=True):
    keyword = "FROM"
    image: str
    platform: str = ""
    name: str = ""


class Run(Instruction, frozen=True, kw_only=True):
    keyword = "RUN"
    command: Command
    network: str = ""
    security: str = ""
    mounts: tuple[RunMount, ...] = ()
    devices: tuple[RunDevice, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


class Copy(Instruction, frozen=True, kw_only=True):
    keyword = "COPY"
    sources: tuple[str, ...]
    target: str
    origin: str = ""
    chown: str = ""
    chmod: str = ""
    exclude: tuple[str, ...] = ()
    parents: bool = False
    link: bool = False
    heredocs: tuple[Heredoc, ...] = ()


class Add(Copy, frozen=True, kw_only=True):
    """As COPY; a source may be a URL or a Git repository.

    `unpack` tells whether archives are unpacked; None is yes for local ones, no for those of a URL.
    """

    keyword = "ADD"
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None


class Env(Instruction, frozen=True, kw_only=True):
    keyword = "ENV"
    pairs: tuple[tuple[str, str], ...]


class Arg(Instruction, frozen=True, kw_only=True):
    """A default of None means there is none, which differs from an empty one."""

    keyword = "ARG"
    pairs: tuple[tuple[str, str | None], ...]


class Label(Instruction, frozen=True, kw_only=True):
    keyword = "LABEL"
    pairs: tuple[tuple[str, str], ...]


class Workdir(Instruction, frozen=True, kw_only=True):
    keyword = "WORKDIR"
    path: str


class User(Instruction, frozen=True, kw_only=True):
    keyword = "USER"
    user: str


class Cmd(Instruction, frozen=True, kw_only=True):
    keyword = "CMD"
    command: Command


class Entrypoint(Instruction, frozen=True, kw_only=True):
    keyword = "ENTRYPOINT"
    command: Command


class Expose(Instruction, frozen=True, kw_only=True):
    keyword = "EXPOSE"
    ports: tuple[str, ...]


class Volume(Instruction, frozen=True, kw_only=True):
    keyword = "VOLUME"
    paths: tuple[str, ...]


class StopSignal(Instruction, frozen=True, kw_only=True):
    keyword = "STOPSIGNAL"
    signal: str


class Shell(Instruction, frozen=True, kw_only=True):
    keyword = "SHELL"
    words: tuple[str, ...]


class Healthcheck(Instruction, frozen=True, kw_only=True):
    """`command` None is HEALTHCHECK NONE; times in nanoseconds, 0 is the engine's default."""

    keyword = "HEALTHCHECK"
    command: Command | None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class OnBuild(Instruction, frozen=True, kw_only=True):
    """`trigger` is the instruction to be carried out by builds on top of this image."""

    keyword = "ONBUILD"
    trigger: str


class Maintainer(Instruction, frozen=True, kw_only=True):
    keyword = "MAINTAINER"
    name: str
