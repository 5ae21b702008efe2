"""Frames: the one conversation between client, engine, monitor and guest agent.

Every frame is an 8-byte header (u8 type, u8 zero, u16 session, u32 length, little-endian) and its
payload, at most MAXIMUM bytes except where it is a plan. Session 0 is the instance's own program; on a
monitor's socket and on the engine's API a connection carries one session and the field is 0.
"""

from __future__ import annotations

import struct
from enum import IntEnum

HEADER = struct.Struct("<BBHI")
MAXIMUM = 65536
MAXIMUM_PLAN = 16 << 20
WINDOW = 256 << 10


class Type(IntEnum):
    """What a frame says; the first group goes towards the program, the second comes from it."""

    START = 0x01  # agent only: an encoded plan
    GO = 0x02  # let the program that waits begin
    STDIN = 0x03  # bytes; an empty payload is the end of input
    RESIZE = 0x04  # u16 rows, u16 columns
    SIGNAL = 0x05  # u32 number
    ATTACH = 0x06  # u32 flags, see ATTACH_*
    EXEC = 0x07  # monitor of a VM only: an encoded plan; the connection becomes that session's
    CREDIT = 0x08  # u32 bytes the receiver has consumed (relay only; each session starts with WINDOW)
    CLOSE = 0x09  # the client of this session is gone: kill it (relay only)
    CALL = 0x0A  # agent only, and a forked one: say HELLO again, the first one went to the template's maker; or ADOPTED
    HOST = 0x0B  # agent only, before START: u64 time in ns, 32 random bytes
    HOLD = 0x0C  # monitor of a VM only: say nothing more, so that the machine can be saved, until RELEASE
    RELEASE = 0x0D  # also when who said HOLD has gone
    BECOME = 0x0E  # monitor of a spare machine only: an encoded plan, whose Monitor and Relay are its own from now on
    ENTER = 0x0F  # monitor of processes of this kernel only: the launcher's key, and an encoded plan; see enter.py

    HELLO = 0x41  # JSON object: {"version": 1, "state": "created|running", "pid": N, "enters": true}
    READY = 0x42  # set up; waits for GO
    STARTED = 0x43  # u32 pid
    FAILED = 0x44  # u32 index of the operation, u32 errno, then a text
    STDOUT = 0x45
    STDERR = 0x46
    REST = 0x48  # agent only, the last thing it says: everything is written out, the machine can be switched off
    HELD = 0x49  # nothing is under way any more
    ADOPTED = 0x4A  # agent only, to CALL where the machine was saved: u32 bytes of input that are still unread
    EXIT = 0x47  # u32 code, u32 signal, u64 time in ns, u32 flags (1: out of memory)


ATTACH_STDIN = 1
ATTACH_STDOUT = 2
ATTACH_STDERR = 4


def pack(kind: Type, payload: bytes = b"", session: int = 0) -> bytes:
    """Build one frame."""
    return HEADER.pack(kind, 0, session, len(payload)) + payload
