"""Waiting for the end of an instance: the one it has, the next, or its removal."""

from __future__ import annotations

import asyncio

from trivet.base.error import InvalidArgument
from trivet.client.schema import Event, ExitStatus
from trivet.engine.instance.context import Context
from trivet.engine.instance.ending import end_lock

CONDITIONS = ("exited", "next-exit", "removed", "gone")


async def wait(context: Context, ref: str, condition: str) -> ExitStatus:
    """Wait until an instance has ended; one that doesn't run answers at once.

    `removed` also waits for the removal agreed for the end, `next-exit` for an end yet to come, and
    `gone` for the removal by whoever. Those two listen from the first step of this coroutine on.
    """
    if condition not in CONDITIONS:
        raise InvalidArgument(f"cannot wait for condition {condition!r}", hint=", ".join(CONDITIONS))
    record = context.table.find(ref)
    if condition in ("next-exit", "gone"):
        return await _event(context, record.id, ("remove",) if condition == "gone" else ("die", "remove"))
    if watch := context.watches.get(record.id):
        end = await asyncio.shield(watch.settled if condition == "removed" else watch.ended)
        return ExitStatus(code=end.code, signal=end.signal, out_of_memory=end.out_of_memory, error=end.error)
    return ExitStatus(
        code=record.exit_code, signal=record.exit_signal, out_of_memory=record.out_of_memory, error=record.error
    )


async def _event(context: Context, key: str, actions: tuple[str, ...]) -> ExitStatus:
    """Wait for one of the actions; tells how the last run that ended meanwhile, or before, did."""
    record = context.table.find(key)
    code, error = record.exit_code, record.error

    def ours(event: Event) -> bool:
        return event.kind == "instance" and event.id == key

    async for event in context.events.follow(wanted=ours):
        if event.action == "die":
            code, error = int(event.attributes.get("exit_code", code)), event.attributes.get("error", "")
        if event.action in actions:
            break
    async with context.locks.hold(end_lock(key), "waiting"):  # what the run had is freed then
        return ExitStatus(code=code, error=error)
