"""`-v`, `--mount` and `--tmpfs`, in Docker's syntax."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Any

from trivet.cli.value import boolean, size
from trivet.client.schema import MountRequest, SecretGrant

PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
# What other engines need and trivet doesn't: SELinux relabelling, caching modes of virtual file systems on a Mac.
WITHOUT_MEANING = ("z", "Z", "cached", "delegated", "consistent")

KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "destination": "target",
    "dst": "target",
    "readonly": "read_only",
    "ro": "read_only",
    "bind-propagation": "propagation",
    "rw": "writable",
    "readwrite": "writable",
    "bind-nonrecursive": "lone",
    "bind-recursive": "depth",
    "bind-mine": "mine",
    "volume-nocopy": "no_copy",
    "volume-subpath": "subpath",
    "volume-opt": "options",
    "volume-label": "labels",
    "volume-driver": "driver",
    "image-subpath": "subpath",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
}


def volume(text: str) -> MountRequest:
    """Read `-v [SOURCE:]TARGET[:OPTION,...]`; a source with a slash or a dot in front is a host path."""
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise ArgumentTypeError(f"{text!r} is not [SOURCE:]TARGET[:ro]")
    if len(parts) == 1:
        return _checked(MountRequest(kind="volume", target=parts[0]), text)
    source, target, *rest = parts
    options = _options(rest[0].split(",") if rest else [], text)
    if source.startswith(("/", ".", "~")):
        path = str(Path(source).expanduser().absolute())
        return _checked(MountRequest(kind="bind", source=path, target=target, create_source=True, **options), text)
    if "/" in source:
        raise ArgumentTypeError(f"{text!r}: {source!r} is neither a volume name nor a path; write ./{source}")
    return _checked(MountRequest(kind="volume", source=source, target=target, **options), text)


def mount(text: str) -> MountRequest:
    """Read `--mount type=bind|volume|image|tmpfs,source=...,target=...[,readonly]`."""
    import csv  # here only

    fields: dict[str, Any] = {"type": "volume"}
    for item in next(csv.reader([text])):
        key, equals, value = item.partition("=")
        if key not in KEYS:
            raise ArgumentTypeError(f"{text!r}: unknown key {key!r}; known are {', '.join(KEYS)}")
        if KEYS[key] in ("options", "labels"):
            name, _, rest = value.partition("=")
            fields.setdefault(KEYS[key], {})[name] = rest
        else:
            fields[KEYS[key]] = _field(KEYS[key], value, bool(equals), text)
    kind, source = fields.pop("type"), fields.get("source", "")
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise ArgumentTypeError(f"{text!r}: {kind!r} is not a type of mount; write bind, volume, image or tmpfs")
    fields |= _depth(fields.pop("depth", ""), fields.pop("lone", False), text)
    writable = fields.pop("writable", False)
    if fields.pop("driver", "local") != "local":
        raise ArgumentTypeError(f"{text!r}: there is no volume driver but local")
    if kind == "image":
        if not source:
            raise ArgumentTypeError(f"{text!r}: an image mount needs source=IMAGE")
        fields["read_only"] = not writable
    if kind == "bind":
        if not source:
            raise ArgumentTypeError(f"{text!r}: a bind mount needs source=PATH")
        fields["source"] = str(Path(source).absolute())
    if kind == "tmpfs" and source:
        raise ArgumentTypeError(f"{text!r}: a tmpfs has no source")
    return _checked(MountRequest(kind=kind, target=fields.pop("target", ""), **fields), text)


def _depth(word: str, lone: bool, text: str) -> dict[str, bool]:
    """Read bind-recursive: disabled shows nothing below, writable lets it be written, as Docker has it."""
    if word not in ("", "enabled", "disabled", "writable", "readonly"):
        raise ArgumentTypeError(f"{text!r}: bind-recursive is enabled, disabled, writable or readonly")
    if lone or word == "disabled":
        return {"recursive": False}
    return {"shallow": True} if word == "writable" else {}


def secret(text: str) -> SecretGrant:
    """Read `--secret NAME[,target=..][,uid=..][,gid=..][,mode=..]`, as Podman has it; source=NAME is fine, too."""
    fields: dict[str, Any] = {}
    for number, item in enumerate(text.split(",")):
        key, equals, value = item.partition("=")
        if number == 0 and not equals:
            fields["source"] = item
        elif key in ("source", "src", "target", "type") and value:
            fields["source" if key == "src" else key] = value
        elif key in ("uid", "gid", "mode") and value:
            fields[key] = _field(key, value, True, text)
        else:
            raise ArgumentTypeError(f"{text!r}: {item!r} is not target=, uid=, gid= or mode=")
    if fields.pop("type", "mount") != "mount":
        raise ArgumentTypeError(f"{text!r}: a secret is a file; variables are seen by everybody")
    if not fields.get("source"):
        raise ArgumentTypeError(f"{text!r} names no secret")
    return SecretGrant(**fields)


def tmpfs(text: str) -> MountRequest:
    """Read `--tmpfs TARGET[:size=64m,mode=1777,ro]`."""
    target, _, rest = text.partition(":")
    fields: dict[str, Any] = {}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if key in ("size", "mode", "uid", "gid") and equals:
            fields[key] = _field(key, value, True, text)
        elif key in ("ro", "rw"):
            fields["read_only"] = key == "ro"
        elif key not in ("noexec", "exec", "nosuid", "suid", "nodev", "dev"):
            raise ArgumentTypeError(f"{text!r}: unknown option {item!r}; known are size=, mode=, uid=, gid=, ro, rw")
    return _checked(MountRequest(kind="tmpfs", target=target, **fields), text)


def storage(text: str) -> int:
    """Read `--storage-opt size=SIZE`."""
    key, _, rest = text.partition("=")
    if key != "size":
        raise ArgumentTypeError(f"{text!r}: unknown option {key!r}; known is size=")
    return size(rest)


def _options(words: list[str], text: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for word in words:
        if word in ("ro", "rw", "readonly"):
            fields["read_only"] = word != "rw"
        elif word in ("nocopy", "mine"):
            fields["no_copy" if word == "nocopy" else word] = True
        elif word in PROPAGATION:
            fields["propagation"] = word
        elif word not in WITHOUT_MEANING:
            raise ArgumentTypeError(
                f"{text!r}: unknown option {word!r}; known are ro, rw, nocopy, mine, {', '.join(PROPAGATION)}"
            )
    return fields


def _field(name: str, value: str, given: bool, text: str) -> Any:
    if name in ("read_only", "no_copy", "writable", "lone", "mine"):
        return boolean(value) if given else True
    if not value:
        raise ArgumentTypeError(f"{text!r}: {name} has no value")
    if name == "size":
        return size(value)
    if name in ("uid", "gid"):
        if not value.isdigit():
            raise ArgumentTypeError(f"{text!r}: {value!r} is not a number of a user or group")
        return int(value)
    if name == "mode":
        return _mode(value, text)
    if name == "propagation" and value not in PROPAGATION:
        raise ArgumentTypeError(f"{text!r}: unknown propagation {value!r}; known are {', '.join(PROPAGATION)}")
    return value


def _mode(value: str, text: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise ArgumentTypeError(f"{text!r}: {value!r} is not an octal mode") from None


def _checked(request: MountRequest, text: str) -> MountRequest:
    if not request.target.startswith("/"):
        raise ArgumentTypeError(f"{text!r}: the target {request.target!r} is not an absolute path")
    return request
