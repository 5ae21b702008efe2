"""Choosing instances for a list."""

from __future__ import annotations

from collections.abc import Callable

from trivet.base.error import InvalidArgument
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word

SHOWN = (Word.RUNNING, Word.PAUSED, Word.RESTARTING)

MATCH: dict[str, Callable[[InstanceRecord, str], bool]] = {
    "id": lambda record, value: record.id.startswith(value),
    "name": lambda record, value: value in record.name,
    "status": lambda record, value: record.word == value,
    "isolation": lambda record, value: record.request.isolation == value,
    "image": lambda record, value: record.image == value or record.image_id.startswith(value),
    "label": lambda record, value: _label(record.request.labels, value),
    "volume": lambda record, value: value in record.volumes,
    "network": lambda record, value: any(use.network == value for use in record.plan.attachments),
    "exited": lambda record, value: record.word == Word.EXITED and str(record.exit_code) == value,
}


def select(records: list[InstanceRecord], every: bool, filters: dict[str, list[str]]) -> list[InstanceRecord]:
    """Keep what every filter accepts; values of one filter are alternatives, except labels, which must all match.

    Without `every`, only what runs; a status filter shows what it names. Raises `InvalidArgument`.
    """
    for key in filters:
        if key not in MATCH:
            raise InvalidArgument(f"unknown filter {key}", hint=f"one of {', '.join(MATCH)}")
    every = every or "status" in filters or "exited" in filters
    return [
        record
        for record in records
        if (every or record.word in SHOWN)
        and all(
            (all if key == "label" else any)(MATCH[key](record, value) for value in values)
            for key, values in filters.items()
        )
    ]


def _label(labels: dict[str, str], wanted: str) -> bool:
    key, sign, value = wanted.partition("=")
    return key in labels and (not sign or labels[key] == value)
