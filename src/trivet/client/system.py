"""The engine itself, as the client sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trivet.client.schema import Event, PruneRequest, Removed, StatsSample
from trivet.client.schema_host import Finding, Info, Usage
from trivet.client.transport import Query, Transport, filters


class System:
    """What concerns no single object."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def ping(self) -> str:
        """Return the engine's version."""
        return self._transport.fetch(dict[str, str], "GET", "/v1/ping").get("version", "")

    def info(self) -> Info:
        """Tell what the engine and each level can do on this machine."""
        return self._transport.fetch(Info, "GET", "/v1/info")

    def usage(self) -> list[Usage]:
        """Tell what takes how much disk space."""
        return self._transport.fetch(list[Usage], "GET", "/v1/df")

    def check(self, *, repair: bool = False) -> list[Finding]:
        """Verify store and records; with `repair`, mend what can be mended."""
        return self._transport.fetch(list[Finding], "POST", "/v1/check", {"repair": repair})

    def prune(self, request: PruneRequest) -> Removed:
        """Remove what nothing uses."""
        return self._transport.fetch(Removed, "POST", "/v1/prune", body=request)

    def events(
        self,
        *,
        since: str = "",
        until: str = "",
        follow: bool = True,
        wanted: Mapping[str, Sequence[str]] | None = None,
    ) -> Iterator[Event]:
        """Yield what happened from `since` on, and with `follow` what happens until `until` (RFC 3339)."""
        query: Query = {"since": since, "until": until, "follow": follow, "filter": filters(wanted)}
        return self._transport.stream(Event, "GET", "/v1/events", query)

    def stats(self) -> list[StatsSample]:
        """Measure every running instance once."""
        return self._transport.fetch(list[StatsSample], "GET", "/v1/stats")
