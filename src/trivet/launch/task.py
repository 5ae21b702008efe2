"""Tasks: plans that are carried out and waited for."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import IO

import msgspec

from trivet.launch.failure import LaunchError, LaunchTimeout, launch_error, parse_report
from trivet.launch.frame import Type
from trivet.launch.launcher import REPORT_FD, above, keep, move_up, pipe, start
from trivet.launch.operation import Operation, encode

STOP_GRACE = 2.0
ERROR_LIMIT = 64 << 10  # the last words are kept, however much a hostile program says
TICK = 0.2
QUIET = 2.0  # how long output that a task's orphans hold open is listened to


class Completed(msgspec.Struct, frozen=True):
    """How a task ended: exit status (128+n after signal n) and what it wrote."""

    code: int
    output: bytes
    error_output: bytes


def run(
    operations: list[Operation],
    *,
    input: bytes | int | None = None,
    output: int | None = None,
    timeout: float | None = None,
    check: Callable[[], None] | None = None,
) -> Completed:
    """Carry out a plan without a monitor and wait for its end.

    `input` is bytes, a descriptor, or None for /dev/null. `output` is a descriptor that gets standard
    output, which is collected otherwise; standard error is always collected. `check` is called several times a
    second; what it raises ends the task. Raises `LaunchError` when an operation failed, `LaunchTimeout` after
    killing what took too long.
    """
    with contextlib.ExitStack() as stack:
        task = _Task(operations, stack, input, output)
        task.communicate(None if timeout is None else time.monotonic() + timeout, check)
        return task.finish()


class _Task:
    """A launcher in task mode and the pipes around it."""

    def __init__(
        self, operations: list[Operation], stack: contextlib.ExitStack, input: bytes | int | None, output: int | None
    ) -> None:
        self._operations = operations
        self._selector = stack.enter_context(selectors.DefaultSelector())
        self._buffers: dict[int, bytearray] = {}
        self._input = memoryview(input if isinstance(input, bytes) else b"")
        theirs = contextlib.ExitStack()
        with theirs:
            stdin = self._open_input(stack, theirs, input)
            stdout = above(theirs, output) if output is not None else self._open_output(stack, theirs, 1)
            stderr = self._open_output(stack, theirs, 2)
            report = self._open_output(stack, theirs, REPORT_FD)
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr))]
            self._pid = start(encode(operations), report, actions)
        self._alive = True
        stack.callback(self._kill)
        self._ended = keep(stack, os.pidfd_open(self._pid))
        self._selector.register(self._ended, selectors.EVENT_READ)

    def _open_input(self, stack: contextlib.ExitStack, theirs: contextlib.ExitStack, source: bytes | int | None) -> int:
        if isinstance(source, int):
            return above(theirs, source)
        if source is None:
            return keep(theirs, move_up(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)))
        reading, writing = pipe()
        os.set_blocking(writing, False)
        end: IO[bytes] = stack.enter_context(os.fdopen(writing, "wb", buffering=0))
        self._selector.register(end, selectors.EVENT_WRITE)
        return keep(theirs, reading)

    def _open_output(self, stack: contextlib.ExitStack, theirs: contextlib.ExitStack, number: int) -> int:
        reading, writing = pipe()
        end: IO[bytes] = stack.enter_context(os.fdopen(reading, "rb", buffering=0))
        self._buffers[number] = bytearray()
        self._selector.register(end, selectors.EVENT_READ, number)
        return keep(theirs, writing)

    def communicate(self, deadline: float | None, check: Callable[[], None] | None) -> None:
        """Move bytes until every pipe has ended, or until what the task left behind is quiet for a moment."""
        while self._selector.get_map():
            quiet = None if self._ended in self._selector.get_map() else QUIET
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            tick = TICK if check and quiet is None else None
            ready = self._selector.select(min((t for t in (quiet, left, tick) if t is not None), default=None))
            if check:
                check()
            if not ready and quiet is not None:
                return
            if not ready and deadline is not None and time.monotonic() >= deadline:
                raise LaunchTimeout("a task of the launcher did not end in time")
            for key, events in ready:
                self._move(key, events)

    def _move(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fd == self._ended:
            self._selector.unregister(key.fileobj)
        elif events & selectors.EVENT_READ:
            self._read(key)
        else:
            self._write(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        part = os.read(key.fd, 65536)
        if part:
            self._buffers[key.data] += part
            if key.data == 2:
                del self._buffers[2][:-ERROR_LIMIT]
        else:
            self._selector.unregister(key.fileobj)

    def _write(self, key: selectors.SelectorKey) -> None:
        try:
            self._input = self._input[os.write(key.fd, self._input[:65536]) :]
        except BrokenPipeError:
            self._input = memoryview(b"")
        if not self._input:
            self._selector.unregister(key.fileobj)
            end: IO[bytes] = key.fileobj  # type: ignore[assignment]
            end.close()

    def finish(self) -> Completed:
        """Collect the exit status, or raise what the launcher reported."""
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._alive = False
        frame = parse_report(self._buffers[REPORT_FD])
        if frame is not None and frame.type is Type.FAILED:
            raise launch_error(self._operations, frame.payload)
        if status < 0:
            raise LaunchError(None, 0, f"the launcher died of signal {-status}")
        return Completed(status, bytes(self._buffers.get(1, b"")), bytes(self._buffers[2]))

    def _kill(self) -> None:
        """SIGTERM makes the launcher kill its child; one that doesn't end is killed itself."""
        if not self._alive:
            return
        os.kill(self._pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_GRACE
        while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.005)
