"""The plan that adds a program to a running container: join, then the same last stretch as a launch."""

from __future__ import annotations

from collections.abc import Iterable

from trivet.launch.operation import Become, Console, Identity, Join, Operation, Root, Spawn, Sync, WriteFile
from trivet.oci.runtime import Box, ExecAffinity, Linux, Process
from trivet.runtime import identity, namespace, plan, schedule
from trivet.runtime.setting import Setting

JOINED = "joined"
"""The point at which a conducted exec stands in the container's namespaces."""


def operations(
    process: Process,
    linux: Linux,
    setting: Setting,
    pid: int,
    kinds: Iterable[str],
    *,
    own_terminals: bool = True,
) -> list[Operation]:
    """Compute the plan. `pid` is the container's program, `kinds` the namespaces it doesn't share with the host.

    With `own_terminals` a terminal is taken from the container's /dev/pts, else from the host's.

    The monitor joins nothing but the namespaces its child is to be born in; the child joins the rest, and the
    control groups and limits before it, while it may. The caller makes sure, before it says GO or answers
    `JOINED`, that `pid` still is the container's program.
    """
    plan.refuse_unsupported(process, Linux(), setting)
    kinds = frozenset(kinds)
    # An ordinary user has the right to join others only in the user namespace.
    born_in = kinds & ({"pid", "time", "user"} if setting.ordinary else {"pid", "time"})
    affinity = process.exec_cpu_affinity or ExecAffinity()
    hosts = [Root("/"), Console("")] if process.terminal and setting.conducted and not own_terminals else []
    return [
        *plan.before(setting),
        *schedule.affinity(affinity.initial, "process.execCPUAffinity.initial"),
        *_join(pid, born_in),
        _spawn(process, setting),
        *(WriteFile(write.path, write.value.encode()) for write in setting.joins),
        *identity.limits(process),
        *schedule.operations(process, linux),
        *hosts,
        *_join(pid, kinds - born_in),
        *([Sync(JOINED)] if setting.conducted else []),
        *((Identity(0, 0), Become()) if "user" in kinds else ()),
        Root("/"),
        *([Console("")] if process.terminal and own_terminals else []),
        *plan.program(process, linux, setting, late=schedule.affinity(affinity.final, "process.execCPUAffinity.final")),
    ]


def _spawn(process: Process, setting: Setting) -> Operation:
    size = process.console_size or Box()
    return Spawn(
        terminal=int(process.terminal),
        rows=size.height,
        columns=size.width,
        stdin=int(setting.stdin),
        cgroup=setting.unified,
        owner=setting.owner,
    )


def _join(pid: int, kinds: Iterable[str]) -> list[Operation]:
    flags = sum(namespace.FLAGS[kind] for kind in kinds)
    return [Join(pid, flags)] if flags else []
