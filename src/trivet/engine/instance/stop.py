"""Ending a run on request: signal, grace, kill."""

from __future__ import annotations

import asyncio
import signal

from trivet.base.error import InvalidArgument
from trivet.engine.instance.context import Context
from trivet.engine.instance.model import InstanceRecord
from trivet.engine.instance.status import Word, check
from trivet.isolation.driver import Exit

KILL_PATIENCE = 10.0  # after SIGKILL, before the level's own means (cgroup kill, killing QEMU)


class UnknownSignal(InvalidArgument):
    """A word that names no signal."""

    def __init__(self, word: str) -> None:
        super().__init__(f"unknown signal {word}", hint="see signal(7), for example TERM or 15")
        self.word = word


def signal_number(word: str) -> int:
    """Read `TERM`, `SIGTERM` or `15`. Raises `UnknownSignal`."""
    name = word.upper().removeprefix("SIG")
    if name.isdigit() and 0 < int(name) < 65:
        return int(name)
    if name.startswith("RTMIN+") and name[6:].isdigit() and int(name[6:]) <= 30:
        return signal.SIGRTMIN + int(name[6:])
    try:
        return signal.Signals[f"SIG{name}"].value
    except KeyError:
        raise UnknownSignal(word) from None


async def stop(context: Context, key: str, grace: float | None = None, word: str = "") -> None:
    """Ask the program to end, wait up to `grace` seconds (0: none, None: as created with), then kill it.

    The caller holds the instance's lock. An instance that does not run is left alone.
    """
    record = _unwanted(context, key)
    watch = context.watches.get(record.id)
    if watch is None:
        if record.word == Word.RESTARTING:
            context.table.update(record.id, record.change(word=Word.EXITED))
        return
    if record.word == Word.PAUSED:
        await resume(context, record.id)
    patience = record.request.stop_timeout if grace is None else grace
    number = signal_number(word or record.plan.stop_signal)
    if patience != 0:
        # Whoever asks for it by name from now on is sent to another instance of that name, not to one that is ending.
        await asyncio.to_thread(context.networks.withdraw, record.id)
        await _signal(context, record, number)
        if await _ends(watch.ended, None if patience < 0 else patience):
            return
    await _signal(context, record, signal.SIGKILL)
    if not await _ends(watch.ended, KILL_PATIENCE):
        await asyncio.to_thread(context.driver(record).release, record.plan)
        await asyncio.shield(watch.ended)
    context.emit("stop", record)


async def kill(context: Context, key: str, word: str = "KILL") -> None:
    """Send a signal to the program; SIGKILL also tells the restart policy that the end is wanted."""
    number = signal_number(word)
    record = context.table.find(key)
    check("signal", record.name, record.word)
    if number == signal.SIGKILL:
        record = _unwanted(context, key)
        if record.word == Word.PAUSED:
            await resume(context, record.id)
    await asyncio.to_thread(context.driver(record).signal, record.plan, number)
    context.emit("kill", record, signal=str(number))


async def pause(context: Context, key: str) -> None:
    """Freeze the instance."""
    await _freeze(context, key, "pause", Word.PAUSED)


async def resume(context: Context, key: str) -> None:
    """Thaw it."""
    await _freeze(context, key, "resume", Word.RUNNING)


async def _freeze(context: Context, key: str, action: str, word: Word) -> None:
    record = context.table.find(key)
    check(action, record.name, record.word)
    driver = context.pausable(record)
    await asyncio.to_thread(driver.pause if action == "pause" else driver.resume, record.plan)
    record = record.change(word=word, error="")
    context.table.update(record.id, record)
    context.emit(action, record)


def _unwanted(context: Context, key: str) -> InstanceRecord:
    record = context.table.find(key).change(wanted=False)
    context.table.update(record.id, record)
    return record


async def _signal(context: Context, record: InstanceRecord, number: int) -> None:
    try:
        await asyncio.to_thread(context.driver(record).signal, record.plan, number)
    except Exception:  # it ended by itself, or its monitor hangs: waiting for the end decides
        return
    context.emit("kill", record, signal=str(number))


async def _ends(ended: asyncio.Future[Exit], timeout: float | None) -> bool:
    try:
        await asyncio.wait_for(asyncio.shield(ended), timeout)
    except TimeoutError:
        return False
    return True
