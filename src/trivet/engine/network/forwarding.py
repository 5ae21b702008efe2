"""IPv4 forwarding, without making a router of a host that was none.

The kernel's switch is for the whole host. When it was off, nothing was forwarded between the
interfaces that existed then; that stays so: they are remembered and go into the table's set `closed`.
Interfaces that come later (other engines, tunnels) are their owners' business.

The memory is shared by all engines of the host, as the switch is: the last one to go turns it off again.
It lies on tmpfs, as a reboot forgets the switch too.
"""

from __future__ import annotations

from pathlib import Path

from trivet.kernel import rtnetlink

ALIAS = "trivet "  # how the alias of every interface that an engine makes begins
SWITCH = Path("/proc/sys/net/ipv4/ip_forward")


def enable() -> None:
    """Turn forwarding on; remember the interfaces when it was off."""
    if enabled():
        return
    names = [link.name for link in rtnetlink.links() if link.name != "lo" and not link.alias.startswith(ALIAS)]
    _memory().write_text("\n".join(names))
    SWITCH.write_text("1")


def enabled() -> bool:
    """Tell whether the host forwards."""
    return SWITCH.read_text().strip() == "1"


def closed() -> tuple[str, ...]:
    """List the interfaces between which nothing may be forwarded."""
    try:
        return tuple(_memory().read_text().split())
    except FileNotFoundError:
        return ()


def restore() -> None:
    """Turn it off again if an engine turned it on."""
    if _memory().exists():
        SWITCH.write_text("0")
        _memory().unlink()


def _memory() -> Path:
    """Each network namespace is a host of its own here."""
    return Path(f"/run/trivet-forwarding.{Path('/proc/thread-self/ns/net').stat().st_ino}")
