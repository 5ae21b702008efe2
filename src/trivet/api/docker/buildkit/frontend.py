"""What buildx asks the Dockerfile frontend for, as a request to the builder: names of attributes, and no more."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping

import msgspec

from trivet.api.docker.buildkit.control_message import Kind, mapping
from trivet.base.error import InvalidArgument, Unsupported
from trivet.build.builtin import is_true
from trivet.client.schema import RlimitRequest
from trivet.client.schema_build import BuildRequest, CacheFrom, CacheTo, Output

CALLS = {"frontend.lint": "check", "frontend.outline": "outline", "frontend.targets": "targets"}
PREFIXES = ("build-arg:", "label:", "context:")
EPOCH = "SOURCE_DATE_EPOCH"
FRONTENDS = ("dockerfile.v0", "gateway.v0")  # the second is how `BUILDKIT_SYNTAX` is asked for: there is one language
ENTITLEMENTS = ("network.host", "security.insecure")


def wish(attributes: Mapping[str, str]) -> BuildRequest:
    """Read the attributes of a build. Raises `InvalidArgument`, `Unsupported`."""
    arguments, labels, contexts = (_below(attributes, prefix) for prefix in PREFIXES)
    network, no_cache = attributes.get("force-network-mode", ""), attributes.get("no-cache")
    call = attributes.get("requestid", "")
    if call and call not in CALLS:
        raise Unsupported(f"the Dockerfile frontend doesn't know the request {call}")
    epoch = arguments.get(EPOCH, "")
    if epoch and not epoch.isdecimal():
        raise InvalidArgument(f"{EPOCH} is {epoch!r}, not a number of seconds")
    return BuildRequest(
        dockerfile=attributes.get("filename") or "Dockerfile",
        target=attributes.get("target", ""),
        build_args=arguments,
        labels=labels,
        network="" if network == "sandbox" else network,
        no_cache=no_cache == "",
        no_cache_filter=[name for name in (no_cache or "").split(",") if name],
        pull=attributes.get("image-resolve-mode") == "pull",
        platform=attributes.get("platform", ""),
        timestamp=int(epoch) if epoch else None,
        remote=attributes.get("context", ""),
        add_hosts=[word.replace("=", ":", 1) for word in _words(attributes, "add-hosts")],
        ulimits=[_ulimit(word) for word in _words(attributes, "ulimit")],
        shm_size=_number(attributes, "shm-size"),
        contexts={name.lower(): value for name, value in contexts.items()},
        cache_from=_imports(attributes),
        call=CALLS.get(call, "build"),  # type: ignore[arg-type]
        sbom="attest:sbom" in attributes,
        provenance="attest:provenance" in attributes and "inline-only=true" not in attributes["attest:provenance"],
    )


def _below(attributes: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): value for key, value in attributes.items() if key.startswith(prefix)}


def _words(attributes: Mapping[str, str], key: str) -> list[str]:
    """Read a line of CSV, which may hold quoted commas."""
    return [word for row in csv.reader([attributes.get(key, "")]) for word in row if word]


def _number(attributes: Mapping[str, str], key: str) -> int:
    text = attributes.get(key, "") or "0"
    if not text.isdecimal():
        raise InvalidArgument(f"{key} is {text!r}, not a number of bytes")
    return int(text)


def _ulimit(text: str) -> RlimitRequest:
    name, _, values = text.partition("=")
    soft, _, hard = values.partition(":")
    try:
        return RlimitRequest(name.upper(), int(soft), int(hard or soft))
    except ValueError:
        raise InvalidArgument(f"ulimit {text!r} is not NAME=SOFT:HARD") from None


class _Cache(msgspec.Struct, frozen=True):
    """A cache, as attributes spell it."""

    Type: str = ""
    Attrs: dict[str, str] | None = None


def _imports(attributes: Mapping[str, str]) -> list[CacheFrom]:
    """Read where the cache comes from: JSON, or as it was before BuildKit 0.4 a list of references."""
    if text := attributes.get("cache-imports", ""):
        try:
            found = msgspec.json.decode(text, type=list[_Cache])
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"cache-imports is not what it should be: {error}") from error
        return [_import(each.Type, each.Attrs or {}) for each in found]
    return [CacheFrom(kind="registry", place=name) for name in _words(attributes, "cache-from")]


def _import(kind: str, attributes: Mapping[str, str]) -> CacheFrom:
    if kind == "registry" and attributes.get("ref"):
        return CacheFrom(kind="registry", place=attributes["ref"])
    if kind == "local" and attributes.get("src") and attributes.get("digest"):
        return CacheFrom(kind="local", place=f"{attributes['src']}@{attributes['digest']}")
    raise Unsupported(f"a cache cannot be imported from {kind or 'nothing'}, only from a registry or a directory")


def cache_to(kinds: Iterable[Kind]) -> list[CacheTo]:
    """Read where the cache goes to. Raises `Unsupported`."""
    return [_export(each.type, mapping(each.attributes)) for each in kinds]


def _export(kind: str, attributes: Mapping[str, str]) -> CacheTo:
    if kind == "inline":
        return CacheTo(kind="inline")
    if kind == "registry" and attributes.get("ref"):
        return CacheTo(kind="registry", place=attributes["ref"], whole=attributes.get("mode") == "max")
    if kind == "local" and attributes.get("dest"):
        return CacheTo(kind="local", place=attributes["dest"], whole=attributes.get("mode") == "max")
    raise Unsupported(f"a cache cannot be exported to {kind or 'nothing'}, only to a registry, a directory or inline")


def outputs(kinds: Iterable[Kind]) -> list[Output]:
    """Read what is to become of the result; with no exporter, nothing but cache."""
    return [output(each.type, mapping(each.attributes)) for each in kinds] or [Output(kind="cacheonly")]


def output(kind: str, attributes: Mapping[str, str]) -> Output:
    """Read one exporter. Raises `InvalidArgument`."""
    name = attributes.get("name", "")
    match kind:
        case "local" | "tar" | "cacheonly":
            return Output(kind=kind)
        case "oci" | "docker":
            if attributes.get("tar", "true") not in ("true", "1"):
                raise Unsupported(f"exporter {kind}: only archives are written, not directories")
            return Output(kind=kind, name=name)
        case "image" | "moby" | "":
            return Output(kind="registry" if is_true(attributes.get("push", "")) else "image", name=name)
    raise InvalidArgument(f"exporter {kind!r} could not be found")
