"""Logical lines to instructions: one small reader per keyword, joined by a table."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from trivet.build import instruction
from trivet.build.device import DeviceError, parse_device
from trivet.build.error import DockerfileError
from trivet.build.flag import FlagError, Flags, read_flags
from trivet.build.instruction import Command, Instruction
from trivet.build.mount import MountError, parse_mount
from trivet.build.source import Line, Source, read_source
from trivet.build.word import WordError, split_words

_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*$")


class Dockerfile(msgspec.Struct, frozen=True, kw_only=True):
    """A Dockerfile that was understood; `file` is its name in messages, `rows` its text.

    `check` is that directive's value; `empty_continuations` numbers the lines that a continuation leaves empty.
    """

    file: str
    escape: str
    instructions: tuple[Instruction, ...]
    rows: tuple[str, ...] = ()
    check: str = ""
    empty_continuations: tuple[int, ...] = ()


class _Problem(ValueError):
    """What is wrong with the arguments of an instruction; place and keyword are added by the caller."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.hint = hint


def parse(text: str, file: str = "Dockerfile") -> Dockerfile:
    """Understand a Dockerfile. Raises `DockerfileError`, with file and line, and nothing else."""
    source = read_source(text, file)
    read = tuple(parse_line(source, line) for line in source.lines)
    return Dockerfile(
        file=file,
        escape=source.escape,
        instructions=read,
        rows=source.rows,
        check=source.check,
        empty_continuations=source.empty_continuations,
    )


def parse_line(source: Source, line: Line) -> Instruction:
    """Understand one instruction. Raises `DockerfileError`."""
    keyword, rest = _keyword(line.text)
    reader = _READERS.get(keyword)
    if reader is None:
        near = difflib.get_close_matches(keyword, _READERS, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}" if near else None
        raise DockerfileError(source.file, line.number, f"unknown instruction {keyword[:40]}", hint=hint)
    try:
        flags, rest = read_flags(keyword, rest)
        if not rest:
            raise _Problem("needs an argument")
        return reader(_Arguments(source, line, keyword, flags, rest))
    except FlagError as error:
        raise DockerfileError(source.file, line.number, str(error), hint=error.hint) from error
    except _Problem as error:
        raise DockerfileError(source.file, line.number, f"{keyword} {error}", hint=error.hint) from error
    except (MountError, DeviceError) as error:
        raise DockerfileError(source.file, line.number, f"{keyword} {error.message}", hint=error.hint) from error
    except WordError as error:
        raise DockerfileError(source.file, line.number, f"{keyword}: {error}") from error


class _Arguments:
    """The pieces of one line, as a reader wants them."""

    def __init__(self, source: Source, line: Line, keyword: str, flags: Flags, rest: str) -> None:
        self.source = source
        self.line = line
        self.keyword = keyword
        self.rest = rest
        self._flags = flags

    @property
    def place(self) -> dict[str, Any]:
        """The fields every instruction has."""
        return {"line": self.line.number, "text": self.line.text}

    def flag(self, name: str) -> str:
        return self._flags.get(name, [""])[-1]

    def flags(self, name: str) -> tuple[str, ...]:
        return tuple(self._flags.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Read a switch; None if it isn't given."""
        text = self.flag(name).lower()
        if text not in ("", "true", "1", "false", "0"):
            raise _Problem(f"--{name}={text[:40]} is neither true nor false")
        return text in ("true", "1") if text else None

    def words(self) -> tuple[str, ...]:
        return tuple(split_words(self.rest, self.source.escape))

    def array(self) -> tuple[str, ...] | None:
        """Read a JSON array of strings; None when the text isn't JSON, which makes it the shell form."""
        if not self.rest.startswith("["):
            return None
        try:
            values = json.loads(self.rest)
        except (ValueError, RecursionError):
            return None
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise _Problem("takes a JSON array of strings only")
        return tuple(values)

    def command(self) -> Command:
        array = self.array()
        return Command(words=(self.rest,), shell=True) if array is None else Command(words=array, shell=False)

    def list(self) -> tuple[str, ...]:
        array = self.array()
        return tuple(self.rest.split()) if array is None else array


def _keyword(text: str) -> tuple[str, str]:
    keyword, *rest = text.split(None, 1)
    return keyword.upper(), rest[0] if rest else ""


def _from(given: _Arguments) -> Instruction:
    words = given.rest.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise _Problem("takes an image, or an image AS a name", "write FROM IMAGE [AS NAME]")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.match(name):
        raise _Problem(f"cannot name a stage {words[2]!r}", "a name begins with a letter and holds a-z 0-9 . _ -")
    return instruction.From(**given.place, image=words[0], name=name, platform=given.flag("platform"))


def _run(given: _Arguments) -> Instruction:
    security = given.flag("security")
    if security not in ("", "sandbox", "insecure"):
        raise _Problem(f"--security={security} is unknown", "use sandbox or insecure")
    network = given.flag("network")
    if network not in ("", "default", "none", "host"):
        raise _Problem(f"--network={network} is unknown", "use default, none or host")
    command = given.command()
    if not command.words:
        raise _Problem("needs a command")
    return instruction.Run(
        **given.place,
        command=command,
        network=network,
        security=security,
        mounts=tuple(parse_mount(text) for text in given.flags("mount")),
        devices=tuple(parse_device(text) for text in given.flags("device")),
        heredocs=given.line.heredocs,
    )


def _copy(given: _Arguments) -> Instruction:
    *sources, target = given.list() or ("",)
    inline = {opening for opening in sources if opening.startswith("<<")}
    plain = tuple(source for source in sources if source not in inline)
    if not sources:
        raise _Problem("needs at least one source and a target")
    common: dict[str, Any] = {
        **given.place,
        "sources": plain,
        "target": target,
        "chown": given.flag("chown"),
        "chmod": given.flag("chmod"),
        "exclude": given.flags("exclude"),
        "parents": bool(given.switch("parents")),
        "link": bool(given.switch("link")),
        "heredocs": given.line.heredocs,
    }
    if given.keyword == "COPY":
        return instruction.Copy(**common, origin=given.flag("from"))
    return instruction.Add(
        **common,
        checksum=given.flag("checksum"),
        keep_git_dir=bool(given.switch("keep-git-dir")),
        unpack=given.switch("unpack"),
    )


def _pairs(given: _Arguments) -> tuple[tuple[str, str], ...]:
    """Read `KEY=value ...`, or the old `KEY the rest of the line`."""
    words = given.words()
    if "=" not in words[0]:
        key, *rest = given.rest.split(None, 1)
        if not rest:
            raise _Problem(f"gives {key} no value", f"write {given.keyword} {key}=VALUE")
        return ((key, rest[0]),)
    return tuple(_pair(word) for word in words)


def _pair(word: str) -> tuple[str, str]:
    key, equals, value = word.partition("=")
    if not equals:
        raise _Problem(f"has no value for {word!r}", "quote values that hold spaces, or write KEY=VALUE")
    if not key:
        raise _Problem(f"has no name before {word!r}")
    return key, value


def _arg(given: _Arguments) -> Instruction:
    pairs: list[tuple[str, str | None]] = []
    for word in given.words():
        pairs.append(_pair(word) if "=" in word else (word, None))
    return instruction.Arg(**given.place, pairs=tuple(pairs))


def _shell(given: _Arguments) -> Instruction:
    words = given.array()
    if not words:
        raise _Problem("takes a JSON array of strings", 'write SHELL ["/bin/sh", "-c"]')
    return instruction.Shell(**given.place, words=words)


def _volume(given: _Arguments) -> Instruction:
    paths = given.list()
    if not paths or not all(path.strip() for path in paths):
        raise _Problem("takes paths that are not empty")
    return instruction.Volume(**given.place, paths=paths)


def _healthcheck(given: _Arguments) -> Instruction:
    kind, rest = _keyword(given.rest)
    if kind == "NONE" and not rest:
        return instruction.Healthcheck(**given.place, command=None)
    if kind != "CMD" or not rest:
        raise _Problem("takes CMD and a command, or NONE")
    given.rest = rest
    retries = given.flag("retries") or "0"
    if not retries.isascii() or not retries.isdigit() or len(retries) > 9:
        raise _Problem(f"--retries={retries} is not a number")
    return instruction.Healthcheck(
        **given.place,
        command=given.command(),
        interval=_duration(given.flag("interval")),
        timeout=_duration(given.flag("timeout")),
        start_period=_duration(given.flag("start-period")),
        start_interval=_duration(given.flag("start-interval")),
        retries=int(retries),
    )


def _duration(text: str) -> int:
    """Read a duration as Go writes it (1m30s) in nanoseconds; "" is 0."""
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text or len(text) > 40:
        raise _Problem(f"cannot read the duration {text[:40]!r}", "write 30s, 1m30s or 500ms")
    return sum(int(float(number) * _NANOSECONDS[unit]) for number, unit in parts)


def _onbuild(given: _Arguments) -> Instruction:
    keyword, rest = _keyword(given.rest)
    if keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        raise _Problem(f"cannot trigger {keyword}")
    trigger = f"{keyword} {rest}"
    parse_line(given.source, msgspec.structs.replace(given.line, text=trigger))
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in given.line.heredocs)
    return instruction.OnBuild(**given.place, trigger=trigger + bodies)


_READERS: dict[str, Callable[[_Arguments], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "ENV": lambda given: instruction.Env(**given.place, pairs=_pairs(given)),
    "LABEL": lambda given: instruction.Label(**given.place, pairs=_pairs(given)),
    "ARG": _arg,
    "WORKDIR": lambda given: instruction.Workdir(**given.place, path=given.rest),
    "USER": lambda given: instruction.User(**given.place, user=given.rest),
    "CMD": lambda given: instruction.Cmd(**given.place, command=given.command()),
    "ENTRYPOINT": lambda given: instruction.Entrypoint(**given.place, command=given.command()),
    "EXPOSE": lambda given: instruction.Expose(**given.place, ports=tuple(given.rest.split())),
    "VOLUME": _volume,
    "STOPSIGNAL": lambda given: instruction.StopSignal(**given.place, signal=given.rest),
    "SHELL": _shell,
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
    "MAINTAINER": lambda given: instruction.Maintainer(**given.place, name=given.rest),
}
