"""What a guest tells of itself, by its agent: hostile, so that it is looked at field by field and cut."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from trivet.base.error import TrivetError
from trivet.hypervisor.qga import Qga
from trivet.isolation.errand import agent_of
from trivet.isolation.plan import Plan

_PATIENCE = 2.0
_LONG = 200
_MANY = 64


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """A guest's own words."""

    hostname: str = ""
    system: str = ""
    addresses: tuple[str, ...] = ()


def ask(plan: Plan) -> Inside | None:
    """Ask; None when no agent answers."""
    agent = agent_of(plan, _PATIENCE)
    if not agent.answers():
        return None
    name, system = _ask(agent, "guest-get-host-name"), _ask(agent, "guest-get-osinfo")
    return Inside(
        hostname=_word(name, "host-name"),
        system=_word(system, "pretty-name"),
        addresses=tuple(_addresses(_ask(agent, "guest-network-get-interfaces"))),
    )


def _ask(agent: Qga, command: str) -> Any:
    try:
        return agent.ask(command)
    except TrivetError:
        return None


def _word(answer: Any, key: str) -> str:
    found = answer.get(key) if isinstance(answer, dict) else ""
    return found[:_LONG] if isinstance(found, str) else ""


def _addresses(answer: Any) -> list[str]:
    found = []
    for interface in answer[:_MANY] if isinstance(answer, list) else ():
        entries = interface.get("ip-addresses") if isinstance(interface, dict) else None
        for entry in entries[:_MANY] if isinstance(entries, list) else ():
            try:
                address = ipaddress.ip_address(_word(entry, "ip-address"))
            except ValueError:
                continue
            if not address.is_loopback and not address.is_link_local:
                found.append(str(address))
    return found[:_MANY]
