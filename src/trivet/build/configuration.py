"""Instructions that change only the image's configuration: a table of small pure functions."""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable
from typing import Any

import msgspec

from trivet.build import instruction
from trivet.build.error import BuildError
from trivet.build.instruction import Command, Instruction
from trivet.build.scope import env_dict, env_list
from trivet.oci.config import Config, Empty, Healthcheck

DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)

Expand = Callable[[str, dict[str, str]], str]
"""Expands a word with these variables of the environment (they win over the stage's ARGs)."""


def shell_of(config: Config) -> tuple[str, ...]:
    """Tell what runs the shell form of commands."""
    return config.shell or DEFAULT_SHELL


def directory_of(config: Config, path: str) -> str:
    """Resolve a path against the working directory."""
    return "/" + posixpath.normpath(posixpath.join("/", config.working_dir, path)).lstrip("/")


def apply(each: Instruction, config: Config, expand: Expand, *, has_cmd: bool = False) -> Config:
    """Carry an instruction out; `has_cmd` tells whether this stage has set CMD. Raises `BuildError`."""
    env = env_dict(config.env)

    def word(text: str) -> str:
        return expand(text, env)

    if isinstance(each, instruction.Env):
        return _env(each, config, expand)
    if isinstance(each, instruction.Entrypoint) and not has_cmd:
        config = msgspec.structs.replace(config, cmd=None)
    return msgspec.structs.replace(config, **_TABLE[type(each)](each, config, word))


def _env(each: instruction.Env, config: Config, expand: Expand) -> Config:
    """All values see the environment as it was before the instruction."""
    before = env_dict(config.env)
    new = {expand(name, before): expand(value, before) for name, value in each.pairs}
    return msgspec.structs.replace(config, env=env_list({**before, **new}))


def _label(each: instruction.Label, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    return {"labels": {**(config.labels or {}), **{word(name): word(value) for name, value in each.pairs}}}


def _user(each: instruction.User, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    return {"user": word(each.user)}


def _workdir(each: instruction.Workdir, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    return {"working_dir": directory_of(config, word(each.path))}


def _cmd(each: instruction.Cmd, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    return {"cmd": _argv(each.command, config)}


def _entrypoint(each: instruction.Entrypoint, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    return {"entrypoint": _argv(each.command, config)}


def _argv(command: Command, config: Config) -> tuple[str, ...] | None:
    return command.argv(shell_of(config)) or None


def _expose(each: instruction.Expose, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    ports = dict(config.exposed_ports or {})
    for text in (part for port in each.ports for part in word(port).split()):
        match = _PORT.fullmatch(text)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or not low <= high < 1 << 16:
            raise BuildError(f"EXPOSE {text} is not a port", hint="write EXPOSE 80, 53/udp or 8000-8010")
        protocol = (match[3] or "tcp").lower()
        ports.update({f"{number}/{protocol}": Empty() for number in range(low, high + 1)})
    return {"exposed_ports": ports}


def _volume(each: instruction.Volume, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    paths = {word(path): Empty() for path in each.paths}
    return {"volumes": {**(config.volumes or {}), **paths}}


def _is_signal(word: str) -> bool:
    """Tell whether Linux has a signal of that number or name."""
    name = word.upper().removeprefix("SIG")
    if word.isascii() and word.isdigit():
        return 0 < int(word[:4]) <= signal.SIGRTMAX
    return f"SIG{name}" in signal.Signals.__members__ or bool(re.fullmatch(r"RTMIN\+\d{1,2}|RTMAX-\d{1,2}", name))


def _stop_signal(each: instruction.StopSignal, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    name = word(each.signal)
    if not _is_signal(name):
        raise BuildError(f"STOPSIGNAL {name} is not a signal", hint="write STOPSIGNAL SIGTERM or a number")
    return {"stop_signal": name}


def _shell(each: instruction.Shell, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    return {"shell": each.words}


def _healthcheck(each: instruction.Healthcheck, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    if each.command is None:
        return {"healthcheck": Healthcheck(test=("NONE",))}
    check = Healthcheck(
        test=("CMD-SHELL" if each.command.shell else "CMD", *each.command.words),
        interval=each.interval,
        timeout=each.timeout,
        start_period=each.start_period,
        start_interval=each.start_interval,
        retries=each.retries,
    )
    return {"healthcheck": check}


def _on_build(each: instruction.OnBuild, config: Config, word: Callable[[str], str]) -> dict[str, Any]:
    return {"on_build": (*(config.on_build or ()), each.trigger)}


_TABLE: dict[type[Instruction], Callable[..., dict[str, Any]]] = {
    instruction.Env: lambda each, config, word: {},
    instruction.Label: _label,
    instruction.User: _user,
    instruction.Workdir: _workdir,
    instruction.Cmd: _cmd,
    instruction.Entrypoint: _entrypoint,
    instruction.Expose: _expose,
    instruction.Volume: _volume,
    instruction.StopSignal: _stop_signal,
    instruction.Shell: _shell,
    instruction.Healthcheck: _healthcheck,
    instruction.OnBuild: _on_build,
    instruction.Maintainer: lambda each, config, word: {},
}
