"""Row 19: what every system call of this machine answers under the default filter, by the kernel's own word."""

from __future__ import annotations

import platform

from tests.gym.attack import Attack, Proof, Weakening
from tests.gym.ring import Ring
from tests.unit.test_seccomp import DENIED

from trivet.kernel import capability, syscall
from trivet.runtime import profile

# With arguments that mean nothing, these end or stop the process that asks; uretprobe is past every filter, and a
# signal to whoever isn't in one.
FATAL = set("exit exit_group pause rt_sigreturn rt_sigsuspend vfork fork restart_syscall uretprobe".split())
EPERM, ENOSYS = 1, 38
CONDITIONAL = {"clone", "clone3", "personality", "socket"}  # allowed with some arguments only


def answers(ring: Ring, *weak: str) -> dict[str, str]:
    """Ask for all calls; the answer is an errno, or that the process was ended."""
    numbers = {name: number for name, number in syscall.numbers(platform.machine()).items() if name not in FATAL}
    attack = Attack(
        name="calls",
        row=19,
        reference="kernel",
        tries="every system call",
        argv=("calls", *(str(number) for number in numbers.values())),
        proof=Proof.SAID,
        weak=Weakening(options=weak),
    )
    outcome = (ring.weakened(attack) if weak else ring.real(attack)).outcome
    given = dict(line.split() for line in outcome.output.splitlines() if line[:1].isdigit())
    assert len(given) == len(numbers), outcome
    return {name: given[str(number)] for name, number in numbers.items()}


def test_every_call_answers_as_the_profile_says(ring: Ring) -> None:
    """What the profile doesn't allow is EPERM for certain; what it allows reaches the kernel."""
    opened = (text for name, text in profile.WITH_CAPABILITY.items() if name in capability.DEFAULT)
    allowed = {name for text in (*profile.ALLOWED.values(), *opened) for name in text.split()}
    real = answers(ring)
    open_ = answers(ring, "--privileged")
    assert len(real) > 340
    denied = {name for name in real if name not in allowed and name not in CONDITIONAL}
    dangerous = {name for name in DENIED.split() if name in real}
    assert dangerous <= denied
    let_through = {name: real[name] for name in denied if real[name] not in (str(EPERM), str(ENOSYS))}
    assert let_through == {}
    # Without the filter the same probe reaches the kernel, which has other answers: it is the filter that speaks above.
    assert sum(open_[name] != str(EPERM) for name in dangerous) > len(dangerous) / 2
    assert {name: real[name] for name in ("clone", "clone3")} == {"clone": str(EPERM), "clone3": str(ENOSYS)}
    held_up = {name for name in allowed & set(real) if real[name] == str(EPERM) and open_[name] != str(EPERM)}
    assert held_up == set()
