"""`--network`: a network's name, or `name=NAME` with what is wanted of it."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from typing import Any

import msgspec

from trivet.cli.command import Misuse
from trivet.client import rate as rates
from trivet.client.schema_network import EndpointRequest, RateRequest

_FIELDS = {
    "alias": "aliases",
    "ip": "ip",
    "ip6": "ip6",
    "mac-address": "mac",
    "gw-priority": "priority",
    "rate-in": "rate_in",
    "rate-out": "rate_out",
}


def network(text: str) -> EndpointRequest:
    """Read one `--network`."""
    if "=" not in text:
        return EndpointRequest(network=text)
    fields: dict[str, Any] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if key == "name" and equals:
            fields["network"] = value
        elif key == "alias" and equals:
            fields.setdefault("aliases", []).append(value)
        elif key == "gw-priority" and value.lstrip("-").isdecimal():
            fields["priority"] = int(value)
        elif key in ("rate-in", "rate-out"):
            fields[_FIELDS[key]] = rate(value)
        elif key in _FIELDS and equals and key != "gw-priority":
            fields[_FIELDS[key]] = value
        else:
            raise ArgumentTypeError(f"{text!r}: {part!r} is none of name=NAME, {', '.join(_FIELDS)}")
    if not fields.get("network"):
        raise ArgumentTypeError(f"{text!r} names no network: add name=NAME")
    return EndpointRequest(**fields)


def rate(text: str) -> int:
    """Read bits per second: 512kbit, 10mbit, 1gbit, or 0 for no limit."""
    try:
        return rates.read(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def pace(text: str) -> RateRequest:
    """Read one `--network` of `update`."""
    found = network(text)
    names = {part.partition("=")[0] for part in text.split(",")}
    if not names & {"rate-in", "rate-out"} or names - {"name", "rate-in", "rate-out"}:
        raise ArgumentTypeError(f"{text!r} is not name=NAME,rate-in=RATE,rate-out=RATE: nothing else can be changed")
    return RateRequest(
        network=found.network,
        rate_in=found.rate_in if "rate-in" in names else None,
        rate_out=found.rate_out if "rate-out" in names else None,
    )


def wanted(args: Namespace) -> list[EndpointRequest]:
    """Gather the networks of `run`; what is not said of a network of its own belongs to the first. Raises `Misuse`."""
    found: list[EndpointRequest] = list(args.network)
    own = {"aliases": args.network_alias, "ip": args.ip, "ip6": args.ip6, "mac": args.mac_address}
    more = {key: value for key, value in own.items() if value}
    if not more:
        return found
    first = found[0] if found else EndpointRequest(network="bridge")
    for key in set(more) - {"aliases"}:
        if getattr(first, key) not in ("", more[key]):
            raise Misuse(f"--network: {key} of network {first.network} is given twice")
    more["aliases"] = [*first.aliases, *args.network_alias]
    return [msgspec.structs.replace(first, **more), *found[1:]]
