"""What /proc says about processes (proc(5))."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

import msgspec

_TICK = os.sysconf("SC_CLK_TCK")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A process: `cpu` is its share of one core over its life, in percent, `used` the seconds it had; `started` is Unix
    time."""

    pid: int
    ppid: int
    user: str
    command: str
    cpu: float
    used: float
    started: float


def row(pid: int) -> Row | None:
    """Read one process; None when it has ended."""
    directory = Path("/proc", str(pid))
    try:
        name, fields = stat(pid)
        command = (directory / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        uid = directory.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None
    age, used = time.clock_gettime(time.CLOCK_BOOTTIME) - fields[19] / _TICK, (fields[11] + fields[12]) / _TICK
    return Row(
        pid=pid,
        ppid=fields[1],
        user=_user(uid),
        command=command or f"[{name}]",
        cpu=round(100 * used / max(age, 1 / _TICK), 1),
        used=used,
        started=time.time() - age,
    )


def stat(pid: int) -> tuple[str, list[int]]:
    """Read /proc/PID/stat: the name, and the numbers from field 3 on (the state letter counts as 0)."""
    text = Path("/proc", str(pid), "stat").read_text(errors="replace")
    name, _, rest = text.partition("(")[2].rpartition(")")
    return name, [int(word) if word.lstrip("-").isdigit() else 0 for word in rest.split()]


def memory() -> tuple[int, int]:
    """Read how many bytes of memory this machine has, and how many are available."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    values = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines[:3]}
    return values["MemTotal"], values["MemAvailable"]


def namespace_members(pid: int) -> list[int]:
    """List the processes in the pid namespace of a process and in those below it."""
    parents: dict[int, int] = {}
    found = set[int]()
    try:
        namespace = Path("/proc", str(pid), "ns/pid").stat().st_ino
    except OSError:
        return []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = stat(int(entry.name))[1][1]
                if (entry / "ns/pid").stat().st_ino == namespace:
                    found.add(int(entry.name))
            except OSError:  # it has ended, or belongs to somebody else
                continue
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What an interface carried, as those who have it see it."""

    name: str
    received: int = 0
    received_packets: int = 0
    received_errors: int = 0
    received_dropped: int = 0
    sent: int = 0
    sent_packets: int = 0
    sent_errors: int = 0
    sent_dropped: int = 0


def traffic(pid: int) -> tuple[Traffic, ...]:
    """Read what the interfaces carried that a process sees, loopback left out."""
    try:
        lines = Path("/proc", str(pid), "net/dev").read_text().splitlines()[2:]
    except OSError:
        return ()
    pairs = (line.split(":", 1) for line in lines)
    return tuple(_traffic(name.strip(), numbers.split()) for name, numbers in pairs if name.strip() != "lo")


def _traffic(name: str, words: list[str]) -> Traffic:
    """Read a line of /proc/PID/net/dev: eight counts of what was received, then eight of what was sent."""
    counts = [int(word) for word in words]
    return Traffic(
        name=name,
        received=counts[0],
        received_packets=counts[1],
        received_errors=counts[2],
        received_dropped=counts[3],
        sent=counts[8],
        sent_packets=counts[9],
        sent_errors=counts[10],
        sent_dropped=counts[11],
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def waited(pids: list[int]) -> int:
    """Add up the nanoseconds for which the threads of processes could have run, had there been a processor for them."""
    total = 0
    for pid in pids:
        try:
            for thread in Path("/proc", str(pid), "task").iterdir():
                total += int((thread / "schedstat").read_text().split()[1])
        except (OSError, ValueError, IndexError):  # it has ended, or the kernel doesn't count
            continue
    return total
