"""Health checks in Docker's words."""

from __future__ import annotations

from typing import Any

from trivet.base.error import InvalidArgument
from trivet.client.schema import Instance
from trivet.client.schema_health import HealthCheck
from trivet.oci.config import Healthcheck

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
NAMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start_period": "StartPeriod",
    "start_interval": "StartInterval",
}


def request(wish: Healthcheck | None) -> HealthCheck | None:
    """Translate a check. Raises `InvalidArgument` with Docker's words."""
    if wish is None:
        return None
    for name, shown in NAMES.items():
        if getattr(wish, name) and getattr(wish, name) < MILLISECOND:
            raise InvalidArgument(f"{shown} in Healthcheck cannot be less than 1ms")
    if wish.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")
    return HealthCheck(
        test=list(wish.test or ()),
        retries=wish.retries,
        **{name: getattr(wish, name) / SECOND for name in NAMES},
    )


def check(wish: HealthCheck | None) -> dict[str, Any]:
    """Show what was asked for, as Config.Healthcheck; {} if nothing was."""
    if wish is None:
        return {}
    times = {shown: round(getattr(wish, name) * SECOND) for name, shown in NAMES.items()}
    return {"Healthcheck": {"Test": wish.test, "Retries": wish.retries, **times}}


def state(instance: Instance) -> dict[str, Any]:
    """Show how an instance is, as State.Health; {} if it isn't checked."""
    health = instance.health
    if health is None:
        return {}
    log = [
        {"Start": each.start, "End": each.end, "ExitCode": each.exit_code, "Output": each.output} for each in health.log
    ]
    return {"Health": {"Status": health.status, "FailingStreak": health.failing, "Log": log}}


def suffix(instance: Instance) -> str:
    """Give what the list adds to "Up 5 minutes"."""
    if instance.health is None:
        return ""
    return " (health: starting)" if instance.health.status == "starting" else f" ({instance.health.status})"
