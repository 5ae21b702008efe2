"""Running once more what was run before: the stored plan of a bundle, carried out without thinking it up again.

A start by the ordinary way takes as long as importing what thinks; this module imports nothing of it. `recording.py`
stores a plan once a bundle has run. Here every condition it was made under is looked at again; where one doesn't
hold, or a step fails, what was made is removed and the ordinary way is gone, which also finds the words for what
is wrong. docs/decisions/0030-replay.md
"""

import marshal
import os
import select
import sys
import time

TYPE_CHECKING = False  # typing is slow to import
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any
else:
    import _signal as signal  # without the words for its numbers, and enum, functools and collections for those

PLANS = "plans@"  # no container's id
ID = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-")
LARGEST = 1 << 20
KEPT_SIGNALS = "CHLD KILL STOP URG PIPE WINCH TTIN TTOU TSTP SEGV BUS ILL FPE"
LONGEST = 200  # bytes of a file's name
VALUED = ({"--root": "home"}, {"--bundle": "bundle", "-b": "bundle", "--pid-file": "pid_file"})
"""Options with a value, before the verb and behind it."""


class Unlike(Exception):
    """Something isn't as it was, or went wrong: the ordinary way is to be taken."""


class Wish:
    """A command line that can be replayed."""

    def __init__(self, words: "Sequence[str]") -> None:
        self.home, self.bundle, self.pid_file, self.detached = "/run/trivet-runtime", ".", "", False
        rest = list(words)
        names: list[str] = []
        while rest:
            word, sign, value = rest.pop(0).partition("=")
            field = VALUED[bool(names)].get(word)
            if field is not None and (word != "-b" or not sign):
                setattr(self, field, value if sign else rest.pop(0) if rest else "")
            elif names and word in ("--detach", "-d") and not sign:
                self.detached = True
            elif word.startswith("-") or sign:
                raise Unlike
            else:
                names.append(word)
        if len(names) != 2 or names[0] != "run":
            raise Unlike
        self.id = names[1]
        if not set(self.id) <= ID or self.id in (".", "..") or len(self.id) > 200:
            raise Unlike
        self.home = os.path.abspath(self.home)
        self.bundle = os.path.realpath(self.bundle)


def run(words: "Sequence[str]") -> "int | None":
    """Run what was stored, if it is what is asked for; None if it isn't."""
    try:
        wish = Wish(words)
        if "LISTEN_FDS" in os.environ:
            return None
        record = load(place(wish.home, wish.bundle))
        if record["facts"] != facts(wish.bundle, wish.home, record["files"], record["relative"]):
            return None
        replay = Replay(wish, record)
        signal.pthread_sigmask(signal.SIG_BLOCK, forwarded())  # until there is somebody to pass them on to
        pid = replay.begin()
    except (Unlike, OSError, EOFError, ValueError, KeyError, TypeError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded())
        return None
    try:
        return replay.follow(pid)
    except OSError as error:
        sys.stderr.write(f"trivet-runtime: {error}\n")
        return 1


def place(home: str, bundle: str) -> str:
    """Tell where a bundle's plan is stored."""
    name = bundle.replace("@", "@@").replace("/", "@-")
    if len(name.encode("utf-8", "surrogateescape")) > LONGEST:
        raise Unlike
    return f"{home}/{PLANS}/{name}"


def load(path: str) -> "dict[str, Any]":
    """Read a record. Only what this user wrote, and this interpreter, is read at all."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077 or status.st_size > 4 * LARGEST:
            raise Unlike
        head, _, body = os.read(descriptor, status.st_size).partition(b"\0")
    finally:
        os.close(descriptor)
    if head.decode() != sys.version:
        raise Unlike
    record: dict[str, Any] = marshal.loads(body)
    return record


def facts(bundle: str, home: str, files: "Sequence[str]", relative: str) -> "tuple[object, ...]":
    """Gather what a plan depends on: the configuration, this program, this process, this boot, control groups.

    `files` are those of this program, `relative` is the root as the configuration names it.
    """
    root = os.stat(os.path.join(bundle, relative))
    status = content("/proc/self/status")
    mounts = [line for line in content("/proc/self/mountinfo").split(b"\n") if b" - cgroup" in line]
    return (
        content(f"{bundle}/config.json"),
        tuple([(status.st_mtime_ns, status.st_size) for status in map(os.stat, files)]),
        (root.st_dev, root.st_ino, os.path.realpath(os.path.join(bundle, relative))),
        os.geteuid(),
        status[status.index(b"CapInh") : status.index(b"NoNewPrivs")],
        content("/proc/self/limits"),
        content("/proc/sys/kernel/random/boot_id"),
        [line.split(b" ", 2)[2] for line in mounts],
        home,
        mount_of(home),
        tuple(os.uname()),
    )


def content(path: str) -> bytes:
    """Read a file. Raises `Unlike` for a large one."""
    descriptor, found = os.open(path, os.O_RDONLY | os.O_CLOEXEC), b""
    try:
        while part := os.read(descriptor, LARGEST):
            found += part
            if len(found) > LARGEST:
                raise Unlike
    finally:
        os.close(descriptor)
    return found


def mount_of(path: str) -> str:
    """Find the mount a path lies on, as far as the path is there."""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


class Replay:
    """One replay; what was made is undone in `undo` when it fails."""

    def __init__(self, wish: Wish, record: "dict[str, Any]") -> None:
        self._wish, self._record = wish, record
        self._directory = f"{wish.home}/{wish.id}"
        self._groups: list[str] = []

    def begin(self) -> int:
        """Set the container up and let its program begin; gives its pid. Raises `Unlike`, and leaves nothing then."""
        os.mkdir(self._directory, 0o711)
        try:
            self._set_up()
            return self._launch()
        except (Unlike, OSError) as error:
            self._remove()
            raise Unlike from error

    def follow(self, pid: int) -> int:
        """Wait for the program and remove the container, unless it is to run by itself."""
        keep = False
        try:
            self._write_pid(pid)
            keep = self._wish.detached
            return 0 if keep else wait(pid)
        finally:
            if not keep:
                self._remove()

    def _own(self, text: str) -> str:
        return text.replace(self._record["token"], self._wish.id)

    def _set_up(self) -> None:
        os.chmod(self._directory, 0o711)
        os.mkdir(f"{self._directory}/root", 0o755)
        now = time.time()
        state = self._own(self._record["state"]).replace(self._record["created"], f'"created":{now!r}')
        self._write("state.json", state)
        self._write("brief", self._own(self._record["brief"]).replace(self._record["told"], printed(now)))
        for path in map(self._own, self._record["groups"]):
            os.mkdir(path)
            os.chmod(path, 0o755)  # kernel/cgroup_record.py, make
            self._groups.append(path)
        for path in map(self._own, self._record["inherit"]):
            if not content(path).strip():
                above, _, name = path.rpartition("/")
                put(path, content(f"{os.path.dirname(above)}/{name}"))
        for path, value in self._record["writes"]:
            put(self._own(path), value.encode())

    def _write(self, name: str, text: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(f"{self._directory}/{name}", flags, 0o600)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def _launch(self) -> int:
        from trivet.runtime.replay_launch import launch

        joins = [self._own(path) for path in self._record["groups"]]
        return launch(self._record["launcher"], self._plan(), joins)

    def _plan(self) -> bytes:
        """Encode the plan (docs/launch.md) with this container's names in it."""
        body = [b"TRVPLAN1", number(len(self._record["plan"]))]
        for code, fields in self._record["plan"]:
            if isinstance(fields, list):
                fields = b"".join(map(self._field, fields))
            body += [number(code), number(len(fields)), fields]
        return b"".join(body)

    def _field(self, value: "Any") -> bytes:
        if isinstance(value, int):
            return value.to_bytes(8, "little", signed=True)
        if isinstance(value, str):
            value = self._own(value).encode("utf-8", "surrogateescape")
        if isinstance(value, bytes):
            return number(len(value)) + value + b"\0"
        return number(len(value)) + b"".join(map(self._field, value))

    def _write_pid(self, pid: int) -> None:
        if path := self._wish.pid_file:
            temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            os.write(descriptor, str(pid).encode())
            os.close(descriptor)
            os.rename(temporary, path)

    def _remove(self) -> None:
        """Remove everything; what resists is left to those who know how to kill."""
        if all(map(gone, self._groups)):
            for name in ("monitor.sock", "pid", "exit", "new", "brief", "state.json"):
                try:
                    os.unlink(f"{self._directory}/{name}")
                except FileNotFoundError:
                    pass
            for path in (f"{self._directory}/root", self._directory):
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    pass
        else:
            from pathlib import Path

            from trivet.runtime.container import Container

            Container.find(Path(self._wish.home), self._wish.id).remove(lambda message: None)


def gone(group: str) -> bool:
    """Remove an empty control group; a dead task leaves a moment later. False if somebody lives there."""
    for _ in range(100):
        try:
            os.rmdir(group)
            return True
        except FileNotFoundError:
            return True
        except OSError:
            if content(f"{group}/cgroup.procs") or os.stat(group).st_nlink > 2:
                return False
        select.poll().poll(2)
    return False


def put(path: str, value: bytes) -> None:
    """Write a kernel's file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def printed(seconds: float) -> str:
    """Write a time as RFC 3339 has it."""
    whole, fraction = divmod(seconds, 1)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f"{fraction:.6f}Z"[1:]


def number(value: int) -> bytes:
    """Encode a length."""
    return value.to_bytes(4, "little")


def forwarded() -> "set[signal.Signals]":
    """Tell which signals are passed on."""
    return signal.valid_signals() - {getattr(signal, f"SIG{name}") for name in KEPT_SIGNALS.split()}


def wait(pid: int) -> int:
    """Wait for our child and pass signals on; gives its exit code, 128+n after signal n."""

    def forward(which: int, _: object) -> None:
        try:
            os.kill(pid, which)
        except ProcessLookupError:
            pass

    for which in forwarded():
        try:
            signal.signal(which, forward)
        except (OSError, ValueError):
            pass
    signal.pthread_sigmask(signal.SIG_UNBLOCK, forwarded())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code
