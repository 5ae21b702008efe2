"""What a monitor leaves in its directory, read as records.

monitor.sock   somebody listens: the monitor lives
pid            "PID STARTTIME": the program (QEMU for a machine)
exit           "CODE SIGNAL TIME_NS OOM [TEXT]" or "failed INDEX ERRNO TEXT"
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import msgspec

from trivet.base.error import Corrupt
from trivet.launch.channel import Channel

EXIT_FLAG_OUT_OF_MEMORY = 1


class Process(msgspec.Struct, frozen=True):
    """A process that can't be mistaken for a later one with the same pid."""

    pid: int
    start_time: int

    def lives(self) -> bool:
        """Tell whether it is still there (a zombie is not)."""
        return start_time(self.pid) == self.start_time

    def open(self) -> int:
        """Open a pidfd. Raises ProcessLookupError when the process has ended."""
        descriptor = os.pidfd_open(self.pid)
        if not self.lives():
            os.close(descriptor)
            raise ProcessLookupError(f"process {self.pid} has ended")
        return descriptor

    def signal(self, number: int) -> None:
        """Send a signal, certain to hit this process. Raises ProcessLookupError when it has ended."""
        descriptor = self.open()
        try:
            signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


class Ending(msgspec.Struct, frozen=True):
    """How a program ended. `text` is set when it didn't end by itself: `machine ended`."""

    code: int
    signal: int = 0
    time: int = 0
    out_of_memory: bool = False
    text: str = ""


class Failure(msgspec.Struct, frozen=True):
    """Why a program never began: the index of the plan's operation, errno and the launcher's words."""

    index: int
    errno: int
    text: str


class MalformedRecord(Corrupt):
    """A file of a monitor's directory can't be read."""


def read_process(directory: Path) -> Process | None:
    """Read `pid`; None before the program was made."""
    words = _read(directory / "pid")
    if words is None:
        return None
    try:
        pid, started = words.split()
        return Process(int(pid), int(started))
    except ValueError as error:
        raise MalformedRecord(f"malformed process record {directory / 'pid'}: {words!r}") from error


def read_ending(directory: Path) -> Ending | Failure | None:
    """Read `exit`; None while the program has not ended."""
    line = _read(directory / "exit")
    if line is None:
        return None
    try:
        if line.startswith("failed "):
            _, index, errno, *text = line.split(" ", 3)
            return Failure(int(index), int(errno), text[0] if text else "")
        code, number, time_ns, flags, *text = line.split(" ", 4)
        memory = bool(int(flags) & EXIT_FLAG_OUT_OF_MEMORY)
        return Ending(int(code), int(number), int(time_ns), memory, text[0] if text else "")
    except ValueError as error:
        raise MalformedRecord(f"malformed exit record {directory / 'exit'}: {line!r}") from error


def parse_exit(payload: bytes) -> Ending:
    """Read the payload of an EXIT frame."""
    code, number = int.from_bytes(payload[:4], "little"), int.from_bytes(payload[4:8], "little")
    flags = int.from_bytes(payload[16:20], "little")
    return Ending(code, number, int.from_bytes(payload[8:16], "little"), bool(flags & EXIT_FLAG_OUT_OF_MEMORY))


def connect(directory: Path, timeout: float | None = 10.0) -> Channel | None:
    """Connect to the monitor and consume its HELLO; None when no monitor lives there."""
    try:
        channel = Channel.connect(directory / "monitor.sock")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        return None
    try:
        channel.greet(timeout)
    except ConnectionError:
        channel.close()
        return None
    except BaseException:
        channel.close()
        raise
    return channel


def await_ending(directory: Path, timeout: float) -> Ending | Failure | None:
    """Wait for the exit file; None when there is none in time."""
    deadline = time.monotonic() + timeout
    while (ending := read_ending(directory)) is None and time.monotonic() < deadline:
        time.sleep(0.005)
    return ending


def start_time(pid: int) -> int:
    """Read field 22 of /proc/PID/stat (clock ticks since boot); 0 for no process and for a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = text[text.rindex(b")") + 2 :].split()
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "replace").rstrip("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
