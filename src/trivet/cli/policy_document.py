"""A NetworkPolicy as Kubernetes writes it → `PolicyRequest`. What isn't understood is refused by its path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.base.error import InvalidArgument
from trivet.client.schema_policy import Allowance, Peer, PolicyPort, PolicyRequest

LOG = "trivet.log"
_ABOUT = {"Ingress": "ingress", "Egress": "egress"}


class Misread(InvalidArgument):
    """A document says something that can't be meant here."""

    def __init__(self, place: str, words: str) -> None:
        super().__init__(f"{place}: {words}")


def read(found: Mapping[str, Any], file: str) -> PolicyRequest:
    """Read a document. Raises `Misread`."""
    top = _table(found, file, "apiVersion", "kind", "metadata", "spec")
    if top.get("kind", "NetworkPolicy") != "NetworkPolicy":
        raise Misread(f"{file}: kind", f"{top['kind']} is no NetworkPolicy")
    head = _table(top.get("metadata"), "metadata", "name", "annotations", "labels")
    spec = _table(top.get("spec"), "spec", "podSelector", "policyTypes", "ingress", "egress")
    if "podSelector" not in spec:
        raise Misread("spec.podSelector", "is missing; {} is every instance")
    kinds = spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]
    for kind in kinds:
        if kind not in _ABOUT:
            raise Misread("spec.policyTypes", f"{kind!r} is none of {', '.join(_ABOUT)}")
    for kind, key in _ABOUT.items():
        if key in spec and kind not in kinds:
            raise Misread(f"spec.{key}", f"{kind} is not in policyTypes, so this would be without effect")
    ways = {key: _rules(spec.get(key), key) if kind in kinds else None for kind, key in _ABOUT.items()}
    return PolicyRequest(
        name=str(head.get("name", "")),
        labels=_selector(spec["podSelector"], "spec.podSelector"),
        ingress=ways["ingress"],
        egress=ways["egress"],
        log=str(_table(head.get("annotations"), "metadata.annotations").get(LOG, "")).lower() == "true",
    )


def _rules(found: object, key: str) -> list[Allowance]:
    peer = "from" if key == "ingress" else "to"
    rules = []
    for number, row in enumerate(_list(found, f"spec.{key}")):
        place = f"spec.{key}[{number}]"
        rule = _table(row, place, peer, "ports")
        peers = [_peer(each, f"{place}.{peer}[{index}]") for index, each in enumerate(_list(rule.get(peer), place))]
        ports = [
            port
            for index, each in enumerate(_list(rule.get("ports"), place))
            for port in _port(each, f"{place}.ports[{index}]")
        ]
        rules.append(Allowance(peers=peers, ports=ports))
    return rules


def _peer(found: object, place: str) -> Peer:
    peer = _table(found, place, "podSelector", "ipBlock")
    if len(peer) != 1:
        raise Misread(place, "is either podSelector or ipBlock")
    if "podSelector" in peer:
        return Peer(labels=_selector(peer["podSelector"], f"{place}.podSelector"))
    block = _table(peer["ipBlock"], f"{place}.ipBlock", "cidr", "except")
    return Peer(cidr=str(block.get("cidr", "")), excluding=[str(each) for each in _list(block.get("except"), place)])


def _port(found: object, place: str) -> list[PolicyPort]:
    row = _table(found, place, "protocol", "port", "endPort")
    protocol = str(row.get("protocol", "TCP")).lower()
    if protocol not in ("tcp", "udp"):
        raise Misread(f"{place}.protocol", f"{row['protocol']} is neither TCP nor UDP")
    first, last = row.get("port", 1), row.get("endPort", row.get("port", 65535))
    if not isinstance(first, int) or not isinstance(last, int):
        raise Misread(f"{place}.port", "is no number; names of ports are not known here")
    return [PolicyPort(first=first, last=last, protocol="udp" if protocol == "udp" else "tcp")]


def _selector(found: object, place: str) -> dict[str, str]:
    labels = _table(_table(found, place, "matchLabels").get("matchLabels"), f"{place}.matchLabels")
    return {str(key): str(value) for key, value in labels.items()}


def _table(found: object, place: str, *known: str) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Misread(place, "is no mapping")
    for key in found if known else ():
        if key not in known:
            raise Misread(f"{place}.{key}", f"is not known here, {', '.join(known)} are")
    return found


def _list(found: object, place: str) -> list[object]:
    if found is None:
        return []
    if not isinstance(found, list):
        raise Misread(place, "is no list")
    return found
