"""Operations of the launch itself: who watches, the child, what it becomes."""

from __future__ import annotations

from trivet.launch.codec import Operation


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
    instance's own, and EXEC frames of clients open further sessions. The agent of a `fork` (1) has said
    its HELLO in the template already, and is called to say it again. With 2 the machine is a copy of a saved one:
    its program goes on at GO, after `payload` (if there is any) was carried out as a session beside it. With 3 it is
    a spare: EXEC is allowed before there is a program, BECOME brings one, and without a client the machine is ended.
    """

    code = 2
    child_fd: int
    payload: bytes
    fork: int = 0


class Spawn(Operation, frozen=True):
    """Make the child with clone3(`flags`); what follows runs in it.

    `terminal` 1 gives it a pseudo-terminal of `rows` x `columns`, else three pipes; with `stdin` 0 its
    input is /dev/null. `cgroup` (v2, host path) uses CLONE_INTO_CGROUP. With CLONE_NEWUSER the launcher
    writes `uid_map` and `gid_map` from outside before the child goes on. `owner`, user and group, gets the streams.
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
    owner: int = 0


class Descriptors(Operation, frozen=True):
    """Conduct the launch: the child is the starter's own, and so are its streams and `preserved` further descriptors.

    They are on descriptors 6 to 8 and from 9 on of the launcher; the program has them as 0 to 2 and from 3 on.
    Descriptor 5 is a SOCK_SEQPACKET socket on which the child says `Sync` points, and hands over its `Console`
    ("console") and the listener of its `Seccomp` filter ("listener"); each is answered with one byte. The
    monitor ends when the program has begun, without an exit file. Before `Spawn`; `stdin` there means nothing.
    """

    code = 4
    preserved: int = 0


class Fork(Operation, frozen=True):
    """Let a process between launcher and child carry out what follows, up to and including `Spawn`.

    It may join what the launcher must not, and be limited as the launcher must not be; the child is the launcher's.
    `mounts`, if it isn't 0, is a descriptor of a mount namespace, for the child's to begin as a copy of that one: host
    paths after a `JoinPath` of a user namespace are what is there.
    """

    code = 5
    repeated = True
    mounts: int = 0


class Revive(Operation, frozen=True):
    """Let the child bring the program back instead of being it: as a sibling of its own, stopped.

    It leaves that one's pid in file `pid` and ends with 0; the program then waits for GO. Before `Spawn`, without
    `Wait`.
    """

    code = 6
    pid: str


class Wait(Operation, frozen=True):
    """Tell the monitor that all is set up and wait until a client sends GO."""

    code = 60
    repeated = True


class Sync(Operation, frozen=True):
    """Say `point` on the socket of `Descriptors` and wait for the answer."""

    code = 65
    point: str


class Background(Operation, frozen=True):
    """fork and exec a helper in the background (virtiofsd), output to the host path `log`; wait until
    the unix socket at host path `ready` exists (at most 5 s)."""

    code = 61
    argv: tuple[str, ...]
    log: str = ""
    ready: str = ""


class Give(Operation, frozen=True):
    """Open host path `path`, with `writable` 1 also for writing, as descriptor `number` (below 256) of the program.

    With 2 only for writing, made or emptied first.
    """

    code = 18
    path: str
    writable: int
    number: int


class GiveTap(Operation, frozen=True):
    """Open tap `device` of the network namespace we are in as descriptor `number` of the program."""

    code = 74
    device: str
    number: int


class GiveListener(Operation, frozen=True):
    """Listen on a unix socket at host path `path`, mode 0600, on descriptor `number` of the program."""

    code = 75
    path: str
    number: int


class Exec(Operation, frozen=True):
    """execve(2). A name without a slash is looked up in PATH of `env`; HOME is added if missing.

    ENOENT and EACCES are told apart from a missing interpreter in the failure's text.
    """

    code = 62
    argv: tuple[str, ...]
    env: tuple[str, ...] = ()


class Builtin(Operation, frozen=True):
    """Run a function of the launcher in place of a program: archive-read PATH, layer-read PATH, stat PATH, nothing."""

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
