"""Starting the launcher: a monitor that outlives us, or a task that is waited for.

The launcher runs from a sealed memfd, so that nothing it starts can overwrite it (CVE-2019-5736),
through `posix_spawn`, whose cost does not grow with this process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import struct
import threading
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from trivet.base.error import Internal, TimedOut, TrivetError, Unavailable
from trivet.launch.channel import Channel, Frame
from trivet.launch.frame import HEADER, Type
from trivet.launch.monitor import connect
from trivet.launch.operation import Operation, encode

BINARY = Path(__file__).with_name("bin") / "trivet-launcher"
PLAN_FD = 3
REPORT_FD = 4
FIRST_FREE_FD = 10  # ours are moved above the numbers the launcher expects
SETUP_TIMEOUT = 120.0
STOP_GRACE = 2.0
QUIET = 2.0  # how long output that a task's orphans hold open is listened to
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class LaunchError(TrivetError):
    """An operation of a plan failed. `operation` is None when the launcher or the child itself broke.

    `index` is the operation's place: in a guest agent's own plan, when it was the agent who failed.
    """

    kind = Internal.kind

    def __init__(self, operation: Operation | None, errno: int, text: str, index: int = 0) -> None:
        reason = os.strerror(errno) if errno else ""
        words = text if not reason or text == reason else f"{text}: {reason}" if text else reason
        super().__init__(
            f"cannot {type(operation).__name__.lower()}: {words}" if operation else f"launch failed: {words}"
        )
        self.operation = operation
        self.errno = errno
        self.text = text
        self.index = index


class LaunchTimeout(TimedOut):
    """The launcher did not report, or a task did not end, in time."""


class Completed(msgspec.Struct, frozen=True):
    """How a task ended: exit status (128+n after signal n) and what it wrote."""

    code: int
    output: bytes
    error_output: bytes


# --- the binary -------------------------------------------------------------------------------------

_lock = threading.Lock()
_launcher: int | None = None


def launcher_descriptor() -> int:
    """Open the launcher as a sealed memfd, once per process."""
    global _launcher
    with _lock:
        if _launcher is None:
            _launcher = _seal(BINARY)
        return _launcher


def _seal(binary: Path) -> int:
    """Copy a program into a memfd nobody can write to any more, and open that for reading only."""
    try:
        content = binary.read_bytes()
    except FileNotFoundError as error:
        raise Unavailable(f"the launcher {binary} has not been built", hint="make") from error
    writable = os.memfd_create("trivet-launcher", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write_all(writable, content)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(writable, fcntl.F_ADD_SEALS, seals)
        # A descriptor open for writing would make execve fail with ETXTBSY.
        return _move_up(os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC))
    finally:
        os.close(writable)


def _move_up(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD)
    os.close(descriptor)
    return moved


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


# --- children ---------------------------------------------------------------------------------------

_children: set[int] = set()


def reap() -> int:
    """Collect launchers of ours that have ended, without blocking; the number still running.

    Monitors live as long as their instances: call this now and then. Never touches other children.
    """
    with _lock:
        for pid in list(_children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            _children.discard(pid)
        return len(_children)


def _start(plan: bytes, report: int, actions: list[tuple[Any, ...]]) -> int:
    """Spawn the launcher with a plan; its pid."""
    launcher = launcher_descriptor()
    memory = _move_up(os.memfd_create("trivet-plan", os.MFD_CLOEXEC))
    try:
        _write_all(memory, plan)
        actions = [
            *actions,
            (os.POSIX_SPAWN_DUP2, memory, PLAN_FD),
            (os.POSIX_SPAWN_DUP2, report, REPORT_FD),
        ]
        return os.posix_spawn(
            f"/proc/self/fd/{launcher}", ["trivet-launcher"], ENVIRONMENT, file_actions=actions, setsigmask=()
        )
    finally:
        os.close(memory)


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    return _move_up(reading), _move_up(writing)


# --- monitor mode -----------------------------------------------------------------------------------


def spawn(operations: list[Operation], *, directory: Path, timeout: float = SETUP_TIMEOUT) -> Channel:
    """Start a monitor with a plan whose `Monitor` names `directory`; it is set up when this returns.

    The channel has had its HELLO and is not attached. Raises `LaunchError`, or `LaunchTimeout` after
    which the monitor may still run: remove it as the driver's `release` does.
    """
    reap()
    with contextlib.ExitStack() as stack:
        reading, writing = _pipe()
        stack.callback(os.close, reading)
        try:
            pid = _start(encode(operations), writing, [])
        finally:
            os.close(writing)
        with _lock:
            _children.add(pid)
        frame = _read_report(reading, time.monotonic() + timeout)
    if frame is None:
        raise LaunchError(None, 0, "the monitor ended without a report")
    if frame.type is Type.FAILED:
        raise launch_error(operations, frame.payload)
    channel = connect(directory, timeout)
    if channel is None:
        raise LaunchError(None, 0, "the program and its monitor ended at once")
    return channel


def launch_error(operations: list[Operation], payload: bytes) -> LaunchError:
    """Turn the payload of a FAILED frame into the error that names the operation."""
    index, errno = struct.unpack_from("<Ii", payload)
    operation = operations[index] if index < len(operations) else None
    return LaunchError(operation, errno, payload[8:].decode("utf-8", "replace"), index)


def _read_report(descriptor: int, deadline: float) -> Frame | None:
    data = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (frame := _parse_report(data)) is None:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise LaunchTimeout("the launcher did not report that the instance is set up in time")
            part = os.read(descriptor, 4096)
            if not part:
                return None
            data += part
    return frame


def _parse_report(data: bytearray) -> Frame | None:
    if len(data) < HEADER.size:
        return None
    kind, _, session, length = HEADER.unpack_from(data)
    if len(data) < HEADER.size + length:
        return None
    return Frame(Type(kind), bytes(data[HEADER.size : HEADER.size + length]), session)


# --- task mode --------------------------------------------------------------------------------------


def run(
    operations: list[Operation],
    *,
    input: bytes | int | None = None,
    output: int | None = None,
    timeout: float | None = None,
) -> Completed:
    """Carry out a plan without a monitor and wait for its end.

    `input` is bytes, a descriptor, or None for /dev/null. `output` is a descriptor that gets standard
    output, which is collected otherwise; standard error is always collected. Raises `LaunchError` when
    an operation failed, `LaunchTimeout` after killing what took too long.
    """
    with contextlib.ExitStack() as stack:
        task = _Task(operations, stack, input, output)
        task.communicate(None if timeout is None else time.monotonic() + timeout)
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
            stdout = _above(theirs, output) if output is not None else self._open_output(stack, theirs, 1)
            stderr = self._open_output(stack, theirs, 2)
            report = self._open_output(stack, theirs, REPORT_FD)
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr))]
            self._pid = _start(encode(operations), report, actions)
        self._alive = True
        stack.callback(self._kill)
        self._ended = _keep(stack, os.pidfd_open(self._pid))
        self._selector.register(self._ended, selectors.EVENT_READ)

    def _open_input(self, stack: contextlib.ExitStack, theirs: contextlib.ExitStack, source: bytes | int | None) -> int:
        if isinstance(source, int):
            return _above(theirs, source)
        if source is None:
            return _keep(theirs, _move_up(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)))
        reading, writing = _pipe()
        os.set_blocking(writing, False)
        pipe: IO[bytes] = stack.enter_context(os.fdopen(writing, "wb", buffering=0))
        self._selector.register(pipe, selectors.EVENT_WRITE)
        return _keep(theirs, reading)

    def _open_output(self, stack: contextlib.ExitStack, theirs: contextlib.ExitStack, number: int) -> int:
        reading, writing = _pipe()
        pipe: IO[bytes] = stack.enter_context(os.fdopen(reading, "rb", buffering=0))
        self._buffers[number] = bytearray()
        self._selector.register(pipe, selectors.EVENT_READ, number)
        return _keep(theirs, writing)

    def communicate(self, deadline: float | None) -> None:
        """Move bytes until every pipe has ended, or until what the task left behind is quiet for a moment."""
        while self._selector.get_map():
            quiet = None if self._ended in self._selector.get_map() else QUIET
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            ready = self._selector.select(min((t for t in (quiet, left) if t is not None), default=None))
            if not ready and quiet is not None:
                return
            if not ready:
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
        else:
            self._selector.unregister(key.fileobj)

    def _write(self, key: selectors.SelectorKey) -> None:
        try:
            self._input = self._input[os.write(key.fd, self._input[:65536]) :]
        except BrokenPipeError:
            self._input = memoryview(b"")
        if not self._input:
            self._selector.unregister(key.fileobj)
            pipe: IO[bytes] = key.fileobj  # type: ignore[assignment]
            pipe.close()

    def finish(self) -> Completed:
        """Collect the exit status, or raise what the launcher reported."""
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._alive = False
        frame = _parse_report(self._buffers[REPORT_FD])
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


def _keep(stack: contextlib.ExitStack, descriptor: int) -> int:
    stack.callback(os.close, descriptor)
    return descriptor


def _above(stack: contextlib.ExitStack, descriptor: int) -> int:
    """Duplicate a caller's descriptor out of the way of the numbers the launcher expects."""
    return _keep(stack, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE_FD))
