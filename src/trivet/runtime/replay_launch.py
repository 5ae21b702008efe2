"""A conducted launch (docs/launch.md) for `replay.py`, which can't afford the imports of launch/conductor.py."""

import _socket
import fcntl
import os
import select

from trivet.runtime.replay import Unlike, put

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FREE = 160  # descriptors are moved above those the launcher expects
PATIENCE = 120_000  # milliseconds
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
STARTED = 0x43  # launch/frame.py
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def launch(program: str, plan: bytes, groups: "Sequence[str]") -> int:
    """Carry a plan out up to the program's first instruction; gives its pid. It is our child.

    Its control groups are `groups`, if it has to be put there. Raises `Unlike` for everything that needs an answer.
    """
    reading, writing = map(_up, os.pipe2(os.O_CLOEXEC))
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    memory = _up(os.memfd_create("trivet-plan", os.MFD_CLOEXEC))
    _write(memory, plan)
    sources = (memory, writing, _up(theirs.detach()), 0, 1, 2)
    actions = [(os.POSIX_SPAWN_DUP2, source, 3 + place) for place, source in enumerate(sources)]
    path = f"/proc/self/fd/{_sealed(program)}"
    pid = os.posix_spawn(path, ["trivet-launcher"], ENVIRONMENT, file_actions=actions, setsigmask=())
    for descriptor in sources[:3]:
        os.close(descriptor)
    try:
        return _conduct(reading, ours, groups)
    finally:
        ours.close()  # a launch that waits for an answer fails now
        os.waitpid(pid, 0)  # it ends by itself, and its socket is gone when it has


def _conduct(report: int, ours: "_socket.socket", groups: "Sequence[str]") -> int:
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(ours.fileno(), select.POLLIN)
    data = b""
    while True:
        ready = [descriptor for descriptor, _ in poll.poll(PATIENCE)]
        if not ready:
            raise Unlike
        if ours.fileno() in ready and not _answer(ours, groups):
            poll.unregister(ours.fileno())
        if report in ready:
            part = os.read(report, 4096)
            data += part
            if len(data) >= 12 and data[0] == STARTED:
                return int.from_bytes(data[8:12], "little")
            if not part or data[0] != STARTED:
                raise Unlike


def _answer(ours: "_socket.socket", groups: "Sequence[str]") -> bool:
    said, parts, _, _ = ours.recvmsg(256, _socket.CMSG_SPACE(12) + _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    if not said:
        return False
    if said != b"join":
        raise Unlike
    pid = next(int.from_bytes(raw[:4], "little") for _, kind, raw in parts if kind == _socket.SCM_CREDENTIALS)
    for group in groups:
        put(f"{group}/cgroup.procs", str(pid).encode())
    ours.send(b"\0")
    return True


def _up(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, FREE)
    os.close(descriptor)
    return moved


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sealed(program: str) -> int:
    """Copy the launcher to where nothing it starts can overwrite it (CVE-2019-5736)."""
    writable = os.memfd_create("trivet-launcher", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    source = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    while part := os.read(source, 1 << 20):
        _write(writable, part)
    os.close(source)
    fcntl.fcntl(writable, fcntl.F_ADD_SEALS, SEALS)
    # A descriptor open for writing would make execve fail with ETXTBSY.
    readable = _up(os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC))
    os.close(writable)
    return readable
