"""Health checks: a program run in an instance now and then, as the image or the request says (Docker's HEALTHCHECK).

starting ──▶ healthy ◀──▶ unhealthy      healthy after one success, unhealthy after `retries` failures in a row;
    └──────────────────────────▲         those of the start period don't count

Docker's first check comes an interval after the start: half a minute, unless somebody said otherwise. Here it is tried
soon, and ever more seldom, before that; what these early checks find counts only when it is good.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sqlite3
from typing import Literal

import msgspec

from trivet.base.clock import now_ns, rfc3339
from trivet.base.error import TrivetError
from trivet.client.schema import ExecRequest
from trivet.client.schema_health import Health, HealthCheck, Probe
from trivet.engine.instance import exec, stop
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.start import start
from trivet.engine.instance.status import Word
from trivet.engine.instance.stream import Attach, Stream
from trivet.engine.instance.watch import Watch, parse_exit
from trivet.launch.frame import Type
from trivet.oci.config import Healthcheck

log = logging.getLogger(__name__)

INTERVAL, TIMEOUT, START_INTERVAL, RETRIES = 30.0, 30.0, 5.0, 3
KEPT, OUTPUT = 5, 4096
FIRST = 0.1  # seconds after the start; the next ones take twice as long each
SECOND = 1_000_000_000


def effective(wish: HealthCheck | None, image: Healthcheck | None, shell: tuple[str, ...] | None) -> HealthCheck | None:
    """Fold the request's check into the image's; None if nothing is to be checked. `shell` runs CMD-SHELL lines."""
    ours, theirs = wish or HealthCheck(), image or Healthcheck()
    test = ours.test or list(theirs.test or ())
    if len(test) < 2 or test[0] not in ("CMD", "CMD-SHELL"):
        return None
    words = test[1:] if test[0] == "CMD" else [*(shell or ("/bin/sh", "-c")), test[1]]
    return HealthCheck(
        test=words,
        interval=ours.interval or theirs.interval / SECOND or INTERVAL,
        timeout=ours.timeout or theirs.timeout / SECOND or TIMEOUT,
        start_period=ours.start_period or theirs.start_period / SECOND,
        start_interval=ours.start_interval or theirs.start_interval / SECOND or START_INTERVAL,
        retries=ours.retries or theirs.retries or RETRIES,
    )


def applies(_: Context, record: InstanceRecord) -> bool:
    """Tell whether the instance is to be checked."""
    return record.check is not None


async def accompany(context: Context, key: str, watch: Watch) -> None:
    """Check a running instance until it ends, or until this is cancelled."""
    record = context.table.get(key)
    if record is None or record.check is None:
        return
    check, calm = record.check, record.started + round(record.check.start_period * SECOND)
    pause, regular = FIRST, record.started + round(_pace(check, early=bool(check.start_period)) * SECOND)
    while not watch.ended.done():
        health = record.health or Health()
        early = health.status == "starting" and now_ns() < calm
        left = (regular - now_ns()) / SECOND if health.status == "starting" else 0.0
        eager = left > pause
        await asyncio.wait([watch.ended], timeout=pause if eager else left if left > 0 else _pace(check, early=early))
        record = context.table.get(key)
        if record is None or watch.ended.done():
            return
        if record.word is not Word.RUNNING:
            continue
        probe = await _probe(context, record, check, min(check.timeout, left) if eager else check.timeout)
        pause *= 2
        if eager and probe.exit_code:
            continue
        try:
            noted = _note(context, key, check, probe, early=early)
        except (TrivetError, sqlite3.Error) as error:  # a full disk: the next check is written down instead
            log.warning("cannot write down the health of instance %s: %s", record.name, error)
            continue
        if noted is None:
            return
        record = noted


def _note(context: Context, key: str, check: HealthCheck, probe: Probe, *, early: bool) -> InstanceRecord | None:
    """Write down what a check found; tell the world, and do what was asked for, when that changes things."""
    record = context.table.get(key)
    if record is None or record.word not in (Word.RUNNING, Word.PAUSED):
        return None
    before = record.health or Health()
    failing = 0 if probe.exit_code == 0 or early else before.failing + 1
    status: Literal["starting", "healthy", "unhealthy"] = before.status
    if probe.exit_code == 0:
        status = "healthy"
    elif failing >= check.retries:
        status = "unhealthy"
    record = record.change(health=Health(status=status, failing=failing, log=[*before.log, probe][-KEPT:]))
    context.table.update(key, record)
    if status != before.status:
        context.emit("health_status", record, health=status)
        if status == "unhealthy":
            context.background(asyncio.create_task(_remedy(context, record)))
    return record


async def _remedy(context: Context, record: InstanceRecord) -> None:
    """Do what was asked for in case an instance is unhealthy."""
    action = record.request.health_on_failure
    with contextlib.suppress(TrivetError):
        if action == "kill":
            await stop.kill(context, record.id, "KILL")
        elif action in ("stop", "restart"):
            async with context.locks.hold(record.id, "restarting" if action == "restart" else "stopping"):
                await stop.stop(context, record.id, None, "")
                if action == "restart":
                    await start(context, record.id)


def _pace(check: HealthCheck, *, early: bool) -> float:
    return check.start_interval if early else check.interval


async def _probe(context: Context, record: InstanceRecord, check: HealthCheck, timeout: float) -> Probe:
    begun = now_ns()
    program = exec.exec_program(record.plan.program, ExecRequest(command=check.test))
    program = msgspec.structs.replace(program, terminal=False, stdin=False)
    try:
        stream = await exec.run(context, record, program, Attach())
    except (TrivetError, OSError) as error:
        return _told(begun, -1, str(getattr(error, "message", error)))
    try:
        code, output = await asyncio.wait_for(_listen(stream), timeout)
    except TimeoutError:
        with contextlib.suppress(OSError):
            await stream.send(Type.SIGNAL, signal.SIGKILL.to_bytes(4, "little"))
        code, output = -1, f"health check took longer than {timeout:g} s"
    finally:
        stream.close()
    return _told(begun, code, output)


async def _listen(stream: Stream) -> tuple[int, str]:
    """Wait for the program's end; give its exit status and the beginning of what it wrote."""
    said = bytearray()
    while frame := await stream.receive():
        if frame.type == Type.EXIT:
            return parse_exit(frame.payload).code, said.decode(errors="replace")
        if frame.type in (Type.STDOUT, Type.STDERR):
            said += frame.payload[: OUTPUT - len(said)]
    return -1, "the instance ended"


def _told(begun: int, code: int, output: str) -> Probe:
    return Probe(start=rfc3339(begun), end=rfc3339(now_ns()), exit_code=code, output=output)
