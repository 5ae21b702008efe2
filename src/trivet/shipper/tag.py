"""Tags: what an instance is called at a receiver, from a template such as `{{.Name}}/{{.ID}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from trivet.base.error import InvalidArgument

DEFAULT = "{{.ID}}"
FIELDS = ("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName")
FIELD = re.compile(r"\{\{\s*\.(\w*)\s*\}\}")


def check(template: str) -> None:
    """Raise `InvalidArgument` for a template that names what isn't known."""
    for name in FIELD.findall(template):
        if name not in FIELDS:
            raise InvalidArgument(f"log tag {template[:80]!r} has no field {name}: {', '.join(FIELDS)}")
    if "{{" in FIELD.sub("", template):
        raise InvalidArgument(f"log tag {template[:80]!r} can hold only fields: {', '.join(FIELDS)}")


def render(template: str, facts: Mapping[str, str]) -> str:
    """Fill a template in; `facts` has all FIELDS."""
    return FIELD.sub(lambda match: facts[match[1]], template or DEFAULT)
