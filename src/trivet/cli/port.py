"""`-p [ADDRESS:][HOST:]PORT[/udp]`, with ranges."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

from trivet.client.schema_network import PortRequest

_PORT = re.compile(
    r"(?:(?P<address>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<host>[0-9-]*):)?(?P<port>[0-9-]+)(?:/(?P<protocol>\w+))?"
)
_HOST_ONLY = re.compile(r"(?P<host>[0-9-]*):(?P<port>[0-9-]+)(?:/(?P<protocol>\w+))?")


def publish(text: str) -> list[PortRequest]:
    """Read one `-p`; a range gives one request per port, ports of the host for a single one mean any of them."""
    match = _HOST_ONLY.fullmatch(text) or _PORT.fullmatch(text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not [ADDRESS:][HOST:]PORT[/udp]")
    fields = match.groupdict()
    protocol = (fields["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp"):
        raise ArgumentTypeError(f"{text!r}: {protocol!r} is neither tcp nor udp")
    inside = _range(fields["port"], text)
    outside = _range(fields["host"], text) if fields["host"] else range(0)
    any_of = len(inside) == 1 and len(outside) > 1
    if outside and len(outside) != len(inside) and not any_of:
        raise ArgumentTypeError(f"{text!r}: {len(outside)} ports of the host for {len(inside)} of the instance")
    address = _address(fields.get("address") or "", text)
    return [
        PortRequest(
            container_port=port,
            host_port=outside[index] if outside else 0,
            host_address=address,
            protocol="udp" if protocol == "udp" else "tcp",
            last=outside[-1] if any_of else 0,
        )
        for index, port in enumerate(inside)
    ]


def _range(text: str, whole: str) -> range:
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ArgumentTypeError(f"{whole!r}: {text!r} is neither a port nor a range of ports")
    ports = range(int(first), int(last or first) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise ArgumentTypeError(f"{whole!r}: {text!r} is not between 1 and 65535")
    return ports


def _address(text: str, whole: str) -> str:
    if not text:
        return ""
    from ipaddress import ip_address  # takes as long as all the rest of the module's life

    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        raise ArgumentTypeError(f"{whole!r}: {text!r} is not an IP address") from None
