"""Conducted launches: the program is our own child and has our streams, and we are asked on the way."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable, Sequence

from trivet.launch.channel import Frame
from trivet.launch.failure import LaunchError, LaunchTimeout, launch_error, parse_report
from trivet.launch.frame import Type
from trivet.launch.launcher import above, keep, pipe, start
from trivet.launch.operation import Operation, encode

CONDUCTOR_FD, STREAM_FD, OTHER_FD = 5, 6, 9
_CREDENTIALS = struct.Struct("3i")  # struct ucred
_DESCRIPTOR = struct.Struct("i")

Answer = Callable[[str, int, int | None], None]
"""Called with what the child says, its pid and the descriptor it hands over; the descriptor is closed afterwards."""


def conduct(
    operations: list[Operation],
    answer: Answer,
    *,
    streams: Sequence[int] = (0, 1, 2),
    preserved: Sequence[int] = (),
    timeout: float = 120.0,
) -> Frame:
    """Carry out a plan with `Monitor` and `Descriptors`; gives READY, or STARTED for a plan without `Wait`.

    Raises `LaunchError`, or what `answer` raised, when the launch has failed.
    """
    with contextlib.ExitStack() as stack:
        reading, writing = pipe()
        keep(stack, reading)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        with contextlib.ExitStack() as given:
            keep(given, writing)
            given.enter_context(theirs)
            numbers = [above(given, theirs.fileno()), *(_stream(given, fd) for fd in streams)]
            numbers += [above(given, fd) for fd in preserved]
            actions = [(os.POSIX_SPAWN_DUP2, fd, CONDUCTOR_FD + place) for place, fd in enumerate(numbers)]
            pid = start(encode(operations), writing, actions)
        try:
            frame = _serve(operations, reading, ours, answer, time.monotonic() + timeout)
        except LaunchTimeout:
            os.kill(pid, signal.SIGKILL)
            raise
        if frame.type is Type.STARTED:
            os.waitpid(pid, 0)  # the monitor ends by itself now, and its socket is gone when it has
        return frame


def _stream(stack: contextlib.ExitStack, descriptor: int) -> int:
    """Duplicate a stream of ours; one that is closed becomes /dev/null."""
    try:
        return above(stack, descriptor)
    except OSError:
        return above(stack, keep(stack, os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)))


def _serve(operations: list[Operation], report: int, ours: socket.socket, answer: Answer, deadline: float) -> Frame:
    data, refusal = bytearray(), None
    with selectors.PollSelector() as selector:
        selector.register(report, selectors.EVENT_READ)
        selector.register(ours, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select(max(deadline - time.monotonic(), 0))]
            if not ready:
                raise LaunchTimeout("the launcher did not report that the program is set up in time")
            if ours in ready and refusal is None:
                refusal = _answer(ours, answer, selector)
            if report not in ready:
                continue
            part = os.read(report, 4096)
            data += part
            frame = parse_report(data)
            if frame is None and part:
                continue
            if refusal is not None:
                raise refusal
            if frame is None:
                raise LaunchError(None, 0, "the monitor ended without a report")
            if frame.type is Type.FAILED:
                raise launch_error(operations, frame.payload)
            return frame


def _answer(ours: socket.socket, answer: Answer, selector: selectors.BaseSelector) -> Exception | None:
    """Hear one message; a refusal, which ends the launch, is kept until the launcher has reported that."""
    said, pid, descriptor = _hear(ours)
    try:
        if said:
            answer(said, pid, descriptor)
            ours.send(b"\0")
    except Exception as error:
        selector.unregister(ours)
        ours.shutdown(socket.SHUT_RDWR)
        return error
    finally:
        if descriptor is not None:
            os.close(descriptor)
    if not said:
        selector.unregister(ours)
    return None


def _hear(ours: socket.socket) -> tuple[str, int, int | None]:
    room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(_DESCRIPTOR.size)
    data, parts, _, _ = ours.recvmsg(256, room, socket.MSG_CMSG_CLOEXEC)
    pid, descriptor = 0, None
    for level, kind, raw in parts:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = _CREDENTIALS.unpack(raw)[0]
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptor = _DESCRIPTOR.unpack(raw)[0]
    return data.decode(), pid, descriptor
