"""`--change` of import: single Dockerfile instructions that alter an image's configuration."""

from __future__ import annotations

import shlex

import msgspec

from trivet.base.error import InvalidArgument
from trivet.oci.config import Config, Empty


class MalformedChange(InvalidArgument):
    """An instruction that can't be applied."""

    def __init__(self, text: str, problem: str) -> None:
        super().__init__(f"cannot apply change {text!r}: {problem}", hint="e.g. --change 'CMD [\"bash\"]'")


def apply(config: Config, text: str) -> Config:
    """Apply one instruction, e.g. `ENV A=b` or `CMD ["bash"]`. Raises `MalformedChange`."""
    word, _, rest = text.strip().partition(" ")
    name, rest = word.upper(), rest.strip()
    if not rest:
        raise MalformedChange(text, "it has no argument")
    match name:
        case "CMD" | "ENTRYPOINT":
            return msgspec.structs.replace(config, **{name.lower(): _command(text, rest)})
        case "USER" | "STOPSIGNAL" | "WORKDIR":
            field = {"USER": "user", "STOPSIGNAL": "stop_signal", "WORKDIR": "working_dir"}[name]
            return msgspec.structs.replace(config, **{field: rest})
        case "ENV":
            new = _pairs(text, rest)
            kept = [each for each in config.env or () if each.partition("=")[0] not in new]
            return msgspec.structs.replace(config, env=(*kept, *(f"{key}={value}" for key, value in new.items())))
        case "LABEL":
            return msgspec.structs.replace(config, labels={**(config.labels or {}), **_pairs(text, rest)})
        case "EXPOSE":
            ports = {port if "/" in port else f"{port}/tcp": Empty() for port in rest.split()}
            return msgspec.structs.replace(config, exposed_ports={**(config.exposed_ports or {}), **ports})
        case "VOLUME":
            paths = _words(text, rest) if rest.startswith("[") else tuple(rest.split())
            return msgspec.structs.replace(
                config, volumes={**(config.volumes or {}), **{path: Empty() for path in paths}}
            )
        case _:
            raise MalformedChange(text, f"{word} is not an instruction that changes the configuration")


def _command(text: str, rest: str) -> tuple[str, ...]:
    return _words(text, rest) if rest.startswith("[") else ("/bin/sh", "-c", rest)


def _words(text: str, rest: str) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(rest, type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise MalformedChange(text, f"the list is malformed: {error}") from error


def _pairs(text: str, rest: str) -> dict[str, str]:
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise MalformedChange(text, str(error)) from error
    if "=" not in words[0]:
        key, _, value = rest.partition(" ")
        words = [f"{key}={value.strip()}"]
    if not all(each.partition("=")[0] and "=" in each for each in words):
        raise MalformedChange(text, "expected NAME=value")
    return {key: value for key, _, value in (each.partition("=") for each in words)}
