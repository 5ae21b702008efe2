"""Several compose files as one: every notation brought to its long form, then merged as the specification says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trivet.cli.compose.document import ComposeError, Override, Reset

Value = dict[str, Any]

PAIRS = ("environment", "labels", "annotations", "sysctls")
LISTS = ("dns", "dns_search", "tmpfs", "env_file", "label_file", "profiles", "security_opt")
REPLACED = ("command", "entrypoint", "test")
REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "service:", "docker-image://", "oci-layout://", "target:")


def absolute(text: str, directory: Path) -> str:
    """Give a path of the file in `directory` its full name."""
    return str((directory / Path(text).expanduser()).resolve()) if not Path(text).is_absolute() else text


def pairs(value: Any, place: str) -> Value:
    """Read a mapping, or a list of KEY=VALUE, as a mapping; without a value it is None."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        raise ComposeError(place, "is neither a mapping nor a list of KEY=VALUE")
    found: Value = {}
    for item in value:
        key, equals, text = str(item).partition("=")
        found[key] = text if equals else None
    return found


def as_list(value: Any) -> list[Any]:
    """Read one value or a list as a list."""
    return value if isinstance(value, list) else [value]


def _within(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a change inside an !override; what is reset, or absent, stays."""
    if isinstance(value, Override):
        return Override(_within(value.value, change))
    return value if isinstance(value, Reset) or value is None else change(value)


def long_service(service: Any, place: str, directory: Path) -> Value:
    """Bring a service to long forms, with full paths. Raises `ComposeError`."""
    if not isinstance(service, dict):
        raise ComposeError(place, "is no mapping")
    made = dict(service)

    def change(key: str, how: Callable[[Any], Any]) -> None:
        if key in made:
            made[key] = _within(made[key], how)

    for key in PAIRS:
        change(key, partial(pairs, place=f"{place}.{key}"))
    for key in LISTS:
        change(key, as_list)
    change("depends_on", lambda value: _depends(value, f"{place}.depends_on"))
    change("networks", lambda value: value if isinstance(value, dict) else dict.fromkeys(map(str, as_list(value))))
    change("env_file", lambda value: [_env_file(one, directory) for one in value])
    change("label_file", lambda value: [absolute(str(one), directory) for one in value])
    change("volumes", lambda value: [_volume(one, f"{place}.volumes", directory) for one in as_list(value)])
    change("build", lambda value: _build(value, f"{place}.build", directory))
    change("extra_hosts", lambda value: _hosts(value))
    for key in ("secrets", "configs"):
        change(key, lambda value: [one if isinstance(one, dict) else {"source": str(one)} for one in as_list(value)])
    change("develop", lambda value: _develop(value, directory))
    change("pre_start", lambda value: [long_service(one, f"{place}.pre_start", directory) for one in value])
    return made


def _depends(value: Any, place: str) -> Value:
    if isinstance(value, dict):
        return {name: one or {} for name, one in value.items()}
    if not isinstance(value, list):
        raise ComposeError(place, "is neither a mapping nor a list")
    return {str(name): {"condition": "service_started"} for name in value}


def _env_file(value: Any, directory: Path) -> Value:
    entry = value if isinstance(value, dict) else {"path": str(value)}
    return {**entry, "path": absolute(str(entry.get("path", "")), directory)}


def _hosts(value: Any) -> Value:
    """Read hosts as name → addresses, joined by commas."""
    if isinstance(value, dict):
        return {name: ",".join(map(str, as_list(one))) for name, one in value.items()}
    found: Value = {}
    for item in map(str, value):
        name, _, address = item.replace("=", ":", 1).partition(":")
        found[name] = f"{found[name]},{address}" if name in found else address
    return found


def _volume(value: Any, place: str, directory: Path) -> Value:
    if isinstance(value, dict):
        if value.get("type") == "bind" and value.get("source"):
            return {**value, "source": absolute(str(value["source"]), directory)}
        return value
    parts = str(value).split(":")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise ComposeError(place, f"{value!r} is not [SOURCE:]TARGET[:OPTIONS]")
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0]}
    source, target, words = parts[0], parts[1], parts[2].split(",") if len(parts) == 3 else []
    host = source.startswith(("/", ".", "~"))
    made: Value = {"type": "bind" if host else "volume", "source": source, "target": target}
    if host:
        made["source"] = absolute(source, directory)
        made["bind"] = {"create_host_path": True}
    for word in words:
        if word in ("ro", "rw"):
            made["read_only"] = word == "ro"
        elif word == "nocopy":
            made["volume"] = {"nocopy": True}
        elif word == "mine" and host:
            made["bind"]["x-mine"] = True
        elif word in ("z", "Z", "cached", "delegated", "consistent"):
            continue
        else:
            made["bind"] = {**made.get("bind", {}), "propagation": word}
    return made


def _build(value: Any, place: str, directory: Path) -> Value:
    made: Value = dict(value) if isinstance(value, dict) else {"context": str(value)}
    context = str(made.get("context", "."))
    made["context"] = context if context.startswith(REMOTE) else absolute(context, directory)
    for key in ("args", "labels", "additional_contexts", "ssh"):
        if key in made:
            made[key] = pairs(as_list(made[key]) if isinstance(made[key], str) else made[key], f"{place}.{key}")
    if "extra_hosts" in made:
        made["extra_hosts"] = _hosts(made["extra_hosts"])
    for name, where in made.get("additional_contexts", {}).items():
        if not str(where).startswith(REMOTE):
            made["additional_contexts"][name] = absolute(str(where), directory)
    return made


def _develop(value: Any, directory: Path) -> Value:
    watch = [{**one, "path": absolute(str(one.get("path", ".")), directory)} for one in value.get("watch", [])]
    return {**value, "watch": watch}


def long_document(document: Value, directory: Path) -> Value:
    """Bring a file's content to long forms, with full paths. Raises `ComposeError`."""
    made = {key: value for key, value in document.items() if not key.startswith("x-")}
    for kind in ("services", "jobs"):
        found = made.get(kind) or {}
        if not isinstance(found, dict):
            raise ComposeError(kind, "is no mapping")
        made[kind] = {
            name: one if isinstance(one, Reset) else long_service(one, f"{kind}.{name}", directory)
            for name, one in found.items()
        }
    for kind in ("configs", "secrets"):
        found = made.get(kind) or {}
        made[kind] = {name: _with_path(one, directory) for name, one in found.items()}
    for kind in ("volumes", "networks"):
        made[kind] = {name: one if one is not None else {} for name, one in (made.get(kind) or {}).items()}
    return made


def _with_path(found: Any, directory: Path) -> Any:
    there = isinstance(found, dict) and "file" in found
    return {**found, "file": absolute(str(found["file"]), directory)} if there else found


def merge(old: Any, new: Any, key: str = "") -> Any:
    """Let `new` add to `old`, or replace it."""
    if isinstance(new, Override):
        return new.value
    if isinstance(old, dict) and isinstance(new, dict):
        made = dict(old)
        if key == "logging" and old.get("driver") != new.get("driver", old.get("driver")):
            made.pop("options", None)  # another driver's
        for name, value in new.items():
            if isinstance(value, Reset):
                made.pop(name, None)
            else:
                made[name] = merge(made[name], value, name) if name in made else clean(value)
        return made
    if isinstance(old, list) and isinstance(new, list) and key not in REPLACED:
        return _joined(old, new, key)
    return clean(new)


def _joined(old: list[Any], new: list[Any], key: str) -> list[Any]:
    made = list(old)
    for value in new:
        same = next((index for index, one in enumerate(made) if _identity(one, key) == _identity(value, key)), None)
        if same is None:
            made.append(value)
        elif isinstance(value, dict) and isinstance(made[same], dict):
            # Another source in place of one for the same target: what was said of the first one's doesn't hold.
            made[same] = value if key == "volumes" else merge(made[same], value)
    return made


def _identity(value: Any, key: str) -> object:
    if not isinstance(value, dict):
        return value
    if key == "volumes":
        return value.get("target")
    if key in ("secrets", "configs"):
        return value.get("target", value.get("source"))
    if key == "ports":
        return tuple(str(value.get(name, "")) for name in ("host_ip", "target", "published", "protocol"))
    return value.get("path", id(value))


def clean(value: Any) -> Any:
    """Take the tags away where there was nothing to merge with."""
    if isinstance(value, Override):
        return clean(value.value)
    if isinstance(value, dict):
        return {key: clean(one) for key, one in value.items() if not isinstance(one, Reset)}
    if isinstance(value, list):
        return [clean(one) for one in value if not isinstance(one, Reset)]
    return None if isinstance(value, Reset) else value
