"""An older kernel: run a program for whom some system calls aren't there.

`python -m tests.older fsopen,mount_setattr -- PROGRAM ARGUMENT…`; `netlink:12` stands for a netlink family
(socket(2) answers EPROTONOSUPPORT, as it does where the kernel was built without it). The filter is
inherited by everything the program starts, and is the answer a kernel without the call gives.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from trivet.oci.runtime import Seccomp, SyscallArgument, SyscallRule
from trivet.runtime import seccomp

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_AF_NETLINK = 16


class _Program(ctypes.Structure):
    """struct sock_fprog (linux/filter.h)."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _rule(word: str) -> SyscallRule:
    name, _, family = word.partition(":")
    if name != "netlink":
        return SyscallRule(names=(name,), action="SCMP_ACT_ERRNO", errno_ret=errno.ENOSYS)
    arguments = (
        SyscallArgument(index=0, value=_AF_NETLINK, op="SCMP_CMP_EQ"),
        SyscallArgument(index=2, value=int(family), op="SCMP_CMP_EQ"),
    )
    return SyscallRule(names=("socket",), action="SCMP_ACT_ERRNO", errno_ret=errno.EPROTONOSUPPORT, args=arguments)


def main(words: str, *command: str) -> None:
    """Load the filter and become the program."""
    code = seccomp.program(
        Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=tuple(_rule(word) for word in words.split(",")))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot load the filter")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[3:])
