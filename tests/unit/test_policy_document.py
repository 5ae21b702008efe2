"""Kubernetes' NetworkPolicy, read into what the engine knows; what it doesn't know is refused by its path."""

from __future__ import annotations

import pytest

from trivet.cli.compose.document import parse
from trivet.cli.policy_document import Misread, read
from trivet.client.schema_policy import Allowance, Peer, PolicyPort, PolicyRequest

WHOLE = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, annotations: {trivet.log: "true"}}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - podSelector: {matchLabels: {app: api}}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
    ports: [{port: 5432}, {protocol: UDP, port: 6000, endPort: 6010}]
  - {}
"""


def test_everything_there_is() -> None:
    """Selectors, blocks, ports and ranges; an empty rule is everybody, a way without rules is nobody."""
    assert read(parse(WHOLE.encode(), "f"), "f") == PolicyRequest(
        name="db",
        labels={"app": "db"},
        ingress=[
            Allowance(
                peers=[Peer(labels={"app": "api"}), Peer(cidr="10.0.0.0/8", excluding=["10.1.0.0/16"])],
                ports=[PolicyPort(first=5432, last=5432), PolicyPort(first=6000, last=6010, protocol="udp")],
            ),
            Allowance(),
        ],
        egress=[],
        log=True,
    )


def test_ways_that_are_not_named() -> None:
    """Without policyTypes it is about what comes, and about what goes if it says something of that."""
    short = read(parse(b"{metadata: {name: a}, spec: {podSelector: {}}}", "f"), "f")
    assert (short.ingress, short.egress) == ([], None)
    both = read(parse(b"{metadata: {name: a}, spec: {podSelector: {}, egress: [{}]}}", "f"), "f")
    assert (both.ingress, both.egress) == ([], [Allowance()])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("podSelector: {matchLabels: {app: db}}\n", "\n", "spec.podSelector: is missing"),
        ("matchLabels: {app: api}", "matchExpressions: []", "podSelector.matchExpressions: is not known"),
        ("- podSelector: {matchLabels: {app: api}}", "- namespaceSelector: {}", "namespaceSelector: is not known"),
        ("port: 5432", "port: http", "is no number"),
        ("[Ingress, Egress]", "[Egress]", "would be without effect"),
        ("protocol: UDP", "protocol: SCTP", "neither TCP nor UDP"),
        ("kind: NetworkPolicy", "kind: Pod", "Pod is no NetworkPolicy"),
    ],
)
def test_what_is_not_understood(old: str, new: str, words: str) -> None:
    """What would be without effect here is no policy."""
    with pytest.raises(Misread, match=words.replace("[", r"\[")):
        read(parse(WHOLE.replace(old, new).encode(), "f"), "f")
