"""The plan that adds a program to a running container: join, then the same last stretch as a launch."""

from __future__ import annotations

from collections.abc import Iterable

from trivet.launch.operation import Console, Join, Operation, Root, Spawn, WriteFile
from trivet.oci.runtime import Box, Linux, Process
from trivet.runtime import namespace, plan
from trivet.runtime.setting import Setting


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

    The monitor joins nothing but the pid namespace its child is to be born in; the child joins the rest, and
    the control groups before it. The caller makes sure, before it says GO, that `pid` still is the container's
    program.
    """
    kinds = frozenset(kinds)
    own_pids = kinds & {"pid"}
    rest = sum(namespace.FLAGS[kind] for kind in kinds - own_pids)
    size = process.console_size or Box()
    return [
        *([setting.monitor] if setting.monitor else []),
        *([Join(pid, namespace.FLAGS["pid"])] if own_pids else []),
        Spawn(
            terminal=int(process.terminal),
            rows=size.height,
            columns=size.width,
            stdin=int(setting.stdin),
            cgroup=setting.unified,
        ),
        *(WriteFile(write.path, write.value.encode()) for write in setting.joins),
        *([Join(pid, rest)] if rest else []),
        Root("/"),
        *([Console("")] if process.terminal and own_terminals else []),
        *plan.program(process, linux, setting),
    ]
