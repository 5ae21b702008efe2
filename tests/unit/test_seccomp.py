"""The filter generator: judged by an interpreter of the program, and by the kernel's own structure."""

from __future__ import annotations

from itertools import product
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.base.error import InvalidArgument
from trivet.kernel import capability, syscall
from trivet.oci.runtime import Seccomp, SyscallArgument, SyscallRule
from trivet.runtime import bpf, profile, seccomp

X86_64, X86, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
OPERATORS = get_args(get_type_hints(SyscallArgument)["op"])


def default_answer(name: str, *arguments: int, capabilities: tuple[str, ...] = capability.DEFAULT) -> int:
    program = seccomp.program(profile.default(capabilities), "x86_64")
    return bpf.verdict(program, X86_64, syscall.numbers("x86_64")[name], arguments)


# SECURITY.md row 19, and what each opened in the past.
DENIED = """
add_key request_key keyctl bpf userfaultfd io_uring_setup io_uring_enter io_uring_register perf_event_open
open_by_handle_at mount umount2 fsopen fsconfig fsmount fspick move_mount open_tree mount_setattr pivot_root kexec_load
kexec_file_load init_module finit_module delete_module reboot swapon swapoff setns unshare acct quotactl ioperm iopl
settimeofday clock_settime syslog sethostname setdomainname lookup_dcookie nfsservctl uselib ustat sysfs _sysctl
create_module get_kernel_syms query_module move_pages migrate_pages kcmp pidfd_getfd process_madvise vhangup
set_mempolicy mbind get_mempolicy fanotify_init
"""


@pytest.mark.parametrize("name", DENIED.split())
def test_default_profile_denies_what_opened_the_kernel(name: str) -> None:
    """The default profile answers EPERM to every call that has broken out of containers before."""
    assert default_answer(name) == EPERM


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("clone", (0x01200011,), ALLOW),  # what fork() does
        ("clone", (0x003D0F00,), ALLOW),  # what pthread_create() does
        ("clone", (0x10000000,), EPERM),  # CLONE_NEWUSER
        ("clone", (0x00020000 | 0x11,), EPERM),  # CLONE_NEWNS
        ("clone3", (), ENOSYS),  # its flags lie in memory, where a filter can't look
        ("socket", (2,), ALLOW),
        ("socket", (16,), ALLOW),
        ("socket", (38,), EPERM),  # AF_ALG
        ("socket", (40,), EPERM),  # AF_VSOCK
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x20008,), ALLOW),
        ("personality", (0x0040000,), EPERM),  # ADDR_NO_RANDOMIZE
    ],
)
def test_default_profile_looks_at_arguments(name: str, arguments: tuple[int, ...], answer: int) -> None:
    """Calls that are dangerous only with some arguments are allowed with the others."""
    assert default_answer(name, *arguments) == answer


def test_capability_opens_its_calls() -> None:
    """A capability that the program has brings the calls it is useless without, and no others."""
    with_admin = (*capability.DEFAULT, "CAP_SYS_ADMIN")
    assert default_answer("mount", capabilities=with_admin) == ALLOW
    assert default_answer("clone3", capabilities=with_admin) == ALLOW
    assert default_answer("bpf", capabilities=(*capability.DEFAULT, "CAP_BPF")) == ALLOW
    assert default_answer("init_module", capabilities=with_admin) == EPERM


def test_unknown_numbers_and_machines() -> None:
    """x32 numbers are refused, calls newer than the table don't exist, and a foreign machine's call kills."""
    program = seccomp.program(profile.default(()), "x86_64")
    read = syscall.numbers("x86_64")["read"]
    assert bpf.verdict(program, X86_64, read | seccomp.X32_BIT) == EPERM
    assert bpf.verdict(program, X86_64, 700) == ENOSYS
    assert bpf.verdict(program, X86, syscall.numbers("x86")["_llseek"]) == ALLOW
    assert bpf.verdict(program, AARCH64, read) == KILL


def test_default_profile_names_exist() -> None:
    """Every name in the default profile is a system call somewhere, so that a slip of the pen can't go unseen."""
    rules = profile.default(capability.ALL).syscalls
    assert [name for rule in rules for name in rule.names if name not in syscall.known()] == []


def test_every_call_gets_the_profiles_verdict() -> None:
    """For each number of both machines the program answers exactly what the profile says."""
    rules = profile.default(capability.DEFAULT)
    program = seccomp.program(rules, "x86_64")
    plain = {
        name for rule in rules.syscalls if not rule.args and rule.action == "SCMP_ACT_ALLOW" for name in rule.names
    }
    conditional = {name for rule in rules.syscalls if rule.args for name in rule.names} | {"clone3"}
    for audit, table in ((X86_64, "x86_64"), (X86, "x86")):
        for name, number in syscall.numbers(table).items():
            if name not in conditional:
                assert bpf.verdict(program, audit, number) == (ALLOW if name in plain else EPERM), name


def test_program_is_small() -> None:
    """The default program has few instructions, since every container and every exec waits for it to be translated."""
    assert len(seccomp.program(profile.default(capability.DEFAULT), "x86_64")) // 8 < 250


VALUES = st.one_of(st.integers(0, 3), st.sampled_from([0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 64) - 1]))


@given(operator=st.sampled_from(OPERATORS), value=VALUES, two=VALUES, argument=VALUES)
def test_comparison_is_64_bit(operator: str, value: int, two: int, argument: int) -> None:
    """Each comparison, made of 32-bit steps, agrees with the 64-bit one."""
    holds = {
        "SCMP_CMP_NE": argument != value,
        "SCMP_CMP_LT": argument < value,
        "SCMP_CMP_LE": argument <= value,
        "SCMP_CMP_EQ": argument == value,
        "SCMP_CMP_GE": argument >= value,
        "SCMP_CMP_GT": argument > value,
        "SCMP_CMP_MASKED_EQ": argument & value == two,
    }[operator]
    condition = SyscallArgument(index=2, value=value, value_two=two, op=operator)  # type: ignore[arg-type]
    program = seccomp.program(
        Seccomp(
            default_action="SCMP_ACT_KILL_PROCESS",
            syscalls=(SyscallRule(names=("read",), action="SCMP_ACT_ALLOW", args=(condition,)),),
        ),
        "x86_64",
    )
    assert bpf.verdict(program, X86_64, 0, (7, 7, argument)) == (ALLOW if holds else KILL)


def test_conditions_are_all_and_rules_are_any() -> None:
    """Conditions of one rule must all hold; of several rules the first that holds decides."""

    def rule(*pairs: tuple[int, int], action: str = "SCMP_ACT_ALLOW") -> SyscallRule:
        arguments = tuple(SyscallArgument(index=i, value=v, op="SCMP_CMP_EQ") for i, v in pairs)
        return SyscallRule(names=("socket",), action=action, args=arguments)

    rules = (rule((0, 1), (1, 2)), rule((0, 3), action="SCMP_ACT_LOG"), rule((0, 3)))
    program = seccomp.program(Seccomp(default_action="SCMP_ACT_ERRNO", syscalls=rules), "x86_64")
    number = syscall.numbers("x86_64")["socket"]
    answers = {pair: bpf.verdict(program, X86_64, number, pair) for pair in product((1, 3, 4), (2, 5))}
    assert answers == {
        (1, 2): ALLOW,
        (1, 5): EPERM,
        (3, 2): 0x7FFC0000,
        (3, 5): 0x7FFC0000,
        (4, 2): EPERM,
        (4, 5): EPERM,
    }


ACTIONS = {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": EPERM, "SCMP_ACT_LOG": 0x7FFC0000, "SCMP_ACT_TRAP": 0x00030000}
NAMES = sorted(syscall.numbers("x86_64").keys() | syscall.numbers("x86").keys())
CHECK = SyscallArgument(index=0, value=5, op="SCMP_CMP_EQ")


@settings(max_examples=20)
@given(
    st.sampled_from(sorted(ACTIONS)),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(ACTIONS)), max_size=len(NAMES)),
    st.sets(st.sampled_from(NAMES)),
)
def test_any_profile_is_answered_call_by_call(default: str, plain: dict[str, str], checked: set[str]) -> None:
    """Whatever is allowed, refused or looked at: every number gets the answer of its own name, or the default one."""
    rules = [SyscallRule(names=(name,), action=action) for name, action in plain.items()]
    rules += [SyscallRule(names=(name,), action="SCMP_ACT_KILL_PROCESS", args=(CHECK,)) for name in checked]
    architectures = ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
    profiled = Seccomp(default_action=default, architectures=architectures, syscalls=tuple(rules))
    program = seccomp.program(profiled, "x86_64")
    for audit, table, offset in ((X86_64, "x86_64", 0), (X86, "x86", 0), (X86_64, "x32", seccomp.X32_BIT)):
        for name, number in syscall.numbers(table).items():
            expected = ACTIONS[plain.get(name, default)]
            assert bpf.verdict(program, audit, number + offset) == expected, name
            killed = KILL if name in checked - plain.keys() else expected
            assert bpf.verdict(program, audit, number + offset, (5,)) == killed, name


def test_an_answer_too_far_for_a_comparison_is_reached() -> None:
    """With so many conditions that comparisons can't jump over them, every call is still answered by its own."""
    far = tuple(
        SyscallRule(
            names=(name,),
            action="SCMP_ACT_TRAP",
            args=tuple(SyscallArgument(index=i, value=number, op="SCMP_CMP_EQ") for i in range(6)),
        )
        for name, number in syscall.numbers("x86_64").items()
    )
    program = seccomp.program(Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=far[:250]), "x86_64")
    for rule in far:
        number = syscall.numbers("x86_64")[rule.names[0]]
        expected = 0x00030000 if rule in far[:250] else ALLOW
        assert bpf.verdict(program, X86_64, number, (number,) * 6) == expected
        assert bpf.verdict(program, X86_64, number, (number,) * 5 + (number + 1,)) == ALLOW


NOTIFYING = SyscallRule(names=("mkdir", "sendmsg"), action="SCMP_ACT_NOTIFY")


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (Seccomp(default_action="SCMP_ACT_NO"), InvalidArgument, "SCMP_ACT_NO"),
        (Seccomp(default_action="SCMP_ACT_NOTIFY", listener_path="/x"), InvalidArgument, "defaultAction"),
        (Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(NOTIFYING,)), InvalidArgument, "listenerPath"),
        (
            Seccomp(default_action="SCMP_ACT_ALLOW", listener_path="/x", syscalls=(NOTIFYING,)),
            InvalidArgument,
            "sendmsg",
        ),
    ],
)
def test_bad_profile_is_refused(bad: Seccomp, error: type[Exception], words: str) -> None:
    """A profile with a word that can't be compiled is refused by that word."""
    with pytest.raises(error, match=words):
        seccomp.program(bad, "x86_64")
