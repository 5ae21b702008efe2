"""Restart policies: whether an instance that ended is started again, and when."""

from __future__ import annotations

from trivet.engine.instance.model import InstanceRecord

FIRST, LONGEST, STABLE = 0.1, 60.0, 10e9


def delay(record: InstanceRecord) -> float | None:
    """Return the seconds to wait before the next start, None when it is to stay down.

    The wait doubles with each restart, from 0.1 s to a minute; ten seconds of running reset it (Docker's rule).
    """
    policy = record.request.restart
    if not record.wanted or policy.name == "no":
        return None
    if policy.name == "on-failure" and (
        record.exit_code == 0 or (policy.maximum and record.restarts >= policy.maximum)
    ):
        return None
    if record.finished - record.started >= STABLE:
        return FIRST
    return min(FIRST * 2.0 ** min(record.restarts, 20), LONGEST)
