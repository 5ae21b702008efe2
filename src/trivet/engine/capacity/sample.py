"""Looking at the host and at what runs; blocking, each instance on its own thread's time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec

from trivet.base.error import TrivetError
from trivet.engine.capacity.model import Host, Measure, Promise
from trivet.engine.capacity.promise import promise
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word
from trivet.isolation.driver import Footprint, elastic
from trivet.isolation.plan import Level
from trivet.kernel.cgroup_memory import stalled
from trivet.kernel.cgroup_record import table

KNOWN = 4096
TOGETHER = 8  # machines are asked at the same time, as each may take its time

log = logging.getLogger(__name__)


def host() -> Host:
    """Read what the machine has."""
    lines = Path("/proc/meminfo").read_text().replace(" kB", "").replace(":", "")
    values = table(lines)
    return Host(
        memory=values.get("MemTotal", 0) << 10, available=values.get("MemAvailable", 0) << 10, stalled=stalled()
    )


def running(context: Context) -> list[InstanceRecord]:
    """List what runs."""
    records = (context.table.get(key) for key in list(context.watches))
    return [record for record in records if record is not None and record.word in (Word.RUNNING, Word.PAUSED)]


def measures(context: Context, records: Sequence[InstanceRecord], last: dict[str, Measure]) -> list[Measure]:
    """Measure instances; who can't be asked now is taken for what it was, or for all it was promised."""
    machines = [record for record in records if record.plan.level is Level.VM]
    others = [record for record in records if record.plan.level is not Level.VM]
    ask = partial(_measure, context, last)
    found = [ask(record) for record in others]
    if machines:
        with ThreadPoolExecutor(TOGETHER, thread_name_prefix="capacity") as pool:
            found += pool.map(ask, machines)
    return [measure for measure in found if measure is not None]


def _measure(context: Context, last: dict[str, Measure], record: InstanceRecord) -> Measure | None:
    asked, driver = promise_of(record), elastic(context.driver(record))
    if driver is None:
        return None
    try:
        return _read(asked, driver.footprint(record.plan))
    except (TrivetError, OSError) as error:
        log.debug("cannot measure instance %s: %s", record.name, error)
    if record.id not in context.watches:
        return None
    known = last.get(record.id) or Measure(promise=asked, held=asked.maximum, used=asked.maximum, resident=0)
    held = max(known.held, known.allotted)
    return msgspec.structs.replace(known, held=held, allotted=held, deaf=True)


def _read(asked: Promise, found: Footprint) -> Measure:
    return Measure(
        promise=asked,
        held=found.held,
        used=found.used,
        resident=found.resident,
        allotted=found.allotted,
        starved=found.starved,
        waited=found.waited / 1e9,
    )


def promise_of(record: InstanceRecord) -> Promise:
    """Tell what an instance was promised; of the same record once only, as every start asks for all of them."""
    known = _promises.get(record.id)
    if known is None or known[0] is not record:
        if len(_promises) >= KNOWN:
            _promises.clear()
        known = _promises[record.id] = record, promise(record.plan, record.acceleration)
    return known[1]


_promises: dict[str, tuple[InstanceRecord, Promise]] = {}
