"""Operations: what the C launcher (and, in a guest, the agent) is asked to do, as data.

A launch plan is a flat list of these. Those before `Spawn` run in the launcher itself, those after
it in the child, in order; the first failure ends the child and is reported with its index and errno.
The wire form is derived from the fields (see `encode`), the C table `operations[]` in
`native/executor.c` must list the same names and signatures: a test compares the two.

Paths: "host path" means resolved as the executor sees it at that moment. "root path" means resolved
with openat2(RESOLVE_IN_ROOT) below the directory last given to `Root`, so that a link in a hostile
image can't lead out of it; this holds before and after the pivot.
"""

from __future__ import annotations

from typing import ClassVar, get_type_hints

import msgspec


class Operation(msgspec.Struct, frozen=True):
    """Base of all operations; `code` is the number on the wire and never reused."""

    code: ClassVar[int] = 0

    def describe(self) -> str:
        """Render as one line for `--dry-run` and golden files; long values are abbreviated."""
        words = []
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value not in ("", b"", 0, ()):
                words.append(f"{name}={_abbreviate(value)}")
        return " ".join([_kebab(type(self).__name__), *words])


class Monitor(Operation, frozen=True):
    """Become the monitor: listen on DIRECTORY/monitor.sock, write `pid` and `exit` there.

    `log` is the CRI log ("" keeps none), rotated at `log_size` bytes with `log_files` old ones kept.
    `linger` 1: stay after the exit until a client asked for it once (exec sessions); 0: end with the program.
    `reap` lists cgroup directories whose processes are killed when the program has ended.
    """

    code = 1
    directory: str
    log: str = ""
    log_size: int = 0
    log_files: int = 0
    linger: int = 0
    reap: tuple[str, ...] = ()


class Relay(Operation, frozen=True):
    """Speak frames on descriptor `fd` of the launcher to a guest agent.

    The child (QEMU) gets the other end as descriptor `child_fd`. On the agent's HELLO the monitor
    sends START with `payload` (an encoded plan); session 0's output, exit and errors are the
    instance's own, and EXEC frames of clients open further sessions.
    """

    code = 2
    child_fd: int
    payload: bytes


class Spawn(Operation, frozen=True):
    """Make the child with clone3(`flags`); what follows runs in it.

    `terminal` 1 gives it a pseudo-terminal of `rows` x `columns`, else three pipes; with `stdin` 0 its
    input is /dev/null. `cgroup` (v2, host path) uses CLONE_INTO_CGROUP. With CLONE_NEWUSER the launcher
    writes `uid_map` and `gid_map` from outside before the child goes on.
    """

    code = 3
    flags: int = 0
    terminal: int = 0
    rows: int = 0
    columns: int = 0
    stdin: int = 0
    cgroup: str = ""
    uid_map: str = ""
    gid_map: str = ""


class Descriptors(Operation, frozen=True):
    """Conduct the launch: the child is the starter's own, and so are its streams and `preserved` further descriptors.

    They are on descriptors 6 to 8 and from 9 on of the launcher; the program has them as 0 to 2 and from 3 on.
    Descriptor 5 is a SOCK_SEQPACKET socket on which the child says `Sync` points, and hands over its `Console`
    ("console") and the listener of its `Seccomp` filter ("listener"); each is answered with one byte. The
    monitor ends when the program has begun, without an exit file. Before `Spawn`; `stdin` there means nothing.
    """

    code = 4
    preserved: int = 0


class WriteFile(Operation, frozen=True):
    """Write `data` to an existing host path with one write(2); `optional` 1 ignores a failure."""

    code = 10
    path: str
    data: bytes
    optional: int = 0


class Unshare(Operation, frozen=True):
    """unshare(2)."""

    code = 11
    flags: int


class Join(Operation, frozen=True):
    """setns(2) into all namespaces in `flags` of process `pid`; pid 0 is session 0's program (guest)."""

    code = 12
    pid: int
    flags: int


class JoinPath(Operation, frozen=True):
    """setns(2) into the namespace file at host path `path`."""

    code = 13
    path: str
    flags: int


class OpenTree(Operation, frozen=True):
    """Copy host path `source` as a tree for a later `Bind`, in the launcher: its rights are more than the child's.

    With maps ("inside outside size" lines) the files show other owners (MOUNT_ATTR_IDMAP), with `deep` 1 also
    below further mounts.
    """

    code = 14
    source: str
    recursive: int = 1
    uid_map: str = ""
    gid_map: str = ""
    deep: int = 0


class DeviceFilter(Operation, frozen=True):
    """Attach a BPF program (array of struct bpf_insn) that decides on devices to version 2 `cgroup` (host path)."""

    code = 15
    cgroup: str
    program: bytes


class Propagation(Operation, frozen=True):
    """Change the propagation of the mount at host path `path` (MS_PRIVATE, MS_REC ...)."""

    code = 20
    path: str
    flags: int


class Root(Operation, frozen=True):
    """Take host directory `path` as the root that root paths are resolved below."""

    code = 21
    path: str


class Mount(Operation, frozen=True):
    """Mount a new file system through fsopen/fsconfig/fsmount/move_mount at a root path.

    `options` are fsconfig strings ("key=value" or flags); `attributes` are MOUNT_ATTR_*;
    `make` creates a missing target: 0 no, 1 directory, 2 file. `host` 1: `target` is a host path.
    `optional` 1 ignores a failure. `copy` 1 copies what the target holds into the new file system first.
    """

    code = 22
    fstype: str
    source: str
    target: str
    attributes: int = 0
    options: tuple[str, ...] = ()
    make: int = 1
    host: int = 0
    optional: int = 0
    copy: int = 0


class Bind(Operation, frozen=True):
    """Show host path `source` at a root path: open_tree(CLONE), mount_setattr, move_mount.

    `attributes` MOUNT_ATTR_* to set and to `clear` (recursively with `recursive` 1, unless `shallow` 1), after
    `deep_set` and `deep_clear`, which always are. `propagation` MS_* (0: leave). `make` as in `Mount`, 3: a file
    or a directory, as the source is. With `tree` N the source is what the Nth `OpenTree` copied.
    """

    code = 23
    source: str
    target: str
    recursive: int = 1
    attributes: int = 0
    propagation: int = 0
    make: int = 3
    host: int = 0
    optional: int = 0
    tree: int = 0
    shallow: int = 0
    clear: int = 0
    deep_set: int = 0
    deep_clear: int = 0


class Directory(Operation, frozen=True):
    """Make a directory, and missing parents, at a root path; an existing one is left alone."""

    code = 24
    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    host: int = 0


class Node(Operation, frozen=True):
    """mknod(2) at a root path; `mode` includes the type. An existing node of the same kind is kept."""

    code = 25
    path: str
    mode: int
    major: int = 0
    minor: int = 0
    uid: int = 0
    gid: int = 0


class Symlink(Operation, frozen=True):
    """Make a symbolic link `path` -> `target`; an existing file there is kept."""

    code = 26
    path: str
    target: str


class File(Operation, frozen=True):
    """Write a whole file at a root path (created or truncated; never through a link out of the root)."""

    code = 27
    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class Mask(Operation, frozen=True):
    """Hide a root path: /dev/null over a file, an empty read-only tmpfs over a directory; missing is fine."""

    code = 28
    path: str


class ReadOnly(Operation, frozen=True):
    """Make a root path read-only by a bind mount of itself; missing is fine."""

    code = 29
    path: str


class RemountRoot(Operation, frozen=True):
    """Set MOUNT_ATTR_* `attributes` on the root mount itself (after everything under it was mounted)."""

    code = 30
    attributes: int


class Pivot(Operation, frozen=True):
    """pivot_root(2) into the root and detach what was before; the root path rule stays in force."""

    code = 31


class Chroot(Operation, frozen=True):
    """chroot(2) into the root (where pivot_root can't work: initramfs)."""

    code = 32


class Unmount(Operation, frozen=True):
    """Detach (MNT_DETACH) what is mounted at a host path."""

    code = 33
    path: str
    optional: int = 0


class Hostname(Operation, frozen=True):
    """sethostname(2) and setdomainname(2); "" leaves a name as it is."""

    code = 40
    name: str
    domain: str = ""


class LinkUp(Operation, frozen=True):
    """Bring up the interface whose name or MAC address is `link`, first renamed to `name` and given `mtu` if set."""

    code = 41
    link: str
    name: str = ""
    mtu: int = 0


class AddAddress(Operation, frozen=True):
    """Give interface `link` an address in CIDR form."""

    code = 42
    link: str
    address: str


class AddRoute(Operation, frozen=True):
    """Add a route to `destination` (CIDR, "" is the default) via `gateway` on `link`."""

    code = 43
    link: str
    destination: str
    gateway: str


class Sysctl(Operation, frozen=True):
    """Write `value` to /proc/sys/`path` through a verified procfs descriptor."""

    code = 44
    path: str
    value: str


class Rlimit(Operation, frozen=True):
    """setrlimit(2), clamped to the hard limit where raising it isn't permitted; -1 is unlimited."""

    code = 45
    resource: int
    soft: int
    hard: int


class Keyring(Operation, frozen=True):
    """Join a new anonymous session keyring; a kernel without keyrings is fine."""

    code = 46


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
    spec: str
    groups: tuple[str, ...] = ()


class Identity(Operation, frozen=True):
    """Remember numeric ids (runtime-spec) instead of a look-up."""

    code = 51
    uid: int
    gid: int
    groups: tuple[str, ...] = ()


class Become(Operation, frozen=True):
    """setgroups, setgid, setuid to what `User` or `Identity` remembered, keeping capabilities for `Capabilities`."""

    code = 52


class WorkingDirectory(Operation, frozen=True):
    """chdir(2) to a root path, made with `make` 1 (owned by the remembered user), verified to be inside the root."""

    code = 53
    path: str
    make: int = 0


class Capabilities(Operation, frozen=True):
    """Set the five capability sets as bit masks; bits the process lacks are dropped.

    For a user other than 0 the kernel's rules apply: permitted and effective as given, unless ambient raises them.
    """

    code = 54
    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int = 0


class NoNewPrivileges(Operation, frozen=True):
    """prctl(PR_SET_NO_NEW_PRIVS)."""

    code = 55


class Seccomp(Operation, frozen=True):
    """Install a BPF program (array of struct sock_filter) with SECCOMP_FILTER_FLAG_* `flags`.

    With SECCOMP_FILTER_FLAG_NEW_LISTENER the listener is handed over (see `Descriptors`).
    """

    code = 56
    program: bytes
    flags: int = 0


class Wait(Operation, frozen=True):
    """Tell the monitor that all is set up and wait until a client sends GO."""

    code = 60


class Background(Operation, frozen=True):
    """fork and exec a helper in the background (virtiofsd), output to the host path `log`; wait until
    the unix socket at host path `ready` exists (at most 5 s)."""

    code = 61
    argv: tuple[str, ...]
    log: str = ""
    ready: str = ""


class Exec(Operation, frozen=True):
    """execve(2). A name without a slash is looked up in PATH of `env`; HOME is added if missing.

    ENOENT and EACCES are told apart from a missing interpreter in the failure's text.
    """

    code = 62
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()


class Builtin(Operation, frozen=True):
    """Run a function of the launcher in place of a program: archive-read PATH, archive-write PATH, stat PATH."""

    code = 63
    name: str
    arguments: tuple[str, ...] = ()


class Find(Operation, frozen=True):
    """Fail as `Exec` would when the program isn't there or may not be executed, before a `Wait`."""

    code = 71
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()


class Init(Operation, frozen=True):
    """fork: the child goes on, this process stays as its init, passing signals on and collecting the dead."""

    code = 64


class Sync(Operation, frozen=True):
    """Say `point` on the socket of `Descriptors` and wait for the answer."""

    code = 65
    point: str


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


OPERATIONS: dict[int, type[Operation]] = {kind.code: kind for kind in Operation.__subclasses__()}

MAGIC = b"TRVPLAN1"


def signature(kind: type[Operation]) -> str:
    """Spell an operation's fields as the C table does: i integer, s string or bytes, l list of strings."""
    letters = {int: "i", str: "s", bytes: "s", tuple[str, ...]: "l"}
    hints = get_type_hints(kind)
    return "".join(letters[hints[name]] for name in kind.__struct_fields__)


def encode(operations: list[Operation]) -> bytes:
    """Encode a plan for the launcher.

    Layout, all little-endian: MAGIC; u32 count; per operation u32 code, u32 length of what follows,
    then the fields: an integer is i64, a string u32 length + bytes + NUL, a list u32 count + strings.
    Raises ValueError for a string that holds a NUL byte.
    """
    body = bytearray(MAGIC)
    body += len(operations).to_bytes(4, "little")
    for operation in operations:
        fields = b"".join(_field(getattr(operation, name)) for name in operation.__struct_fields__)
        body += operation.code.to_bytes(4, "little") + len(fields).to_bytes(4, "little") + fields
    return bytes(body)


def _field(value: object) -> bytes:
    match value:
        case int():
            return value.to_bytes(8, "little", signed=True)
        case bytes():
            return len(value).to_bytes(4, "little") + value + b"\0"
        case str():
            raw = value.encode("utf-8", "surrogateescape")
            if b"\0" in raw:
                raise ValueError(f"a string of a launch plan holds a NUL byte: {value!r}")
            return len(raw).to_bytes(4, "little") + raw + b"\0"
        case tuple():
            return len(value).to_bytes(4, "little") + b"".join(_field(item) for item in value)
        case _:
            raise TypeError(f"no wire form for {value!r}")


def _kebab(name: str) -> str:
    return "".join("-" + c.lower() if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _abbreviate(value: object) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>" if len(value) > 40 else repr(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_abbreviate(item) for item in value) + "]"
    text = str(value) if isinstance(value, int) else repr(value)
    return text if len(text) <= 200 else text[:190] + f"… ({len(text)} characters)"
