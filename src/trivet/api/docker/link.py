"""Links in Docker's words: `NAME`, `NAME:ALIAS`, or as inspect shows them, `/NAME:/SELF/ALIAS`."""

from __future__ import annotations

from collections.abc import Iterable

from trivet.base.error import InvalidArgument
from trivet.client.schema_network import LinkRequest

MODES = {"host": "host type networking", "container": "container type network"}


def requests(mode: str, texts: Iterable[str]) -> list[LinkRequest]:
    """Translate, each alias once. Raises `InvalidArgument`."""
    found = {wish.alias: wish for wish in map(_one, texts)}
    kind = MODES.get(mode.partition(":")[0])
    if found and kind:
        raise InvalidArgument(
            f"conflicting options: {kind} can't be used with links. This would result in undefined behavior"
        )
    return list(found.values())


def _one(text: str) -> LinkRequest:
    parts = text.split(":")
    if not text:
        raise InvalidArgument("empty string specified for links")
    if len(parts) > 2:
        raise InvalidArgument(f"bad format for links: {text}")
    name, alias = parts[0].lstrip("/"), parts[-1].rpartition("/")[2]
    if not name:
        raise InvalidArgument(f'could not get container for {name}: invalid name or ID supplied: ""')
    return LinkRequest(instance=name, alias=alias)


def shown(name: str, links: Iterable[LinkRequest]) -> list[str] | None:
    """Show the links of the container `name`, as HostConfig does."""
    return [f"/{each.name}:/{name}/{each.alias}" for each in links] or None
