"""IPv4 forwarding, without making a router of a host that was none.

The kernel's switch is for the whole host. When it was off, nothing was forwarded between the
interfaces that existed then; that stays so: they are remembered and go into the table's set `closed`.
Interfaces that come later (other engines, tunnels) are their owners' business.
"""

from __future__ import annotations

from pathlib import Path

from trivet.kernel import rtnetlink

ALIAS = "trivet "  # how the alias of every interface that an engine makes begins
SWITCH = Path("/proc/sys/net/ipv4/ip_forward")


class Forwarding:
    """The switch, and its past: the file `mark`, on tmpfs as a reboot forgets the switch too."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def enable(self) -> None:
        """Turn forwarding on; remember the interfaces when it was off."""
        if SWITCH.read_text().strip() == "1":
            return
        names = [link.name for link in rtnetlink.links() if link.name != "lo" and not link.alias.startswith(ALIAS)]
        self._mark.write_text("\n".join(names))
        SWITCH.write_text("1")

    def enabled(self) -> bool:
        """Tell whether the host forwards."""
        return SWITCH.read_text().strip() == "1"

    def closed(self) -> tuple[str, ...]:
        """List the interfaces between which nothing may be forwarded."""
        try:
            return tuple(self._mark.read_text().split())
        except FileNotFoundError:
            return ()

    def restore(self) -> None:
        """Turn it off again if this engine turned it on."""
        if self._mark.exists():
            SWITCH.write_text("0")
            self._mark.unlink()
