"""The plan that adds a program to a running container: join, then the same last stretch as a launch."""

from __future__ import annotations

from collections.abc import Iterable

from trivet.launch.operation import Console, Join, JoinPath, Operation, Root, Spawn, WriteFile
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

    The mount namespace comes last, and by its path in the host's /proc: the child is then in the
    container's pid namespace, where `pid` means somebody else. The caller makes sure, before it says
    GO, that `pid` still is the container's program.
    """
    kinds = frozenset(kinds)
    flags = sum(namespace.FLAGS[kind] for kind in kinds - {"mount"})
    size = process.console_size or Box()
    return [
        *([setting.monitor] if setting.monitor else []),
        *([Join(pid, flags)] if flags else []),
        Spawn(
            terminal=int(process.terminal),
            rows=size.height,
            columns=size.width,
            stdin=int(setting.stdin),
            cgroup=setting.unified,
        ),
        *(WriteFile(write.path, write.value.encode()) for write in setting.joins),
        *([JoinPath(f"/proc/{pid}/ns/mnt", namespace.FLAGS["mount"])] if "mount" in kinds else []),
        Root("/"),
        *([Console("")] if process.terminal and own_terminals else []),
        *plan.program(process, linux, setting),
    ]
