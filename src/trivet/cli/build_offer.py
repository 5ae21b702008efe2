"""What a build may ask this command for: --secret, --ssh, --build-context, and where --output goes."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from trivet.base.error import InvalidArgument
from trivet.cli.build_context import REMOTE, send_directory
from trivet.cli.command import Misuse
from trivet.client.errand import Answer, Line, relay
from trivet.client.schema_build import CacheFrom, CacheTo, Output

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 500 << 10  # bytes of a secret
_IMAGE, _LAYOUT, _LOCAL = "docker-image://", "oci-layout://", "local:"
_CACHE_TO = ("type", "ref", "dest", "mode", "mounts")
CACHE = "cache:"  # in front of the number of a --cache-to or --cache-from
_OUTPUTS = ("local", "tar", "oci", "docker", "image", "registry", "cacheonly")


class Offer:
    """Everything offered to one build, read from its command line; `undo` ends what was started for it."""

    def __init__(self, args: Namespace, undo: ExitStack) -> None:
        self.secrets = dict(_secret(text) for text in args.secret)
        self.agents = _agents(args.ssh, undo)
        self.contexts = dict(_context(text) for text in args.build_context)
        wishes = [_output(text) for text in args.output]
        self.outputs = [output for output, _ in wishes]
        self.spread = {number for number, (_, spread) in enumerate(wishes) if spread}
        self.cache_to = [_cache_to(text) for text in args.cache_to]
        self.cache_from = [_cache_from(text) for text in args.cache_from]
        self.attest = {"sbom": args.sbom, "provenance": args.provenance, **dict(_attest(text) for text in args.attest)}
        if args.push:
            self.outputs.append(Output(kind="registry"))
        if args.load and not any(output.kind == "image" for output in self.outputs):
            self.outputs.append(Output(kind="image"))

    @property
    def answers(self) -> dict[str, Answer]:
        """Who answers which question; nothing for a build that can't have one."""
        found: dict[str, Answer] = {}
        if self.secrets:
            found["secret"] = lambda name, line: _send_secret(self.secrets[name], line)
        if self.agents:
            found["ssh"] = lambda name, line: relay(line, self.agents[name])
        local = any(value.startswith((_LOCAL, _LAYOUT)) for value in self.contexts.values())
        if local or any(each.kind == "local" for each in self.cache_from):
            found["context"] = self._context
        if any(output.destination for output in self.outputs) or any(each.kind == "local" for each in self.cache_to):
            found["output"] = self._output
        return found

    def _context(self, name: str, line: Line) -> None:
        number = name.removeprefix(CACHE)
        value = self.contexts[name] if number == name else f"{_LOCAL}{self.cache_from[int(number)].place}"
        _send_context(value, line)

    def _output(self, name: str, line: Line) -> None:
        number = name.removeprefix(CACHE)
        if number == name:
            _receive(self.outputs[int(number)], line, spread=int(number) in self.spread)
        else:
            _receive(Output(kind="local", destination=self.cache_to[int(number)].place), line)


def _fields(flag: str, text: str, known: tuple[str, ...]) -> dict[str, str]:
    """Read KEY=VALUE,KEY=VALUE."""
    found = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key.lower() not in known:
            raise Misuse(f"--{flag}: {part!r} is not one of {', '.join(f'{each}=' for each in known)}")
        found[key.lower()] = value
    return found


def _secret(text: str) -> tuple[str, bytes | str]:
    """Read `id=NAME[,src=FILE|,env=VARIABLE]`; without either it is a variable of that name, or else a file."""
    fields = _fields("secret", text, ("id", "src", "source", "env", "type"))
    key, path = fields.get("id", ""), fields.get("src", fields.get("source", ""))
    if not key:
        raise Misuse(f"--secret: {text!r} has no id", hint="write --secret id=NAME,src=FILE")
    variable = fields.get("env", "") or (path if fields.get("type") == "env" else "")
    if variable or (not path and key in os.environ):
        if (variable or key) not in os.environ:
            raise Misuse(f"--secret: the variable {variable} is not set")
        return key, os.environb[(variable or key).encode()]
    file = path or key
    if not os.path.isfile(file):
        raise InvalidArgument(f"--secret {key}: there is no file {file}")
    if os.stat(file).st_size > LARGEST:
        raise InvalidArgument(f"--secret {key}: {file} is larger than {LARGEST >> 10} KiB")
    return key, file


def _send_secret(secret: bytes | str, line: Line) -> None:
    content = secret if isinstance(secret, bytes) else _read(secret)
    line.reply(size=len(content))
    line.write(content)


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _agents(texts: list[str], undo: ExitStack) -> dict[str, Path]:
    if not texts:
        return {}
    from trivet.cli.build_agent import agents  # starts programs, which few builds need

    return dict(agent for text in texts for agent in agents(text, undo))


def _context(text: str) -> tuple[str, str]:
    """Read `NAME=VALUE`: a directory, docker-image://, oci-layout://, a URL, a Git repository."""
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise Misuse(f"--build-context: {text!r} is not NAME=VALUE")
    if value.startswith((_IMAGE, *REMOTE)):
        return name.lower(), value
    path = value.removeprefix(_LAYOUT)
    if not os.path.isdir(path):
        raise InvalidArgument(f"--build-context {name}: {path} is not a directory")
    return name.lower(), value if value.startswith(_LAYOUT) else f"{_LOCAL}{path}"


def _send_context(value: str, line: Line) -> None:
    line.reply()
    send_directory(value.removeprefix(_LAYOUT).removeprefix(_LOCAL), line)


def _output(text: str) -> tuple[Output, bool]:
    """Read `type=KIND,dest=PATH,...`, or a directory, or - for a tar on standard output.

    Tell beside it whether the archive is to be a directory (`tar=false`).
    """
    if "=" not in text:
        return Output(kind="tar" if text == "-" else "local", destination=text), False
    fields = _fields("output", text, ("type", "dest", "name", "push", "tar"))
    kind, destination = fields.get("type", ""), fields.get("dest", "")
    if kind not in _OUTPUTS:
        raise Misuse(f"--output: the type is one of {', '.join(_OUTPUTS)}, not {kind!r}")
    if not destination and kind in ("local", "tar", "oci"):
        if kind == "local":
            raise Misuse("--output: type=local needs dest=DIRECTORY")
        destination = "-"
    push = fields.get("push", "").lower() in ("true", "1")
    spread = fields.get("tar", "").lower() in ("false", "0")
    if spread and (kind not in ("oci", "docker") or destination in ("", "-")):
        raise Misuse("--output: tar=false is for type=oci and type=docker, and needs dest=DIRECTORY")
    kind = {"docker": "docker" if destination else "image", "image": "registry" if push else "image"}.get(kind, kind)
    return Output(kind=cast(Any, kind), destination=destination, name=fields.get("name", "")), spread


def _attest(text: str) -> tuple[str, bool]:
    """Read `type=sbom` or `type=provenance`, with disabled=; of what tells more and less there is one kind: mode=."""
    fields = _fields("attest", text if "=" in text else f"type={text}", ("type", "disabled", "mode"))
    kind = fields.get("type", "")
    if kind not in ("sbom", "provenance"):
        raise Misuse(f"--attest: the type is sbom or provenance, not {kind!r}")
    return kind, fields.get("disabled", "false").lower() not in ("true", "1")


def _cache_to(text: str) -> CacheTo:
    """Read `type=registry,ref=NAME`, `type=local,dest=DIRECTORY` or `type=inline`, with mode= and mounts=."""
    fields = _fields("cache-to", text if "=" in text else f"type=registry,ref={text}", _CACHE_TO)
    kind = fields.get("type", "registry")
    place = {"registry": fields.get("ref", ""), "local": fields.get("dest", "")}.get(kind, "")
    if kind not in ("registry", "local", "inline") or (kind != "inline" and not place):
        hint = "write type=registry,ref=NAME or type=local,dest=DIRECTORY or type=inline"
        raise Misuse(f"--cache-to: {text!r} names no place for a cache", hint=hint)
    if fields.get("mode", "min") not in ("min", "max"):
        raise Misuse(f"--cache-to: mode={fields['mode']} is neither min nor max")
    mounts = fields.get("mounts", "false").lower() in ("true", "1")
    return CacheTo(kind=cast(Any, kind), place=place, whole=fields.get("mode") == "max", mounts=mounts)


def _cache_from(text: str) -> CacheFrom:
    """Read `NAME`, `type=registry,ref=NAME` or `type=local,src=DIRECTORY`."""
    fields = _fields("cache-from", text if "=" in text else f"type=registry,ref={text}", ("type", "ref", "src"))
    kind = fields.get("type", "registry")
    place = {"registry": fields.get("ref", ""), "local": fields.get("src", "")}.get(kind, "")
    if kind not in ("registry", "local") or not place:
        hint = "write type=registry,ref=NAME or type=local,src=DIRECTORY"
        raise Misuse(f"--cache-from: {text!r} names no cache", hint=hint)
    return CacheFrom(kind=cast(Any, kind), place=place)


def _receive(output: Output, line: Line, *, spread: bool = False) -> None:
    """Take a build's output: a tar to a file or to standard output, or files into a directory."""
    if spread or output.kind == "local":
        from pathlib import Path  # with `unpack` only for who is given files

        from trivet.client.archive import unpack

        directory = Path(output.destination)
        directory.mkdir(parents=True, exist_ok=True)
        line.reply()
        unpack(line, directory, "", top=False)
    elif output.destination == "-":
        line.reply()
        _copy(line, sys.stdout.fileno())
    else:
        with open(output.destination, "wb") as file:
            line.reply()
            _copy(line, file.fileno())
    line.write(b"{}\n")


def _copy(line: Line, descriptor: int) -> None:
    while data := memoryview(line.read()):
        while data:
            data = data[os.write(descriptor, data) :]
