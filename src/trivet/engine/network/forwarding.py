"""Forwarding, without making a router of a host that was none.

The kernel's switches (one for IPv4, one for IPv6) are for the whole host. When one was off, nothing was forwarded
between the interfaces that existed then; that stays so: they are remembered and go into the table's sets
`closed` and `closed6`. Interfaces that come later (other engines, tunnels) are their owners' business.

The memory is shared by all engines of the host, as the switches are: the last one to go turns them off again.
It lies on tmpfs, as a reboot forgets the switches too.
"""

from __future__ import annotations

from pathlib import Path

from trivet.kernel import rtnetlink

ALIAS = "trivet "  # how the alias of every interface that an engine makes begins
SWITCH = Path("/proc/sys/net/ipv4/ip_forward")
SWITCH6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
SWITCHES = {4: SWITCH, 6: SWITCH6}


def enable(version: int = 4) -> None:
    """Turn forwarding on; remember the interfaces when it was off."""
    if enabled(version):
        return
    names = [link.name for link in rtnetlink.links() if link.name != "lo" and not link.alias.startswith(ALIAS)]
    _memory(version).write_text("\n".join(names))
    if version == 6:
        _believe_routers(names)
    SWITCHES[version].write_text("1")


def enabled(version: int = 4) -> bool:
    """Tell whether the host forwards."""
    return SWITCHES[version].read_text().strip() == "1"


def closed(version: int = 4) -> tuple[str, ...]:
    """List the interfaces between which nothing may be forwarded."""
    try:
        return tuple(_memory(version).read_text().split())
    except FileNotFoundError:
        return ()


def restore() -> None:
    """Turn it off again if an engine turned it on."""
    for version, switch in SWITCHES.items():
        if _memory(version).exists():
            switch.write_text("0")
            _memory(version).unlink()


def _believe_routers(names: list[str]) -> None:
    """Let interfaces that learn their routes from a router go on; a host that forwards doesn't, unless told to (2)."""
    for name in names:
        accept = Path("/proc/sys/net/ipv6/conf", name, "accept_ra")
        if accept.exists() and accept.read_text().strip() == "1":
            accept.write_text("2")


def _memory(version: int) -> Path:
    """Each network namespace is a host of its own here."""
    inode = Path("/proc/thread-self/ns/net").stat().st_ino
    return Path(f"/run/trivet-forwarding{'' if version == 4 else '6'}.{inode}")
