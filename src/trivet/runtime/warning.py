"""What a configuration asks for and won't get, said before it is left out (runtime-spec, config.md)."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from trivet.kernel import capability
from trivet.oci.runtime import Linux, Process, Spec
from trivet.runtime import namespace
from trivet.runtime.identity import RLIMITS

_RAISE = "CAP_SYS_RESOURCE"


def foreign(spec: Spec) -> Iterator[str]:
    """Tell what is another platform's."""
    process = spec.process
    asked = {
        **{name: getattr(spec, name) is not None for name in ("freebsd", "solaris", "windows", "zos")},
        "process.commandLine": bool(process and process.command_line),
        "process.user.username": bool(process and process.user.username),
    }
    for path, given in asked.items():
        if given:
            yield f"{path} is another platform's and is left out"


def warnings(process: Process, linux: Linux) -> Iterator[str]:
    """Tell what this process can't grant."""
    held = capability.available()
    yield from _limits(process, held)
    # Whoever makes a user namespace has every capability in it (user_namespaces(7)).
    yield from _capabilities(process, capability.ALL if namespace.has(linux.namespaces, "user") else held)


def _limits(process: Process, held: tuple[str, ...]) -> Iterator[str]:
    for limit in process.rlimits:
        if limit.type not in RLIMITS or _RAISE in held:
            continue
        ours = resource.getrlimit(RLIMITS.index(limit.type))[1]
        if ours != resource.RLIM_INFINITY and limit.hard > ours:
            yield f"{limit.type} stays at {ours}: raising it to {_number(limit.hard)} needs {_RAISE}"


def _capabilities(process: Process, held: tuple[str, ...]) -> Iterator[str]:
    sets = process.capabilities
    if sets is None:
        return
    wanted = (*sets.bounding, *sets.effective, *sets.inheritable, *sets.permitted, *sets.ambient)
    for name in sorted(set(wanted) - set(held)):
        if capability.known(name):
            yield f"capability {name} is left out: this process doesn't have it itself"
        else:
            yield f"capability {name} is left out: the kernel has none of that name"


def _number(value: int) -> str:
    return "unlimited" if value >= 1 << 63 else str(value)
