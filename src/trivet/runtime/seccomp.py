"""From a system call profile to the BPF program that the kernel runs for every call.

Since Linux 5.11 the kernel emulates a filter for every number when it is loaded, so depth is what
costs. Neighbouring numbers with the same verdict become one range, the ranges leaves of a balanced
tree: the default profile is some 470 instructions, each call passing nine of them.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple

from trivet.base.error import InvalidArgument, Unsupported
from trivet.kernel import syscall
from trivet.oci.runtime import Seccomp, SyscallArgument, SyscallRule
from trivet.runtime.bpf import (
    ARCHITECTURE,
    AT_LEAST,
    EQUAL,
    NUMBER,
    OPERATORS,
    Backwards,
    Code,
    branch,
    give,
    load,
    pack,
    when_all,
)

X32_BIT = 0x40000000
KILL_PROCESS = 0x80000000
EPERM, ENOSYS = 1, 38

ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
NEW_LISTENER = 8
# The specification's name, the kernel's audit number, our table.
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": (0xC000003E, "x86_64"),
    "SCMP_ARCH_X86": (0x40000003, "x86"),
    "SCMP_ARCH_X32": (0xC000003E, "x32"),
    "SCMP_ARCH_AARCH64": (0xC00000B7, "aarch64"),
}
# What a machine can run, its own first.
COMPATIBLE = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "i686": ("SCMP_ARCH_X86",),
    "aarch64": ("SCMP_ARCH_AARCH64",),
}


class Conditional(NamedTuple):
    """What a call's arguments decide: the first rule whose conditions all hold, else `otherwise`."""

    rules: tuple[tuple[tuple[SyscallArgument, ...], int], ...]
    otherwise: int


Verdict = int | Conditional


class UnknownAction(InvalidArgument):
    """A word of a profile that we don't know."""

    def __init__(self, what: str, word: str) -> None:
        super().__init__(f"seccomp {what} {word} is unknown")


@lru_cache(maxsize=64)
def program(profile: Seccomp, machine: str = os.uname().machine) -> bytes:
    """Compile a profile. Raises `InvalidArgument` or `Unsupported` naming the word that can't be compiled."""
    if notifies(profile):
        _check_notifying(profile)
    tables = _tables(profile, machine)
    code: Code = [load(ARCHITECTURE)]
    for audit in sorted({audit for audit, _ in tables}, reverse=True):
        body = _architecture(profile, [table for number, table in tables if number == audit])
        code += branch(EQUAL, audit, body)
    code.append(give(KILL_PROCESS))
    return pack(code)


def flags(profile: Seccomp) -> int:
    """Fold the profile's flags into the system call's. Raises `InvalidArgument` for an unknown one."""
    value = NEW_LISTENER if notifies(profile) else 0
    for flag in profile.flags:
        if flag not in FLAGS:
            raise UnknownAction("flag", flag)
        value |= FLAGS[flag]
    # One thread installs the filter; together with a listener the kernel takes no TSYNC.
    return value & ~FLAGS["SECCOMP_FILTER_FLAG_TSYNC"] if value & NEW_LISTENER else value


def notifies(profile: Seccomp) -> bool:
    """Tell whether calls are to be answered by somebody who listens."""
    actions = (profile.default_action, *(rule.action for rule in profile.syscalls))
    return "SCMP_ACT_NOTIFY" in actions


def _check_notifying(profile: Seccomp) -> None:
    """The launcher hands the listener over with the filter in force: it can't wait for the answer to its own call."""
    if profile.default_action == "SCMP_ACT_NOTIFY":
        raise InvalidArgument("not every call can be notified - at `$.linux.seccomp.defaultAction`")
    if not profile.listener_path:
        raise InvalidArgument("SCMP_ACT_NOTIFY needs a listenerPath - at `$.linux.seccomp.listenerPath`")
    for place, rule in enumerate(profile.syscalls):
        if rule.action == "SCMP_ACT_NOTIFY" and "sendmsg" in rule.names:
            raise InvalidArgument(
                f"sendmsg can't be notified: it hands the listener over - at `$.linux.seccomp.syscalls[{place}]`"
            )


def _tables(profile: Seccomp, machine: str) -> list[tuple[int, str]]:
    if machine not in COMPATIBLE:
        raise Unsupported(f"seccomp is not supported on {machine}")
    native, *others = COMPATIBLE[machine]
    wanted = (native, *(name for name in others if name in profile.architectures))
    return [ARCHITECTURES[name] for name in wanted]


def _architecture(profile: Seccomp, tables: list[str]) -> Code:
    code = Backwards()
    own = _stretches(_ranges(profile, next(table for table in tables if table != "x32")))
    if "x86_64" not in tables:
        _tree(code, own)
    else:
        # The same audit number serves x32; what isn't asked for is refused before the tree, which doesn't know it.
        x32 = _stretches(_ranges(profile, "x32")) if "x32" in tables else [_Stretch(0, _default(profile), [])]
        above = _tree(code, x32)
        code.choose(AT_LEAST, X32_BIT, above, _tree(code, own))
    return [load(NUMBER), *code.forwards()]


def _ranges(profile: Seccomp, table: str) -> list[tuple[int, Verdict]]:
    """List (first number, verdict), each valid up to the next."""
    offset = X32_BIT if table == "x32" else 0
    default = _default(profile)
    numbers = syscall.numbers(table)
    verdicts = {numbers[name] + offset: rule for name, rule in _rules(profile).items() if name in numbers}
    beyond = max(numbers.values()) + 1 + offset
    # A call newer than our table gets ENOSYS, so that a C library falls back instead of giving up.
    verdicts[beyond] = _answer("SCMP_ACT_ERRNO", ENOSYS) if profile.default_action == "SCMP_ACT_ERRNO" else default
    ranges: list[tuple[int, Verdict]] = [(0, default)]
    for number in sorted(verdicts):
        _append(ranges, number, verdicts[number])
        if number != beyond and number + 1 not in verdicts:
            _append(ranges, number + 1, default)
    return ranges


def _append(ranges: list[tuple[int, Verdict]], number: int, value: Verdict) -> None:
    if ranges[-1][0] == number:
        ranges.pop()
    if not ranges or ranges[-1][1] != value:
        ranges.append((number, value))


def _rules(profile: Seccomp) -> dict[str, Verdict]:
    """Fold the profile's rules into one verdict per name; unconditional rules win over conditional ones."""
    plain: dict[str, int] = {}
    conditional: dict[str, list[tuple[tuple[SyscallArgument, ...], int]]] = {}
    for rule in profile.syscalls:
        answer = _answer(rule.action, rule.errno_ret)
        for name in rule.names:
            if rule.args:
                conditional.setdefault(name, []).append((_checked(rule), answer))
            else:
                plain.setdefault(name, answer)
    default = _default(profile)
    folded: dict[str, Verdict] = {name: Conditional(tuple(rules), default) for name, rules in conditional.items()}
    return folded | plain


def _checked(rule: SyscallRule) -> tuple[SyscallArgument, ...]:
    for argument in rule.args:
        if not 0 <= argument.index < 6 or argument.op not in OPERATORS:
            raise UnknownAction("condition on", f"argument {argument.index} ({argument.op})")
        if not (0 <= argument.value < 1 << 64 and 0 <= argument.value_two < 1 << 64):
            raise UnknownAction("value", str(argument.value))
    return rule.args


def _default(profile: Seccomp) -> int:
    return _answer(profile.default_action, profile.default_errno_ret)


def _answer(action: str, errno: int | None) -> int:
    if action not in ACTIONS:
        raise UnknownAction("action", action)
    data = (EPERM if errno is None else errno) if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else 0
    return ACTIONS[action] | data & 0xFFFF


class _Stretch(NamedTuple):
    """Numbers from `first` to the next stretch, all with the same verdict but for some."""

    first: int
    verdict: Verdict
    apart: list[tuple[int, Verdict]]


_APART = 3  # more would make the way to an answer long


def _stretches(ranges: list[tuple[int, Verdict]]) -> list[_Stretch]:
    """Take single numbers among others with what surrounds them: that is one comparison for each instead of two."""
    found: list[_Stretch] = []
    while ranges:
        (first, verdict), *ranges = ranges
        stretch = _Stretch(first, verdict, [])
        while len(stretch.apart) < _APART and _surrounded(verdict, ranges):
            stretch.apart.append(ranges[0])
            ranges = ranges[2:]
        found.append(stretch)
    return found


def _surrounded(verdict: Verdict, ranges: list[tuple[int, Verdict]]) -> bool:
    return len(ranges) > 1 and ranges[1] == (ranges[0][0] + 1, verdict)


def _tree(code: Backwards, stretches: list[_Stretch]) -> int:
    """Write a decision between stretches; its place."""
    if len(stretches) > 1:
        middle = len(stretches) // 2
        above, below = _tree(code, stretches[middle:]), _tree(code, stretches[:middle])
        return code.choose(AT_LEAST, stretches[middle].first, above, below)
    place = _leaf(code, stretches[0].verdict)
    for number, verdict in stretches[0].apart:
        place = code.choose(EQUAL, number, _leaf(code, verdict), place)
    return place


def _leaf(code: Backwards, value: Verdict) -> int:
    if isinstance(value, int):
        return code.answer(value)
    steps: Code = []
    for conditions, answer in value.rules:
        steps += when_all(conditions, [give(answer)])
    return code.block([*steps, give(value.otherwise)])
