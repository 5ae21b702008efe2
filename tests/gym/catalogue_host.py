"""Attacks on the host's files, processes, sockets and memory."""

from __future__ import annotations

from tests.gym.attack import Attack, Entry, Proof, Weakening

HOST = ("--userns", "host")
OPEN = (*HOST, "--security-opt", "seccomp=unconfined")
PRIVILEGED = ("--privileged",)
SHOWN = ("-v", "{dir}:{dir}")

ATTACKS = (
    Attack(
        name="shocker",
        row=20,
        reference="Shocker, DAC_READ_SEARCH",
        tries="open a file of the host by its handle, over a volume that lies on the same file system",
        argv=("handle", "/shared", "{type}", "{handle}"),
        options=("-v", "{dir}/pts:/shared"),
        proof=Proof.SECRET,
        weak=Weakening(options=(*HOST, "--cap-add", "DAC_READ_SEARCH")),
    ),
    Attack(
        name="root-bind",
        row=20,
        reference="misconfiguration: / mounted",
        tries="read the host's files",
        argv=("read", "/host{dir}/secret"),
        proof=Proof.SECRET,
        weak=Weakening(options=("-v", "/:/host:ro")),
    ),
    Attack(
        name="process-root",
        row=20,
        reference="misconfiguration: the host's processes",
        tries="read the host's files through the root of one of its processes",
        argv=("read", "/proc/{pid}/root{dir}/secret"),
        proof=Proof.SECRET,
        weak=Weakening(options=("--pid", "host", "--cap-add", "SYS_PTRACE")),
    ),
    Attack(
        name="trace",
        row=20,
        reference="misconfiguration: SYS_PTRACE with the host's processes",
        tries="attach to a process of the host and read its environment",
        argv=("trace", "{pid}"),
        proof=Proof.SECRET,
        weak=Weakening(options=("--pid", "host", "--cap-add", "SYS_PTRACE")),
    ),
    Attack(
        name="kill",
        row=20,
        reference="misconfiguration: the host's processes",
        tries="kill a process of the host",
        argv=("kill", "{pid}"),
        proof=Proof.KILLED,
        weak=Weakening(options=("--pid", "host")),
    ),
    Attack(
        name="overwrite-runtime",
        row=1,
        reference="CVE-2019-5736",
        tries="overwrite the program that starts programs inside, while it does so ten times",
        argv=("overwrite", "{pid}"),
        execs=10,
        proof=Proof.CHANGED,
        weak=Weakening(options=("--privileged", "--pid", "host")),
    ),
    Attack(
        name="abstract-socket",
        row=17,
        reference="CVE-2020-15257",
        tries="connect to an abstract socket of the host",
        argv=("abstract", "{abstract}"),
        proof=Proof.SECRET,
        weak=Weakening(options=("--network", "host")),
    ),
    Attack(
        name="loopback",
        row=47,
        reference="exposure of loopback services",
        tries="connect to a service on the host's loopback",
        argv=("loopback", "{port}"),
        proof=Proof.SECRET,
        weak=Weakening(options=("--network", "host")),
    ),
    Attack(
        name="shared-memory",
        row=20,
        reference="misconfiguration: the host's IPC",
        tries="attach a shared memory segment of the host",
        argv=("shm", "{shm}"),
        proof=Proof.SECRET,
        weak=Weakening(options=("--ipc", "host")),
    ),
    Attack(
        name="descriptors",
        row=2,
        reference="CVE-2024-21626, CVE-2016-9962",
        tries="find a directory of the host among the descriptors the program was born with",
        argv=("descriptors", "secret"),
        proof=Proof.SECRET,
        weak=Weakening(config={}, flags=("--preserve-fds", "7")),
    ),
    Attack(
        name="descriptors-exec",
        row=2,
        reference="CVE-2024-21626",
        tries="the same from a program that exec adds",
        argv=("descriptors", "secret"),
        exec=True,
        proof=Proof.SECRET,
        weak=Weakening(config={}, flags=("--preserve-fds", "7")),
    ),
    *(
        Attack(
            name=f"working-directory-{number}",
            row=2,
            reference="CVE-2024-21626",
            tries=f"have descriptor {number} of the runtime as working directory",
            argv=("descriptors", "secret"),
            options=("-w", f"/proc/self/fd/{number}"),
            proof=Proof.SECRET,
            weak=Weakening(options=("-v", "{dir}:/leak", "-w", "/leak")),
        )
        for number in (3, 7, 8, 9)
    ),
    *(
        Attack(
            name=f"linked-{name}{'-by-dots' if dots else ''}",
            row=6,
            reference="CVE-2026-41579, CVE-2026-47766",
            tries=f"have /{name} made, mounted or written on the host, by an image whose /{name} is a link there",
            argv=("write", f"/{name}/owned"),
            layer=(Entry(name, link="{up}" if dots else "{dir}"),),
            proof=Proof.CHANGED,
            weak=Weakening(options=SHOWN),
        )
        for name in ("dev", "proc", "sys", "etc", "run", "srv")
        for dots in (False, True)
    ),
)
