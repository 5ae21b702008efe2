"""What a machine uses, read from outside, and what its `processes` builtin says from inside."""

from __future__ import annotations

from pathlib import Path

from trivet.isolation.driver import ProcessRow
from trivet.isolation.plan import Attachment, Plan
from trivet.kernel.procfs import Traffic


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


def traffic(plan: Plan) -> tuple[Traffic, ...]:
    """Read what the machine's interfaces carried; what tap devices send is what the guest receives."""
    devices = [attachment for attachment in plan.attachments if attachment.kind == "tap"]
    return tuple(_traffic(f"eth{place}", each) for place, each in enumerate(devices))


def _traffic(name: str, use: Attachment) -> Traffic:
    inward, outward = ("rx", "tx") if use.path else ("tx", "rx")  # a macvtap is the guest's own end
    return Traffic(
        name=name,
        received=_count(use.device, f"{inward}_bytes"),
        received_packets=_count(use.device, f"{inward}_packets"),
        received_errors=_count(use.device, f"{inward}_errors"),
        received_dropped=_count(use.device, f"{inward}_dropped"),
        sent=_count(use.device, f"{outward}_bytes"),
        sent_packets=_count(use.device, f"{outward}_packets"),
        sent_errors=_count(use.device, f"{outward}_errors"),
        sent_dropped=_count(use.device, f"{outward}_dropped"),
    )


def _count(device: str, name: str) -> int:
    try:
        return int(Path("/sys/class/net", device, "statistics", name).read_text())
    except OSError:
        return 0
