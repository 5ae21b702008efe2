"""Telling a guest the addresses of an interface that was plugged in, by its agent: cloud-init looks at starts only."""

from __future__ import annotations

from contextlib import suppress

from trivet.base.error import TrivetError
from trivet.isolation.errand import agent_of
from trivet.isolation.plan import Attachment, Plan

_PATIENCE = 3.0
_SCRIPT = """for try in 1 2 3 4 5 6 7 8 9 10; do for place in /sys/class/net/*; do
[ "$(cat "$place/address")" = "$0" ] || continue
ip link set dev "${place##*/}" up; for a; do ip address replace "$a" dev "${place##*/}"; done; exit 0
done; sleep 1; done; exit 1"""


def address(plan: Plan, use: Attachment) -> bool:
    """Set them; False where no agent answers, or it does not do that. Routes stay as they are."""
    with suppress(TrivetError):
        agent = agent_of(plan, _PATIENCE)
        if agent.answers():
            wanted = [use.mac.lower(), *(each.address for each in use.addresses)]
            agent.ask("guest-exec", path="/bin/sh", arg=["-c", _SCRIPT, *wanted])
            return True
    return False
