"""Attacks on the kernel: its switches, its files, its calls, its mounts and control groups."""

from __future__ import annotations

from tests.gym.attack import Attack, Entry, Proof, Weakening
from tests.gym.catalogue_host import OPEN, PRIVILEGED

PATTERN = "/proc/sys/kernel/core_pattern"
CGROUPS = tuple(
    f"/sys/fs/cgroup{name}" for name in ("", "/memory", "/pids", "/cpu", "/devices", "/freezer", "/systemd", "/unified")
)
DOORS = {
    "add_key": "a key for the kernel's key rings",
    "keyctl": "a key ring that isn't in a namespace (CVE-2016-0728)",
    "bpf": "a program in the kernel (CVE-2020-8835, CVE-2021-3490)",
    "userfaultfd": "page faults held up at will, a help for every race",
    "io_uring_setup": "a ring of requests (CVE-2022-29582, CVE-2023-2598)",
    "perf_event_open": "performance counters (CVE-2013-2094)",
    "open_by_handle_at": "files by handle",
    "setns": "other namespaces",
    "kexec_load": "another kernel",
    "acct": "accounting to a file of one's choice",
    "swapon": "swap in a file of one's choice",
    "reboot": "the power switch",
    "syslog": "the kernel's log",
    "quotactl": "quotas",
    "move_pages": "pages of others (CVE-2017-14140)",
    "fanotify_init": "what others open",
    "personality": "addresses that aren't random",
}
MOUNTS = ("proc", "sysfs", "cgroup2", "debugfs", "securityfs", "bpf", "tmpfs")

# A new hierarchy can be mounted only without a control group namespace.
SHARED_GROUPS = {
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    "process": {
        "capabilities": {key: ["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"] for key in ("bounding", "effective", "permitted")}
    },
}

ATTACKS = (
    *(
        Attack(
            name=f"call-{call}",
            row=19,
            reference="kernel",
            tries=f"get through to {call}: {what}",
            argv=("door", call),
            proof=Proof.SAID,
            perhaps=True,
            weak=Weakening(options=PRIVILEGED),
        )
        for call, what in DOORS.items()
    ),
    *(
        Attack(
            name=f"{call}-{name}",
            row=19,
            reference="CVE-2022-0185, CVE-2021-3493, CVE-2023-0386",
            tries=f"make a {name} namespace by {call}, the way to most of the kernel's faults",
            argv=(call, flag),
            proof=Proof.SAID,
            weak=Weakening(options=PRIVILEGED),
        )
        for call, name, flag in (
            ("unshare", "user", "10000000"),
            ("clone", "user", "10000000"),
            ("unshare", "mount", "20000"),
            ("unshare", "network", "40000000"),
        )
    ),
    *(
        Attack(
            name=f"socket-{name}",
            row=row,
            reference=reference,
            tries=f"make a socket of family {name}",
            argv=("family", family, kind, protocol),
            proof=Proof.SAID,
            weak=Weakening(options=PRIVILEGED),
        )
        for name, family, kind, protocol, row, reference in (
            ("packet", "17", "3", "0", 46, "ARP and NDP spoofing, CVE-2020-14386"),
            ("raw", "2", "3", "1", 46, "CVE-2020-13401"),
        )
    ),
    *(
        Attack(
            name=f"mount-{kind}",
            row=19,
            reference="misconfiguration: SYS_ADMIN",
            tries=f"mount a {kind} of one's own",
            argv=("mount", kind),
            proof=Proof.SAID,
            perhaps=True,
            weak=Weakening(options=PRIVILEGED),
        )
        for kind in MOUNTS
    ),
    Attack(
        name="mount-by-the-new-calls",
        row=19,
        reference="CVE-2022-0185",
        tries="mount by fsopen, fsconfig, fsmount",
        argv=("mount-new", "tmpfs"),
        proof=Proof.SAID,
        weak=Weakening(options=PRIVILEGED),
    ),
    *(
        Attack(
            name=f"switch-{name}",
            row=4,
            reference=reference,
            tries=f"write to {path}",
            argv=(verb, path),
            proof=Proof.SAID,
            perhaps=True,
            weak=Weakening(options=PRIVILEGED),
        )
        for name, verb, path, reference in (
            ("core-pattern", "rewrite", PATTERN, "core_pattern"),
            ("modprobe", "rewrite", "/proc/sys/kernel/modprobe", "modprobe"),
            ("sysrq", "open", "/proc/sysrq-trigger", "sysrq-trigger"),
            ("uevent", "open", "/sys/kernel/uevent_helper", "uevent_helper"),
            ("huge-pages", "rewrite", "/proc/sys/vm/overcommit_memory", "sysctl"),
        )
    ),
    *(
        Attack(
            name=f"behind-{name}",
            row=4,
            reference="masked paths",
            tries=f"read {path}, which tells about the host",
            argv=(verb, path),
            proof=Proof.SAID,
            perhaps=True,
            weak=Weakening(options=PRIVILEGED),
        )
        for name, verb, path in (
            ("keys", "read", "/proc/keys"),
            ("timers", "read", "/proc/timer_list"),
            ("interrupts", "read", "/proc/interrupts"),
            ("memory", "read", "/proc/kcore"),
            ("firmware", "list", "/sys/firmware"),
        )
    ),
    Attack(
        name="mask-off",
        row=3,
        reference="CVE-2023-27561",
        tries="take the mask off /proc/keys and read it",
        argv=("unmask", "/proc/keys"),
        proof=Proof.SAID,
        weak=Weakening(options=(*OPEN, "--cap-add", "SYS_ADMIN")),
    ),
    Attack(
        name="mask-off-nested",
        row=3,
        reference="CVE-2023-27561",
        tries="take the mask off as root of a user namespace inside",
        argv=("unmask-nested", "/proc/keys"),
        proof=Proof.SAID,
        weak=Weakening(options=(*OPEN, "--cap-add", "SYS_ADMIN"), argv=("unmask", "/proc/keys")),
    ),
    Attack(
        name="read-only-off",
        row=4,
        reference="read-only paths",
        tries="make /proc/sys writable again and write core_pattern",
        argv=("remount", "/proc/sys", PATTERN),
        proof=Proof.SAID,
        weak=Weakening(options=(*OPEN, "--cap-add", "SYS_ADMIN")),
    ),
    Attack(
        name="null-is-a-link",
        row=4,
        reference="CVE-2025-31133",
        tries="write core_pattern through the mask of /proc/keys, by an image whose /dev/null is a link to it",
        argv=("rewrite", "/proc/keys"),
        layer=(Entry("dev/null", link=PATTERN),),
        proof=Proof.SAID,
        weak=Weakening(options=PRIVILEGED, argv=("rewrite", PATTERN)),
    ),
    Attack(
        name="console-is-a-link",
        row=5,
        reference="CVE-2025-52565",
        tries="write a file of the host by an image whose /dev/console is a link to it",
        argv=("write", "/dev/console"),
        layer=(Entry("dev/console", link="{dir}/file"),),
        options=("-t",),
        proof=Proof.CHANGED,
        weak=Weakening(options=("-v", "{dir}/file:/dev/canary"), argv=("write", "/dev/canary")),
    ),
    Attack(
        name="fake-proc",
        row=3,
        reference="CVE-2019-16884, CVE-2019-19921",
        tries="have the kernel's switches without protection, by a /proc full of the image's own files",
        argv=("rewrite", PATTERN),
        layer=(Entry("proc/self/attr/exec", content="fake"), Entry("proc/sys/kernel/fake", content="fake")),
        proof=Proof.SAID,
        weak=Weakening(options=PRIVILEGED),
    ),
    Attack(
        name="release-agent",
        row=9,
        reference="CVE-2022-0492",
        tries="have the kernel run a script on the host, as the release agent of a hierarchy one mounts",
        argv=("release-agent", "{script}"),
        proof=Proof.CHANGED,
        weak=Weakening(config=SHARED_GROUPS),
    ),
    Attack(
        name="cgroup-write",
        row=9,
        reference="misconfiguration: writable control groups",
        tries="make a control group in any hierarchy",
        argv=("mkdir", *CGROUPS),
        proof=Proof.SAID,
        weak=Weakening(options=PRIVILEGED),
    ),
    Attack(
        name="cgroup-devices",
        row=9,
        reference="misconfiguration: writable control groups",
        tries="open for writing the list of devices one may have, or of what groups below may",
        argv=("open", "/sys/fs/cgroup/devices/devices.allow", "/sys/fs/cgroup/cgroup.subtree_control"),
        proof=Proof.SAID,
        weak=Weakening(options=PRIVILEGED),
    ),
    Attack(
        name="device-memory",
        row=28,
        reference="device nodes",
        tries="make a node of the kernel's log and read it",
        argv=("device", "c", "1", "11"),
        proof=Proof.SAID,
        weak=Weakening(options=PRIVILEGED),
    ),
    Attack(
        name="chroot",
        row=3,
        reference="chroot(2)",
        tries="go up from a directory outside of a root of one's own, further than one's first root",
        argv=("leave-chroot", "{dir}/secret"),
        proof=Proof.SECRET,
        weak=Weakening(options=("-v", "/:/host:ro"), argv=("read", "/host{dir}/secret")),
    ),
)
