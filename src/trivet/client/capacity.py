"""Capacity, as the client sees it."""

from __future__ import annotations

from trivet.client.schema_capacity import Capacity, CapacityHistory, CapacityPlan, Decision, PlanRequest
from trivet.client.transport import Transport


class Capacities:
    """What an engine promised and what is used."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self) -> Capacity:
        """Measure now."""
        return self._transport.fetch(Capacity, "GET", "/v1/capacity")

    def plan(self, wish: PlanRequest) -> CapacityPlan:
        """Tell what would come of further instances; nothing is started."""
        return self._transport.fetch(CapacityPlan, "POST", "/v1/capacity/plan", body=wish)

    def history(self) -> CapacityHistory:
        """Tell how things stood in the last hour, and how good forecasts were."""
        return self._transport.fetch(CapacityHistory, "GET", "/v1/capacity/history")

    def decisions(self, instance: str = "", limit: int = 1000) -> list[Decision]:
        """Tell what was decided, about one instance or all, oldest first."""
        return self._transport.fetch(
            list[Decision], "GET", "/v1/capacity/decisions", {"instance": instance, "limit": limit}
        )
