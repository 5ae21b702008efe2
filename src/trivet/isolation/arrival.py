"""How a copy of a machine that ran learns who it is, before anybody hears of it.

QEMU has what was saved, and stands still. The interfaces in there have the original's addresses: their cables are
pulled before the guest goes on, and it is asked to let them go. Those it is given instead have their own, which its
agent sets, with the host name and the clock. The kernel's random generator is told by the VM generation id.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from trivet.base.clock import now_ns
from trivet.base.error import Conflict, Internal, TimedOut, Unsupported
from trivet.hypervisor.device.nic import PREFIX
from trivet.hypervisor.qga import AgentAbsent, AgentRefused, Qga
from trivet.hypervisor.qmp import Qmp
from trivet.hypervisor.system import SOCKETS
from trivet.isolation import computer, slot
from trivet.isolation.errand import agent_of
from trivet.isolation.plan import Attachment, Plan

MARK = "arriving"  # in the run directory, until it knows who it is
_PATIENCE = 900.0
_ANSWER = 120.0
_UNPLUG = 300.0  # an emulated processor begins with nothing translated, and its copies beside it
_STEP = 0.05

_NAME = """old=$(cat /proc/sys/kernel/hostname) && [ "$old" != "$1" ] || exit 0
echo "$1" >/proc/sys/kernel/hostname || exit 1
[ -e /etc/hostname ] && echo "$1" >/etc/hostname
[ -e /etc/hosts ] && sed -i "s/\\\\([[:space:]]\\\\)$old\\\\([[:space:].]\\\\|\\$\\\\)/\\\\1$1\\\\2/g" /etc/hosts
exit 0"""
# udev may be renaming it meanwhile: what fails is tried again
_INTERFACE = """mac=$1 name=$2 mtu=$3; shift 3
set_up() {
[ "$1" = "$name" ] || { ip link set dev "$1" down; ip link set dev "$1" name "$name"; } || return 1
ip link set dev "$name" mtu "$mtu" && ip link set dev "$name" up || return 1
}
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do for place in /sys/class/net/*; do
[ "$(cat "$place/address")" = "$mac" ] || continue
set_up "${place##*/}" || continue
for word; do case $word in
via*:*) ip -6 route replace default via "${word#via}" dev "$name";;
via*) ip route replace default via "${word#via}" dev "$name";;
*) ip address replace "$word" dev "$name";;
esac || exit 1; done
exit 0
done; sleep 1; done; exit 1"""


def check(plan: Plan) -> None:
    """Refuse a machine whose copy could not learn who it is. Raises `Conflict`, `Unsupported`."""
    if len(_taps(plan)) > len(SOCKETS.names):
        raise Unsupported(
            f"cannot clone machine {plan.name} with its memory: only {len(SOCKETS.names)} of its interfaces can go "
            "while it runs",
            hint="without --memory the clone boots",
        )
    if not agent_of(plan).answers():
        raise Conflict(
            f"cannot clone machine {plan.name} with its memory: no guest agent answers that would tell the copy who "
            "it is",
            hint="install qemu-guest-agent in it; without --memory the clone boots",
        )


def arrive(plan: Plan) -> str:
    """Wait until QEMU has read what was saved; what it does then. Blocking. Raises `QmpUnavailable` when it ended."""
    with Qmp(Path(plan.directory, computer.QMP), _PATIENCE) as qmp:
        return _read(qmp)


def _read(qmp: Qmp) -> str:
    while (word := qmp.status()) == "inmigrate":
        time.sleep(_STEP)
    return word


def introduce(plan: Plan) -> None:
    """Let a copy that stands still go on as who it is. Blocking."""
    with Qmp(Path(plan.directory, computer.QMP), _PATIENCE) as qmp:
        _part(plan, qmp)
    agent = _agent(plan)
    _run(plan, agent, "its name", _NAME, plan.hostname or plan.name)
    for use in _taps(plan):
        with Qmp(Path(plan.directory, computer.QMP), slot.PATIENCE) as qmp:  # others want to speak to it, too
            slot.plug(qmp, use, plan.name)
        _run(plan, agent, f"its address on network {use.network}", _INTERFACE, *_words(use))
    with suppress(AgentRefused):  # the clock is right, and there may be none of hardware to set with it
        agent.ask("guest-set-time", time=now_ns())
    Path(plan.directory, MARK).unlink(missing_ok=True)


def _part(plan: Plan, qmp: Qmp) -> None:
    """Let the guest go on without the original's interfaces."""
    if (word := _read(qmp)) != "paused":
        raise Internal(f"machine {plan.name} does not go on from what was saved: it is {word}")
    names = [name for name in sorted(slot.devices(qmp)) if name.startswith(PREFIX)]
    for name in names:
        qmp.execute("set_link", name=name, up=False)
    qmp.resume()
    for name in names:
        backend = name.removeprefix(PREFIX)
        slot.let_go(qmp, name, f"interface {backend}", plan.name, _UNPLUG)
        slot.patiently(partial(qmp.execute, "netdev_del", id=backend))


def _taps(plan: Plan) -> list[Attachment]:
    return [use for use in plan.attachments if use.kind != "none"]


def _agent(plan: Plan) -> Qga:
    agent, deadline = agent_of(plan, _ANSWER), time.monotonic() + _ANSWER
    while not agent.answers():
        if time.monotonic() > deadline:
            raise AgentAbsent(plan.name)
    return agent


def _words(use: Attachment) -> list[str]:
    """Spell an interface for the script."""
    addresses = [each.address for each in use.addresses]
    gateways = [f"via{each.gateway}" for each in use.addresses if each.gateway]
    return [use.mac.lower(), use.name, str(use.mtu), *addresses, *gateways]


def _run(plan: Plan, agent: Qga, what: str, script: str, *words: str) -> None:
    """Run a script in the guest to its end."""
    begun = agent.ask("guest-exec", path="/bin/sh", arg=["-c", script, "sh", *words])
    deadline = time.monotonic() + _ANSWER
    while not (status := agent.ask("guest-exec-status", pid=int(begun["pid"]))).get("exited"):
        if time.monotonic() > deadline:
            raise TimedOut(f"the guest of machine {plan.name} is not done with {what} after {_ANSWER:.0f} s")
        time.sleep(_STEP)
    if code := status.get("exitcode"):
        raise Conflict(f"the guest of machine {plan.name} could not be told {what}: exit code {code}")
