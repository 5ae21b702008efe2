"""BPF as seccomp(2) runs it: instructions, conditions on 64-bit arguments, an interpreter to check programs with."""

from __future__ import annotations

import struct
from collections.abc import Callable

from trivet.oci.runtime import SyscallArgument

LOAD, JUMP, EQUAL, GREATER, AT_LEAST, AND, RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06  # linux/bpf_common.h
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

Code = list[tuple[int, int, int, int]]
"""Instructions: operation, jump if true, jump if false, operand."""


def pack(code: Code) -> bytes:
    """Spell instructions as an array of struct sock_filter."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def branch(operation: int, value: int, body: Code) -> Code:
    """Run `body` (which returns) when the comparison holds, else go on behind it."""
    if len(body) < 256:
        return [(operation, 0, len(body), value), *body]
    return [(operation, 1, 0, value), (JUMP, 0, 0, len(body)), *body]


def load(offset: int) -> tuple[int, int, int, int]:
    return (LOAD, 0, 0, offset)


def give(value: int) -> tuple[int, int, int, int]:
    return (RETURN, 0, 0, value)


def when_all(conditions: tuple[SyscallArgument, ...], body: Code) -> Code:
    """Run `body` when every condition holds, else fall through behind it."""
    for condition in reversed(conditions):
        body = _COMPARISON[condition.op](condition, body)
    return body


class Backwards:
    """A program that is written from its end, so that where a jump leads is known when it is written.

    A place is the number of instructions from there to the end. Places that give the same answer are one.
    """

    NEAR = 255  # as far as a comparison jumps

    def __init__(self) -> None:
        self._code: Code = []
        self._answers: dict[int, int] = {}

    def put(self, instruction: tuple[int, int, int, int]) -> int:
        """Write one instruction; its place."""
        self._code.append(instruction)
        return len(self._code)

    def block(self, code: Code) -> int:
        """Write instructions that run one after the other; the first one's place."""
        self._code += reversed(code)
        return len(self._code)

    def answer(self, value: int) -> int:
        """Find a place near enough that gives this answer, or make one."""
        place = self._answers.get(value, 0)
        if not place or self._far(place):
            place = self._answers[value] = self.put(give(value))
        return place

    def choose(self, operation: int, value: int, yes: int, no: int) -> int:
        """Go on at one place or the other."""
        yes, no = self._near(yes, no)
        return self.put((operation, len(self._code) - yes, len(self._code) - no, value))

    def forwards(self) -> Code:
        """Give the program in the order in which it runs."""
        return self._code[::-1]

    def _far(self, place: int) -> bool:
        return len(self._code) - place > self.NEAR - 2  # two jumps may come between

    def _near(self, *places: int) -> list[int]:
        """Lengthen what is too far for a comparison."""
        return [self.put((JUMP, 0, 0, len(self._code) - place)) if self._far(place) else place for place in places]


def verdict(code: bytes, audit: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Run a program as the kernel would and give its answer: the oracle of tests and of `--dry-run`."""
    words = [number, audit, 0, 0]
    for value in (*arguments, 0, 0, 0, 0, 0, 0)[:6]:
        words += [value & 0xFFFFFFFF, value >> 32]
    place, accumulator = 0, 0
    while True:
        operation, yes, no, operand = struct.unpack_from("<HBBI", code, place * 8)
        place += 1
        match operation:
            case _ if operation == LOAD:
                accumulator = words[operand // 4]
            case _ if operation == JUMP:
                place += operand
            case _ if operation == AND:
                accumulator &= operand
            case _ if operation == RETURN:
                return int(operand)
            case _:
                holds = {
                    EQUAL: accumulator == operand,
                    GREATER: accumulator > operand,
                    AT_LEAST: accumulator >= operand,
                }
                place += yes if holds[operation] else no


def _words(condition: SyscallArgument, value: int) -> tuple[int, int, int, int]:
    low = ARGUMENTS + 8 * condition.index
    return low + 4, value >> 32, low, value & 0xFFFFFFFF


def _equal(c: SyscallArgument, body: Code) -> Code:
    high, high_value, low, low_value = _words(c, c.value)
    skip = len(body)
    return [load(high), (EQUAL, 0, skip + 2, high_value), load(low), (EQUAL, 0, skip, low_value), *body]


def _unequal(c: SyscallArgument, body: Code) -> Code:
    high, high_value, low, low_value = _words(c, c.value)
    return [load(high), (EQUAL, 0, 2, high_value), load(low), (EQUAL, len(body), 0, low_value), *body]


def _masked(c: SyscallArgument, body: Code) -> Code:
    """`value` is the mask and `value_two` what must be left."""
    high, high_value, low, low_value = _words(c, c.value_two)
    skip = len(body)
    return [
        *(load(high), (AND, 0, 0, c.value >> 32), (EQUAL, 0, skip + 3, high_value)),
        *(load(low), (AND, 0, 0, c.value & 0xFFFFFFFF), (EQUAL, 0, skip, low_value)),
        *body,
    ]


def _above(operation: int, c: SyscallArgument, body: Code) -> Code:
    high, high_value, low, low_value = _words(c, c.value)
    skip = len(body)
    return [
        *(load(high), (GREATER, 3, 0, high_value), (EQUAL, 0, skip + 2, high_value)),
        *(load(low), (operation, 0, skip, low_value)),
        *body,
    ]


def _below(operation: int, c: SyscallArgument, body: Code) -> Code:
    """Less than is not (at least), at most is not (greater): the jumps change places."""
    high, high_value, low, low_value = _words(c, c.value)
    skip = len(body)
    return [
        *(load(high), (GREATER, skip + 3, 0, high_value), (EQUAL, 0, 2, high_value)),
        *(load(low), (operation, skip, 0, low_value)),
        *body,
    ]


_COMPARISON: dict[str, Callable[[SyscallArgument, Code], Code]] = {
    "SCMP_CMP_EQ": _equal,
    "SCMP_CMP_NE": _unequal,
    "SCMP_CMP_MASKED_EQ": _masked,
    "SCMP_CMP_GT": lambda c, body: _above(GREATER, c, body),
    "SCMP_CMP_GE": lambda c, body: _above(AT_LEAST, c, body),
    "SCMP_CMP_LT": lambda c, body: _below(AT_LEAST, c, body),
    "SCMP_CMP_LE": lambda c, body: _below(GREATER, c, body),
}
OPERATORS = tuple(_COMPARISON)
