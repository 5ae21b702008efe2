"""Everything a container needs, in one plan: namespaces, identity, terminal, network; measured from inside."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.runtime import until

from trivet.launch.channel import Channel
from trivet.launch.frame import Type
from trivet.launch.monitor import read_process
from trivet.launch.operation import (
    AddAddress,
    AddRoute,
    Become,
    Bind,
    Capabilities,
    Console,
    Directory,
    Exec,
    Hostname,
    Join,
    JoinPath,
    LinkUp,
    Monitor,
    Mount,
    Node,
    NoNewPrivileges,
    Operation,
    Pivot,
    Propagation,
    Rlimit,
    Root,
    Seccomp,
    Spawn,
    Sysctl,
    Umask,
    User,
    Wait,
    WorkingDirectory,
)
from trivet.launch.spawn import LaunchError, run, spawn

if TYPE_CHECKING:
    from tests.kernel.conftest import Launch, Listen

pytestmark = pytest.mark.needs("root", "busybox", "ip")

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x02000000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
NAMESPACES = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWPID | NEWNET
MS_REC_PRIVATE = 1 << 14 | 1 << 18
ENVIRONMENT = ("PATH=/bin",)
KILL, NET_BIND = 1 << 5, 1 << 10


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A root file system with busybox and a user."""
    root = tmp_path / "root"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in ("sh", "cat", "id", "hostname", "ls", "ps", "mount", "ip", "tty", "stty", "true", "sleep", "grep"):
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nana:x:1000:1000::/home/ana:/bin/sh\n")
    return root


def rooted(root: Path) -> list[Operation]:
    """Mounts and devices of a container, up to the pivot."""
    return [
        Propagation("/", MS_REC_PRIVATE),
        Bind(str(root), str(root), host=1),
        Root(str(root)),
        Mount("proc", "proc", "/proc"),
        Mount("tmpfs", "tmpfs", "/dev", 0, ("mode=755",)),
        Mount("devpts", "devpts", "/dev/pts", 0, ("newinstance", "ptmxmode=0666", "mode=0620")),
        Node("/dev/null", stat.S_IFCHR | 0o666, 1, 3),
    ]


def container(root: Path, *operations: Operation, script: str, **spawning: int) -> list[Operation]:
    """The plan of a whole container that runs a shell script."""
    spawning.setdefault("flags", NAMESPACES)
    begin = Spawn(**spawning)  # type: ignore[arg-type]
    return [begin, *rooted(root), Pivot(), *operations, Exec(("sh", "-c", script), ENVIRONMENT)]


def inside(root: Path, *operations: Operation, script: str) -> str:
    """What a script prints in a container of its own."""
    done = run(container(root, *operations, script=script), timeout=20)
    assert done.error_output == b""
    return done.output.decode()


def test_a_container_sees_only_itself(image: Path) -> None:
    """Processes, host name, interfaces and mounts are its own."""
    output = inside(
        image, Hostname("little"), LinkUp("lo"), script="ps -o pid,args; hostname; ip -o addr; cat /proc/mounts"
    )
    lines = output.splitlines()
    assert lines[1].split()[0] == "1"
    assert "little" in lines
    assert sum("inet 127.0.0.1/8" in line for line in lines) == 1
    assert {line.split()[1] for line in lines if line.startswith(("proc", "tmpfs", "devpts"))} == {
        "/proc",
        "/dev",
        "/dev/pts",
    }
    assert str(image) not in output


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace with one end of a veth pair (address 02:00:00:00:00:0b); the other end is up.

    [ a0 ──── b0 ]
    """
    name = f"tv{os.getpid()}"
    commands = [
        f"ip netns add {name}",
        f"ip -n {name} link add a0 type veth peer name b0 address 02:00:00:00:00:0b",
        f"ip -n {name} link set a0 up",
    ]
    for command in commands:
        subprocess.run(command.split(), check=True)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_interfaces_addresses_and_routes(image: Path, netns: str) -> None:
    """An interface is found by its MAC address and renamed; addresses are usable at once, routes lead on."""
    network = [
        LinkUp("02:00:00:00:00:0B", "eth0", 1400),
        AddAddress("eth0", "10.9.8.7/24"),
        AddAddress("eth0", "fd00::7/64"),
        AddRoute("eth0", "", "10.9.8.1"),
        AddRoute("eth0", "192.0.2.0/24", ""),
        AddRoute("eth0", "2001:db8::/32", "fd00::1"),
        AddRoute("eth0", "", "fd00::1"),
    ]
    plan = container(image, *network, script="ip addr show eth0; ip route; ip -6 route", flags=NAMESPACES & ~NEWNET)
    output = run([JoinPath(netns, NEWNET), *plan], timeout=20).output.decode()
    assert "inet 10.9.8.7/24 brd 10.9.8.255" in output
    assert "inet6 fd00::7/64" in output
    assert "mtu 1400" in output
    assert "default via 10.9.8.1" in output
    assert "192.0.2.0/24" in output
    assert "2001:db8::/32 via fd00::1" in output
    assert "default via fd00::1" in output


@pytest.mark.parametrize(
    "operation",
    [
        LinkUp("nonesuch"),
        LinkUp("02:00:00:00:00:01"),
        LinkUp("a" * 16),
        AddAddress("lo", "10.0.0.1/33"),
        AddAddress("lo", "host"),
        AddRoute("lo", "", "10.77.0.1"),
    ],
)
def test_what_the_network_refuses_is_named(image: Path, operation: Operation) -> None:
    """A missing interface, a malformed address, an unreachable gateway: each fails as its operation."""
    with pytest.raises(LaunchError) as caught:
        inside(image, operation, script="true")
    assert caught.value.operation == operation


def test_identity_and_rights_are_as_planned(image: Path) -> None:
    """User, umask, limits, capabilities, no new privileges and seccomp reach the program."""
    allow = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)
    operations = [
        User("ana"),
        WorkingDirectory("/home/ana", 1),
        Rlimit(7, 100, 200),
        Umask(0o027),
        NoNewPrivileges(),
        Become(),
        Capabilities(KILL | NET_BIND, KILL, 0, KILL | NET_BIND),
        Seccomp(allow),
    ]
    output = inside(image, *operations, script="id; pwd; umask; ulimit -n; cat /proc/self/status; ls -ld .")
    assert output.startswith("uid=1000(ana) gid=1000")
    assert "\n/home/ana\n0027\n100\n" in output
    status = dict(line.split(":\t", 1) for line in output.splitlines() if ":\t" in line)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert int(status["CapBnd"], 16) == KILL | NET_BIND
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapInh"], 16) == 0
    assert output.splitlines()[-1].split()[2:4] == ["ana", "1000"]


def test_capabilities_of_root_are_what_was_left(image: Path) -> None:
    """Root keeps exactly the bounding set over execve; ambient ones reach another user."""
    root = inside(image, Capabilities(KILL, KILL, 0, KILL), script="cat /proc/self/status")
    assert f"CapEff:\t{KILL:016x}\n" in root
    user = inside(
        image, User("ana"), Become(), Capabilities(KILL, KILL, KILL, KILL, KILL), script="cat /proc/self/status"
    )
    assert f"CapEff:\t{KILL:016x}\n" in user


def test_sysctls_are_written_through_a_verified_proc(image: Path) -> None:
    """A sysctl is set in the container's namespace; with anything else at /proc it is refused."""
    assert inside(image, Sysctl("net/ipv4/ip_forward", "1"), script="cat /proc/sys/net/ipv4/ip_forward") == "1\n"
    with pytest.raises(LaunchError, match="sysctl"):
        inside(image, Sysctl("../../etc/passwd", "x"), script="true")
    with pytest.raises(LaunchError, match="not the proc file system"):
        inside(image, Mount("tmpfs", "tmpfs", "/proc"), Sysctl("net/ipv4/ip_forward", "1"), script="true")


def test_a_user_namespace_gets_its_maps(image: Path) -> None:
    """The launcher writes both maps before the child goes on."""
    spawning = Spawn(NEWUSER, uid_map="0 100000 1000\n", gid_map="0 200000 1000\n")
    done = run([spawning, Exec(("sh", "-c", "id -u; id -g; cat /proc/self/uid_map"), ("PATH=/usr/bin:/bin",))])
    assert done.output.split() == [b"65534", b"65534", b"0", b"100000", b"1000"]


def start(launch: Launch, plan: list[Operation], **monitor: int) -> Channel:
    """Start a plan under a monitor, attached and running."""
    directory = launch.directory()
    channel = spawn([Monitor(str(directory), **monitor), *plan[:-1], Wait(), plan[-1]])  # type: ignore[arg-type]
    channel.attach()
    channel.go()
    return channel


def test_a_terminal_of_the_containers_own(launch: Launch, listen: Listen, image: Path) -> None:
    """With Console the program can name its terminal, /dev/console is the same one, and sizes arrive."""
    script = "tty; stty size; read x; stty size; echo to-console > /dev/console; exit 5"
    plan = container(image, Console(), script=script, terminal=1, stdin=1, rows=30, columns=90)
    channel = start(launch, plan)
    while b"30 90" not in received(channel):
        pass
    channel.resize(44, 111)
    channel.write(b"go\n")
    heard = listen(channel)
    assert b"44 111\r\n" in heard.output
    assert b"to-console\r\n" in heard.output
    assert [ending.code for ending in heard.exits] == [5]


def received(channel: Channel) -> bytes:
    """The next output."""
    frame = channel.receive(10)
    assert frame is not None
    return frame.payload if frame.type is Type.STDOUT else b""


def test_a_console_needs_a_terminal(image: Path) -> None:
    """Console without a Spawn that has a terminal is refused."""
    with pytest.raises(LaunchError, match="terminal"):
        inside(image, Console(), script="true")


def test_control_c_and_end_of_input_of_a_terminal(launch: Launch, listen: Listen) -> None:
    """^C interrupts through the terminal; an empty STDIN frame is ^D."""
    channel = launch.shell("trap 'echo interrupted' INT; echo ready; cat; cat", terminal=1)
    while b"ready" not in received(channel):
        pass
    time.sleep(0.1)
    channel.write(b"\x03")
    while b"interrupted" not in received(channel):
        pass
    channel.end_input()
    assert [ending.code for ending in listen(channel).exits] == [0]


def test_exec_joins_a_running_container(launch: Launch, listen: Listen, image: Path) -> None:
    """A second monitor's program lives in the first one's namespaces and ends with them."""
    with start(launch, container(image, Hostname("little"), script="cat", stdin=1)) as first:
        assert first.receive(10) is not None
        process = read_process(launch.directories[0])
        assert process is not None
        join: list[Operation] = [
            Join(process.pid, NEWPID),
            Spawn(terminal=1, stdin=1, rows=24, columns=80),
            Join(process.pid, NAMESPACES & ~NEWPID),
            Root("/"),
            Console(""),
            WorkingDirectory("/tmp"),
        ]
        second = start(launch, [*join, Exec(("sh", "-c", "hostname; tty; pwd; ps -o args"), ENVIRONMENT)], linger=1)
        output = listen(second).output.decode()
        assert output.split("\r\n")[:3] == ["little", "/dev/pts/0", "/tmp"]
        assert "cat" in output
        assert "pytest" not in output
        third = start(launch, [*join[:1], Spawn(), *join[2:4], Exec(("sleep", "60"), ENVIRONMENT)])
        assert third.receive(10) is not None
        first.signal(signal.SIGKILL)
        assert [ending.signal for ending in listen(third).exits] == [signal.SIGKILL]


@pytest.mark.parametrize("path", ["/proc/self/fd/3", "/proc/1/cwd", "/proc/self/root/..", "/nonesuch", "/etc/passwd"])
def test_a_working_directory_outside_is_impossible(image: Path, path: str) -> None:
    """Magic links, files and missing directories are no working directory (CVE-2024-21626)."""
    with pytest.raises(LaunchError) as caught:
        inside(image, WorkingDirectory(path), script="pwd")
    assert isinstance(caught.value.operation, WorkingDirectory)


def test_what_is_left_in_the_cgroup_is_killed(launch: Launch, listen: Listen) -> None:
    """When the program has ended, processes it left in its cgroup are gone before the exit is told."""
    base = Path("/sys/fs/cgroup/pids") if Path("/sys/fs/cgroup/pids").is_dir() else Path("/sys/fs/cgroup")
    cgroup = base / f"trivet-test-{os.getpid()}"
    cgroup.mkdir()
    try:
        directory = launch.directory()
        script = f"echo 0 > {cgroup}/cgroup.procs; (setsid sleep 60 &); (setsid sleep 60 &); sleep 0.1; echo done"
        plan: list[Operation] = [
            Monitor(str(directory), reap=(str(cgroup),)),
            Spawn(),
            Wait(),
            Exec(("sh", "-c", script), ("PATH=/usr/bin:/bin",)),
        ]
        channel = spawn(plan)
        channel.attach()
        channel.go()
        heard = listen(channel)
        assert (heard.output, [ending.code for ending in heard.exits]) == (b"done\n", [0])
        assert (cgroup / "cgroup.procs").read_text() == ""
    finally:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                cgroup.rmdir()
                break
            except OSError:
                time.sleep(0.01)


def test_a_cgroup_of_the_unified_hierarchy(launch: Launch, listen: Listen) -> None:
    """The child is born in its v2 cgroup, and what it leaves there is killed."""
    base = next(
        (p for p in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")) if (p / "cgroup.procs").exists()), None
    )
    if base is None or not (base / "cgroup.controllers").exists():
        pytest.skip("no cgroup v2 hierarchy")
    cgroup = base / f"trivet-test-{os.getpid()}"
    cgroup.mkdir()
    try:
        directory = launch.directory()
        script = "grep ^0:: /proc/self/cgroup; (setsid sleep 60 &) ; sleep 0.1"
        plan: list[Operation] = [
            Monitor(str(directory), reap=(str(cgroup),)),
            Spawn(cgroup=str(cgroup)),
            Wait(),
            Exec(("sh", "-c", script), ("PATH=/usr/bin:/bin",)),
        ]
        channel = spawn(plan)
        channel.attach()
        channel.go()
        assert listen(channel).output == f"0::/{cgroup.name}\n".encode()
        assert (cgroup / "cgroup.procs").read_text() == ""
    finally:
        cgroup.rmdir()


def test_processes_left_on_a_terminal_hear_the_hang_up(launch: Launch, listen: Listen) -> None:
    """When a program ends that led the session of its terminal, those it leaves there get SIGHUP."""
    mark = launch.base / "hung-up"
    script = f"(trap 'touch {mark}; exit' HUP; while :; do sleep 0.1; done) & sleep 0.5; echo done"
    heard = listen(launch.shell(script, terminal=1))
    assert b"done\r\n" in heard.output
    assert [ending.code for ending in heard.exits] == [0]
    until(mark.exists)


def test_memory_that_runs_out_is_told(launch: Launch, listen: Listen) -> None:
    """A program the kernel kills for its memory limit exits with 137 and the out-of-memory flag."""
    base = Path("/sys/fs/cgroup/memory")
    if not (base / "memory.limit_in_bytes").exists():
        pytest.skip("no cgroup v1 memory controller")
    cgroup = base / f"trivet-test-{os.getpid()}"
    cgroup.mkdir()
    try:
        (cgroup / "memory.limit_in_bytes").write_text(str(16 << 20))
        directory = launch.directory()
        script = f"echo 0 > {cgroup}/cgroup.procs; exec python3 -c 'x = bytearray(64 << 20)'"
        plan: list[Operation] = [
            Monitor(str(directory), reap=(str(cgroup),)),
            Spawn(),
            Wait(),
            Exec(("sh", "-c", script), ("PATH=/usr/bin:/bin",)),
        ]
        channel = spawn(plan)
        channel.attach()
        channel.go()
        [ending] = listen(channel).exits
        assert (ending.code, ending.out_of_memory) == (137, True)
    finally:
        cgroup.rmdir()


def test_directories_of_the_host_can_be_made(tmp_path: Path) -> None:
    """With host set a path is the host's."""
    run([Directory(f"{tmp_path}/a/b", 0o710, host=1)])
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o710
