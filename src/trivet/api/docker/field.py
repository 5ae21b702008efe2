"""Which fields a body had, as paths such as `HostConfig.Mounts.Type`: for the log, in which the tests look."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from msgspec import inspect


def paths(value: Any, shape: Any) -> Iterator[str]:
    """List the fields of a decoded body. Keys of maps, which are the client's own, are left out."""
    yield from _walk(value, _info(shape))


def every(shape: Any) -> Iterator[str]:
    """List all fields that are understood."""
    yield from _known(_info(shape))


@cache
def _info(shape: Any) -> inspect.Type:
    return inspect.type_info(shape)


def _known(kind: inspect.Type) -> Iterator[str]:
    for each in _parts(kind):
        if isinstance(each, inspect.StructType):
            for field in each.fields:
                yield field.encode_name
                yield from (f"{field.encode_name}.{path}" for path in _known(field.type))
        elif isinstance(each, inspect.DictType):
            yield from _known(each.value_type)
        elif isinstance(each, inspect.ListType):
            yield from _known(each.item_type)


def _walk(value: Any, kind: inspect.Type | None) -> Iterator[str]:
    for each in _parts(kind):
        if isinstance(each, inspect.StructType) and isinstance(value, dict):
            types = {field.encode_name: field.type for field in each.fields}
            for key, inner in value.items():
                yield key
                yield from (f"{key}.{path}" for path in _walk(inner, types.get(key)))
        elif isinstance(each, inspect.DictType) and isinstance(value, dict):
            for inner in value.values():
                yield from _walk(inner, each.value_type)
        elif isinstance(each, inspect.ListType) and isinstance(value, list):
            for inner in value:
                yield from _walk(inner, each.item_type)


def _parts(kind: inspect.Type | None) -> tuple[inspect.Type, ...]:
    if isinstance(kind, inspect.UnionType):
        return kind.types
    return () if kind is None else (kind,)
