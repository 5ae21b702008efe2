"""The device rules of a version 2 control group, as the BPF program the kernel asks (linux/bpf.h, bpf_cgroup_dev_ctx).

Version 1's rules are a list in which the last one that matches counts, and so they are tried from the last to
the first. What is asked for at once (reading and writing) must be allowed by one rule.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from trivet.launch.operation import DeviceFilter, Operation
from trivet.oci.runtime import DeviceRule
from trivet.runtime.setting import Setting

_INSTRUCTION = struct.Struct("<BBhi")  # struct bpf_insn: code, registers, offset, immediate
_LOAD, _MOVE, _MOVE_NUMBER, _AND, _SHIFT, _NOT_EQUAL, _EQUAL, _EXIT = 0x61, 0xBF, 0xB7, 0x57, 0x77, 0x55, 0x15, 0x95
_RESULT, _CONTEXT, _TYPE, _ACCESS, _MAJOR, _MINOR, _SPARE = 0, 1, 2, 3, 4, 5, 6
_TYPES = {"b": 1, "c": 2}
_ACCESSES = {"m": 1, "r": 2, "w": 4}
_EVERY = 7

Code = list[bytes]


def operations(rules: tuple[DeviceRule, ...], setting: Setting) -> list[Operation]:
    """Compute what keeps a container from devices where no version 1 controller does; nothing without rules.

    In a machine of its own a program may use what the machine has: its root is on one of them.
    """
    old = any("devices" in hierarchy.controllers for hierarchy in setting.hierarchies)
    if old or setting.own_kernel or not rules or not setting.unified:
        return []
    return [DeviceFilter(setting.unified, program(rules))]


def program(rules: Iterable[DeviceRule]) -> bytes:
    """Compile; what no rule matches is allowed, as in a new group of version 1."""
    code: Code = [
        _one(_LOAD, _TYPE, _CONTEXT),
        _one(_MOVE, _ACCESS, _TYPE),
        _one(_AND, _TYPE, number=0xFFFF),
        _one(_SHIFT, _ACCESS, number=16),
        _one(_LOAD, _MAJOR, _CONTEXT, offset=4),
        _one(_LOAD, _MINOR, _CONTEXT, offset=8),
    ]
    for rule in reversed(list(rules)):
        steps = _rule(rule)
        code += steps
        if steps == _answer(rule.allow):  # it matches everything: what came before can't be reached
            return b"".join(code)
    return b"".join([*code, *_answer(True)])


def _rule(rule: DeviceRule) -> Code:
    body: Code = [*_accesses(rule), *_answer(rule.allow)]
    for register, wanted in ((_MINOR, rule.minor), (_MAJOR, rule.major), (_TYPE, _TYPES.get(rule.type))):
        if wanted is not None and wanted >= 0:
            body = [_one(_NOT_EQUAL, register, offset=len(body), number=wanted), *body]
    return body


def _accesses(rule: DeviceRule) -> Code:
    """Skip the answer unless an allowing rule covers all that is asked for, or a denying one any of it."""
    mask = sum(_ACCESSES[letter] for letter in set(rule.access or "rwm"))
    if mask == _EVERY:
        return []
    skip = len(_answer(True))
    tested = _EVERY & ~mask if rule.allow else mask
    return [
        _one(_MOVE, _SPARE, _ACCESS),
        _one(_AND, _SPARE, number=tested),
        _one(_NOT_EQUAL if rule.allow else _EQUAL, _SPARE, offset=skip, number=0),
    ]


def _answer(allow: bool) -> Code:
    return [_one(_MOVE_NUMBER, _RESULT, number=int(allow)), _one(_EXIT, 0)]


def _one(code: int, target: int, source: int = 0, *, offset: int = 0, number: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | target, offset, number)
