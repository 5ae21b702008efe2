"""What a machine uses, read from outside, and what its `processes` builtin says from inside."""

from __future__ import annotations

from pathlib import Path

from trivet.isolation.driver import ProcessRow
from trivet.isolation.plan import Plan


def row(line: str, now: float) -> ProcessRow:
    """Read a line of the `processes` builtin: pid, parent, user, age and CPU time in ms, command.

    The share of a core is over the life of the process, as on the other levels.
    """
    pid, ppid, uid, age, used, command = line.split(" ", 5)
    return ProcessRow(
        pid=int(pid),
        ppid=int(ppid),
        user="root" if uid == "0" else uid,
        command=command,
        cpu=round(100 * int(used) / max(int(age), 1), 1),
        used=int(used) / 1000,
        started=now - int(age) / 1000,
    )


def traffic(plan: Plan) -> tuple[int, int]:
    """Add up what the tap devices carried; what they send is what the guest receives, but for a macvtap."""
    devices = [attachment for attachment in plan.attachments if attachment.kind == "tap"]
    received = sum(_count(each.device, "rx_bytes" if each.path else "tx_bytes") for each in devices)
    return received, sum(_count(each.device, "tx_bytes" if each.path else "rx_bytes") for each in devices)


def _count(device: str, name: str) -> int:
    try:
        return int(Path("/sys/class/net", device, "statistics", name).read_text())
    except OSError:
        return 0
