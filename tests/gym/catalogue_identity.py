"""Attacks by who one is: users, groups, capabilities, terminals. And floods."""

from __future__ import annotations

from tests.gym.attack import Attack, Entry, Proof, Weakening

ROOT = ("-u", "0")

ATTACKS = (
    *(
        Attack(
            name=f"user-{name}{'-exec' if run else ''}",
            row=row,
            reference=reference,
            tries=f"be root by asking for user {user!r}{' in exec' if run else ''}",
            argv=("root",),
            options=("-u", user),
            exec=run,
            proof=Proof.SAID,
            weak=Weakening(options=ROOT),
        )
        for name, user, row, reference in (
            ("one", "1", 13, "CVE-2026-30892"),
            ("one-colon", "1:", 13, "CVE-2026-30892"),
            ("minus-one", "-1", 13, "CVE-2026-30892"),
            ("32-bits", "4294967296", 14, "CVE-2024-40635"),
            ("31-bits", "2147483648", 14, "CVE-2024-40635"),
            ("64-bits", "18446744073709551616", 14, "CVE-2024-40635"),
        )
        for run in (False, True)
    ),
    Attack(
        name="user-of-a-link",
        row=16,
        reference="CVE-2024-9676",
        tries="be a user whom only a file of the host knows, by an image whose /etc/passwd is a link to it",
        argv=("root",),
        options=("-u", "eve"),
        layer=(Entry("etc/passwd", link="{dir}/passwd"),),
        proof=Proof.SAID,
        weak=Weakening(options=ROOT),
    ),
    *(
        Attack(
            name=f"capabilities-{set_}{'-exec' if run else ''}",
            row=12,
            reference="CVE-2022-29162, CVE-2022-24769",
            tries=f"have capabilities in {set_}, which programs of other users would inherit",
            argv=("capabilities", set_),
            exec=run,
            proof=Proof.SAID,
            weak=Weakening(
                config={
                    "process": {
                        "capabilities": {
                            "inheritable": ["CAP_KILL"],
                            "ambient": ["CAP_KILL"],
                            "permitted": ["CAP_KILL"],
                            "effective": ["CAP_KILL"],
                            "bounding": ["CAP_KILL"],
                        }
                    }
                }
            ),
        )
        for set_ in ("CapInh", "CapAmb")
        for run in (False, True)
    ),
    Attack(
        name="group-root",
        row=15,
        reference="CVE-2022-36109",
        tries="be in root's group as somebody else",
        argv=("member", "0"),
        options=("-u", "1000:1000"),
        proof=Proof.SAID,
        weak=Weakening(options=("--group-add", "0")),
    ),
    Attack(
        name="setuid",
        row=28,
        reference="setuid programs in layers",
        tries="become root by a setuid program of the image",
        argv=("setuid",),
        options=("-u", "1000"),
        layer=(Entry("gym-setuid", program=True, mode=0o4755),),
        proof=Proof.SAID,
        weak=Weakening(options=("--security-opt", "no-new-privileges=false")),
    ),
    Attack(
        name="terminal",
        row=21,
        reference="TIOCSTI, CVE-2016-10124",
        tries="type a command into a terminal of the host",
        argv=("push", "{tty}", "/dev/tty", "/dev/console"),
        options=("-t",),
        proof=Proof.TYPED,
        weak=Weakening(
            options=("--userns", "host", "--cap-add", "SYS_ADMIN", "-v", "{tty}:/leak"), argv=("push", "/leak")
        ),
    ),
    Attack(
        name="flood-processes",
        row=22,
        reference="fork bomb",
        tries="have 5000 processes at once",
        argv=("flood-processes", "5000"),
        proof=Proof.SAID,
        weak=Weakening(options=("--pids-limit", "-1")),
    ),
    Attack(
        name="flood-shared-memory",
        row=22,
        reference="memory that no limit of the program's counts",
        tries="have 80 MB in /dev/shm",
        argv=("flood-file", "/dev/shm/flood", "80"),
        proof=Proof.SAID,
        weak=Weakening(options=("--shm-size", "100m")),
    ),
    Attack(
        name="flood-memory",
        row=22,
        reference="memory bomb",
        tries="have 200 MB of memory where 64 are allowed",
        argv=("flood-memory", "200"),
        options=("--memory", "64m", "--memory-swap", "64m"),
        proof=Proof.SAID,
        weak=Weakening(options=("--memory", "400m", "--memory-swap", "400m")),
    ),
    Attack(
        name="flood-files",
        row=22,
        reference="open files",
        tries="have a million files open",
        argv=("flood-descriptors", "/dev/null", "1000000"),
        proof=Proof.SAID,
        weak=Weakening(options=(), argv=("flood-descriptors", "/dev/null", "100")),
    ),
)
