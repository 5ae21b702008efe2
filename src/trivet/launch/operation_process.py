"""Operations on the process that becomes the program: who it is, what it may, how it is scheduled."""

from __future__ import annotations

from trivet.launch.codec import Operation


class Rlimit(Operation, frozen=True):
    """setrlimit(2), clamped to the hard limit where raising it isn't permitted; -1 is unlimited."""

    code = 45
    repeated = True
    resource: int
    soft: int
    hard: int


class Keyring(Operation, frozen=True):
    """Join a new anonymous session keyring; a kernel without keyrings is fine."""

    code = 46
    repeated = True


class Umask(Operation, frozen=True):
    """umask(2)."""

    code = 47
    mask: int


class OomScore(Operation, frozen=True):
    """Write /proc/self/oom_score_adj; lowering it without permission keeps the old value."""

    code = 48
    value: int


class Console(Operation, frozen=True):
    """Take a new terminal from the root's own /dev/pts as standard streams, shown at root path `path` ("" nowhere).

    For a Spawn with a terminal, after devpts was mounted; without it the terminal is the host's, and the
    program can't find its name.
    """

    code = 49
    path: str = "/dev/console"


class User(Operation, frozen=True):
    """Look up Docker's "name|uid[:group|gid]" in the root's /etc/passwd and /etc/group and remember it.

    Bounded and regular files only. Unknown names fail with ENOENT, numbers out of range with EINVAL.
    Also finds HOME for `Exec`, and the supplementary groups (plus `groups`, names or numbers).
    """

    code = 50
    repeated = True
    spec: str
    groups: tuple[str, ...] = ()


class Identity(Operation, frozen=True):
    """Remember numeric ids (runtime-spec) instead of a look-up."""

    code = 51
    repeated = True
    uid: int
    gid: int
    groups: tuple[str, ...] = ()


class Become(Operation, frozen=True):
    """setgroups, setgid, setuid to what `User` or `Identity` remembered, keeping capabilities for `Capabilities`."""

    code = 52
    repeated = True


class WorkingDirectory(Operation, frozen=True):
    """chdir(2) to a root path, made with `make` 1 (owned by the remembered user), verified to be inside the root."""

    code = 53
    repeated = True
    path: str
    make: int = 0


class Capabilities(Operation, frozen=True):
    """Set the five capability sets as bit masks; bits the process lacks are dropped.

    For a user other than 0 the kernel's rules apply: permitted and effective as given, unless ambient raises them.
    """

    code = 54
    repeated = True
    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int = 0


class NoNewPrivileges(Operation, frozen=True):
    """prctl(PR_SET_NO_NEW_PRIVS)."""

    code = 55
    repeated = True


class Seccomp(Operation, frozen=True):
    """Install a BPF program (array of struct sock_filter) with SECCOMP_FILTER_FLAG_* `flags`.

    With SECCOMP_FILTER_FLAG_NEW_LISTENER the listener is handed over (see `Descriptors`).
    """

    code = 56
    repeated = True
    program: bytes
    flags: int = 0


class Personality(Operation, frozen=True):
    """personality(2)."""

    code = 66
    persona: int


class Scheduler(Operation, frozen=True):
    """sched_setattr(2); times in nanoseconds."""

    code = 67
    policy: int
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class IoPriority(Operation, frozen=True):
    """ioprio_set(2) for the process: class << 13 | level."""

    code = 68
    priority: int


class Affinity(Operation, frozen=True):
    """sched_setaffinity(2): bit N of `mask` is processor N."""

    code = 69
    mask: bytes


class MemoryPolicy(Operation, frozen=True):
    """set_mempolicy(2): bit N of `nodes` is node N."""

    code = 70
    mode: int
    nodes: bytes = b""
