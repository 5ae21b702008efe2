"""RUN --mount=type=bind|cache|tmpfs|secret|ssh: what a step is shown, as written."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Literal, cast

import msgspec

from trivet.base.error import InvalidArgument

Kind = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]

_ALIASES = {"dst": "target", "destination": "target", "src": "source", "readonly": "ro", "readwrite": "rw"}
_SWITCHES = ("ro", "rw", "required")
_OPTIONS = {
    "bind": ("target", "source", "from", "ro", "rw"),
    "cache": ("target", "id", "ro", "rw", "sharing", "from", "source", "mode", "uid", "gid"),
    "tmpfs": ("target", "size"),
    "secret": ("target", "id", "env", "required", "mode", "uid", "gid"),
    "ssh": ("target", "id", "required", "mode", "uid", "gid"),
}
_MODES = {"secret": 0o400, "ssh": 0o600}
_SSH_TARGET = "/run/buildkit/ssh_agent.0"  # what people's scripts know it by
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class MountError(InvalidArgument):
    """A --mount that makes no sense."""


class RunMount(msgspec.Struct, frozen=True, kw_only=True):
    """One --mount; which of the fields count depends on `kind`.

    `origin` and `source` say what a bind shows, or a new cache begins with: files of a stage, an image, or the
    context (""). A secret with `env` and no `target` is shown as a variable only.
    """

    kind: Kind
    target: str
    source: str = "."
    origin: str = ""
    id: str = ""
    read_only: bool = False
    sharing: Sharing = "shared"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    size: int = 0
    env: str = ""
    required: bool = False

    def expanded(self, word: Callable[[str], str]) -> RunMount:
        """Replace variables."""
        return msgspec.structs.replace(
            self, target=word(self.target), source=word(self.source), id=word(self.id), origin=word(self.origin)
        )

    def within(self, space: str) -> RunMount:
        """Keep a cache apart from those of the same id elsewhere."""
        return msgspec.structs.replace(self, id=f"{space}/{self.id}") if space and self.kind == "cache" else self


def parse_mount(text: str) -> RunMount:
    """Read the value of --mount. Raises `MountError`."""
    options = dict(_option(part) for part in text.split(",") if part)
    kind = options.pop("type", "bind")
    if kind not in _OPTIONS:
        raise MountError(f"--mount=type={kind} is not supported", hint=f"use {', '.join(_OPTIONS)}")
    for name in options:
        if name not in _OPTIONS[kind]:
            raise MountError(f"--mount=type={kind} has no option {name}", hint=f"it has {', '.join(_OPTIONS[kind])}")
    target = _target(kind, options)
    sharing = options.get("sharing", "shared")
    if sharing not in ("shared", "private", "locked"):
        raise MountError(f"--mount sharing={sharing} is unknown", hint="use shared, private or locked")
    return RunMount(
        kind=cast(Kind, kind),
        target=target,
        source=options.get("source", "."),
        origin=options.get("from", ""),
        id=options.get("id", "") or _default_id(kind, target),
        read_only=_is_set(options, "ro") or (kind == "bind" and not _is_set(options, "rw")),
        sharing=cast(Sharing, sharing),
        mode=_number(options, "mode", 8, _MODES.get(kind, 0o755), 0o7777),
        uid=_number(options, "uid", 10, 0, (1 << 32) - 2),
        gid=_number(options, "gid", 10, 0, (1 << 32) - 2),
        size=_size(options.get("size", "0")),
        env=options.get("env", ""),
        required=_is_set(options, "required"),
    )


def _default_id(kind: str, target: str) -> str:
    return {"ssh": "default", "secret": posixpath.basename(target)}.get(kind, target)


def _target(kind: str, options: dict[str, str]) -> str:
    """Tell where a mount is shown; a secret that is only a variable is shown nowhere."""
    target, key = options.get("target", ""), options.get("id", "")
    if kind == "secret" and not target:
        if not key:
            raise MountError("--mount=type=secret needs an id or a target", hint="write id=NAME")
        return "" if "env" in options else f"/run/secrets/{posixpath.basename(key)}"
    if kind == "ssh" and not target:
        return _SSH_TARGET
    if posixpath.normpath("/" + target.lstrip("/")) == "/":
        raise MountError(f"--mount=type={kind} needs a target that is not /", hint="write target=/PATH")
    return target


def _option(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    name = _ALIASES.get(name.lower(), name.lower())
    if not equals and name not in _SWITCHES:
        raise MountError(f"--mount option {name} needs a value", hint=f"write {name}=VALUE")
    return name, value if equals else "true"


def _is_set(options: dict[str, str], name: str) -> bool:
    return options.get(name, "false").lower() in ("true", "1")


def _number(options: dict[str, str], name: str, base: int, default: int, largest: int) -> int:
    text = options.get(name)
    if text is None:
        return default
    try:
        value = int(text, base) if text.isascii() and text.isdigit() and len(text) < 12 else -1
    except ValueError:
        value = -1
    if not 0 <= value <= largest:
        raise MountError(f"--mount {name}={text[:40]} is not a number in range")
    return value


def _size(text: str) -> int:
    digits = text.lower().rstrip("bkmg")
    unit = text.lower()[len(digits) :].removesuffix("b") if len(text) - len(digits) > 1 else text.lower()[len(digits) :]
    if not digits.isascii() or not digits.isdigit() or len(digits) > 12 or unit not in _UNITS:
        raise MountError(f"--mount size={text[:40]} is not a size", hint="write size=64m")
    return int(digits) * _UNITS[unit]
