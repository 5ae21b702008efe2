"""Choosing instances for a list."""

from __future__ import annotations

from collections.abc import Callable

from trivet.base.clock import parse_time
from trivet.base.error import InvalidArgument, NotFound
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word

AROUND = ("before", "since")
EACH = ("label", "label!")
SHOWN = (Word.RUNNING, Word.PAUSED, Word.RESTARTING)

MATCH: dict[str, Callable[[InstanceRecord, str], bool]] = {
    "id": lambda record, value: record.id.startswith(value),
    "name": lambda record, value: value in record.name,
    "status": lambda record, value: record.word == value,
    "health": lambda record, value: (record.health.status if record.check and record.health else "none") == value,
    "isolation": lambda record, value: record.request.isolation == value,
    "image": lambda record, value: record.image == value or record.image_id.startswith(value),
    "label": lambda record, value: _label(record.request.labels, value),
    "label!": lambda record, value: not _label(record.request.labels, value),
    "volume": lambda record, value: value in record.volumes or any(value == use.target for use in record.plan.mounts),
    "network": lambda record, value: any(use.network == value for use in record.plan.attachments),
    "until": lambda record, value: record.created <= parse_time(value),
    "publish": lambda record, value: any(_port(value, str(port.host_port), port.protocol) for port in record.ports),
    "expose": lambda record, value: any(_port(value, *port.split("/")) for port in _exposed(record)),
    "exited": lambda record, value: record.word == Word.EXITED and str(record.exit_code) == value,
}


def select(records: list[InstanceRecord], every: bool, filters: dict[str, list[str]]) -> list[InstanceRecord]:
    """Keep what every filter accepts; values of one filter are alternatives, except of those in EACH.

    Without `every`, only what runs; a status filter shows what it names. Raises `InvalidArgument`.
    """
    for key in filters:
        if key not in MATCH and key not in AROUND:
            raise InvalidArgument(f"unknown filter {key}", hint=f"one of {', '.join([*MATCH, *AROUND])}")
    records, filters = _around(records, filters)
    every = every or "status" in filters or "exited" in filters
    return [
        record
        for record in records
        if (every or record.word in SHOWN)
        and all(
            (all if key in EACH else any)(MATCH[key](record, value) for value in values)
            for key, values in filters.items()
        )
    ]


def _around(
    records: list[InstanceRecord], filters: dict[str, list[str]]
) -> tuple[list[InstanceRecord], dict[str, list[str]]]:
    """Apply `before` and `since`, which name another instance: records are in the order of creation."""
    rest = {key: values for key, values in filters.items() if key not in AROUND}
    for key in filters.keys() - rest.keys():
        for value in filters[key]:
            place = next((index for index, each in enumerate(records) if _is(each, value)), None)
            if place is None:
                raise NotFound(f"no such instance: {value}")
            records = records[:place] if key == "before" else records[place + 1 :]
    return records, rest


def _is(record: InstanceRecord, value: str) -> bool:
    return value == record.name or record.id.startswith(value)


def _port(wanted: str, number: str, protocol: str) -> bool:
    """Tell whether a port is meant by `80`, `80/tcp` or `80-90/tcp`."""
    span, _, kind = wanted.partition("/")
    low, _, high = span.partition("-")
    if not low.isdigit() or not (high or low).isdigit():
        raise InvalidArgument(f"{wanted!r} is not a port", hint="80, 80/tcp or 80-90")
    return kind in ("", protocol) and int(low) <= int(number) <= int(high or low)


def _exposed(record: InstanceRecord) -> list[str]:
    request = record.request
    return [*request.exposed, *(f"{port.container_port}/{port.protocol}" for port in request.ports)]


def _label(labels: dict[str, str], wanted: str) -> bool:
    key, sign, value = wanted.partition("=")
    return key in labels and (not sign or labels[key] == value)
