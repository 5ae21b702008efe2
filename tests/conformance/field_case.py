"""Each field of the runtime-spec, 1.3.0, as a case: what is asked for, and what is seen inside or refused by name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tests.conformance.case import BLOCK, NUMBER, ONLY_UNIFIED, Case, resources, unified
from tests.runtime import GROUP


def process(**fields: Any) -> dict[str, Any]:
    return {"process": fields}


def linux(**fields: Any) -> dict[str, Any]:
    return {"linux": fields}


def limit(controller: str, file: str) -> str:
    return f"cat /sys/fs/cgroup/{controller}/{controller}.{file}"


def mounts(*more: dict[str, Any]) -> dict[str, Any]:
    """The usual mounts, and these."""
    usual = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    return {"mounts": [*usual, *more]}


def namespaces(*more: dict[str, Any], without: str = "") -> list[dict[str, Any]]:
    kinds = ("pid", "network", "ipc", "uts", "mount", "cgroup")
    return [*({"type": kind} for kind in kinds if kind != without), *more]


def seccomp(action: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"linux": {"seccomp": {"defaultAction": action, "syscalls": list(rules), **more}}}


def user(inside: int = 0, outside: int = 100000, size: int = 1000) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": size}]


OWN_USERS = {
    **mounts(),
    "linux": {"namespaces": namespaces({"type": "user"}), "uidMappings": user(), "gidMappings": user(0, 200000)},
}
OURS = f"/proc/{os.getpid()}/ns/uts"
UNIFIED = Path("/sys/fs/cgroup/unified/cgroup.controllers")
IN_UNIFIED = UNIFIED.is_file() and "hugetlb" in UNIFIED.read_text().split()
HUGE = ("unified", "hugetlb.2MB.max") if IN_UNIFIED else ("hugetlb", "hugetlb.2MB.limit_in_bytes")
SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
STATUS = "grep -i {} /proc/self/status"
THROTTLES = {
    "throttleReadBpsDevice": "read_bps_device",
    "throttleWriteBpsDevice": "write_bps_device",
    "throttleReadIOPSDevice": "read_iops_device",
    "throttleWriteIOPSDevice": "write_iops_device",
}

CASES = {
    "version": Case({"ociVersion": "1.3.0"}, "echo ok", "ok"),
    "root": Case({"root": {"path": "rootfs", "readonly": True}}, "touch /x 2>&1 || true", "Read-only"),
    "root is writable": Case({"root": {"path": "rootfs", "readonly": False}}, "touch /x && ls /x", "/x"),
    "names": Case(
        {"hostname": "ours", "domainname": "example.org"},
        "hostname; cat /proc/sys/kernel/domainname",
        "ours\nexample.org",
    ),
    "annotations": Case({"annotations": {"org.example.key": "value"}}, "echo ok", "ok"),
    "tmpfs": Case(
        mounts({"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "nodev"]}),
        "grep ' /data ' /proc/self/mounts",
        "nodev.*size=64k",
    ),
    "bind, read-only": Case(
        mounts({"destination": "/data/made", "source": "rootfs/bin", "options": ["bind", "ro", "nosuid"]}),
        "ls /data/made/sh; touch /data/made/x 2>&1 || true; grep /data/made /proc/self/mounts",
        "/data/made/sh\n.*Read-only(.|\n)*ro,nosuid",
    ),
    "bind, recursively read-only": Case(
        mounts(
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/data", "source": "/proc", "options": ["rbind", "rro", "rnosuid", "rprivate"]},
        ),
        "grep ' /data' /proc/self/mounts",
        "ro,nosuid",
    ),
    "tmpcopyup": Case(
        mounts({"destination": "/bin", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "mode=755"]}),
        "grep -c ' /bin ' /proc/self/mounts; touch /bin/more && readlink /bin/sh",
        "1\nbusybox",
    ),
    "bind with other owners": Case(
        mounts(
            {
                "destination": "/data",
                "source": "rootfs/bin",
                "options": ["rbind", "idmap"],
                "uidMappings": user(0, 1234),
                "gidMappings": user(0, 5678),
            }
        ),
        "stat -c %u:%g /data/busybox",
        "1234:5678",
    ),
    "recursively with other owners": Case(
        mounts({"destination": "/data", "source": "rootfs/bin", "options": ["rbind", "ridmap"],
                "uidMappings": user(0, 1234), "gidMappings": user(0, 5678)}),
        "stat -c %u:%g /data/busybox",
        "1234:5678",
    ),
    "maps without a user namespace": Case(
        mounts({"destination": "/data", "source": "rootfs/bin", "options": ["bind", "idmap"]}), refused="needs maps"
    ),
    "terminal": Case(
        process(terminal=True, consoleSize={"height": 33, "width": 77}), "tty; stty size", "/dev/pts/0\r\n33 77"
    ),
    "program": Case(
        process(cwd="/bin", env=["PATH=/bin", "A=b c"], args=["sh", "-c", 'pwd; echo "$A"']), prints="/bin\nb c"
    ),
    "user": Case(
        process(user={"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [7, 8]}),
        "id -u; id -g; id -G; umask",
        "5\n6\n6 7 8\n0027",
    ),
    "capabilities": Case(
        process(user={"uid": 5, "gid": 6}, capabilities={name: ["CAP_KILL"] for name in SETS}),
        STATUS.format("^cap"),
        "\n".join(f"Cap...:\t{1 << 5:016x}" for _ in SETS),
    ),
    "capability nobody has": Case(
        process(capabilities={name: ["CAP_FLY", "CAP_KILL"] for name in SETS}),
        STATUS.format("capprm"),
        f"{1 << 5:016x}",
    ),
    "limits": Case(
        process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]), "ulimit -n; ulimit -Hn", "100\n200"
    ),
    "limit beyond ours": Case(
        process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 41}]), "echo ok", "ok"
    ),
    "no new privileges": Case(process(noNewPrivileges=True), STATUS.format("nonewprivs"), "1"),
    "AppArmor": Case(process(apparmorProfile="ours"), refused="$.process.apparmorProfile"),
    "SELinux": Case(process(selinuxLabel="ours"), refused="$.process.selinuxLabel"),
    "SELinux of mounts": Case(linux(mountLabel="ours"), refused="$.linux.mountLabel"),
    "out of memory": Case(process(oomScoreAdj=500), "cat /proc/self/oom_score_adj", "500"),
    "scheduler": Case(
        process(scheduler={"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"], "priority": 0}),
        "cut -d' ' -f19 /proc/self/stat; grep policy /proc/self/sched",
        r"3\npolicy +: +3",
    ),
    "deadline": Case(
        process(scheduler={"policy": "SCHED_MOON", "runtime": 1, "deadline": 2, "period": 3}),
        refused="$.process.scheduler.policy",
    ),
    "input and output": Case(
        process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 6}), "ionice -p $$", "best-effort: prio 6"
    ),
    "namespace by path": Case(
        linux(namespaces=namespaces({"type": "uts", "path": OURS}, without="uts")) | {"hostname": None},
        "readlink /proc/self/ns/uts",
        re.escape(str(Path(OURS).readlink())),
    ),
    "user namespace": Case(
        OWN_USERS, "id -u; cat /proc/self/uid_map /proc/self/gid_map", "0\n +0 +100000 +1000\n +0 +200000 +1000"
    ),
    "time namespace": Case(
        linux(
            namespaces=namespaces({"type": "time"}),
            timeOffsets={"boottime": {"secs": 7777777, "nanosecs": 5}, "monotonic": {"secs": 1, "nanosecs": 0}},
        ),
        "cat /proc/self/timens_offsets",
        "monotonic +1 +0\nboottime +7777777 +5",
    ),
    "devices": Case(
        linux(
            devices=[
                {"type": "c", "path": "/dev/ours", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4},
                {"type": "p", "path": "/dev/pipe"},
            ]
        ),
        "stat -c '%a %u %g %t:%T' /dev/ours; test -p /dev/pipe && echo pipe",
        "640 3 4 1:3\npipe",
    ),
    "interfaces": Case(linux(netDevices={"no-such": {"name": "net0"}}), refused="$.linux.netDevices.no-such"),
    "device rules": Case(
        resources(
            devices=[
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            ]
        ),
        "cat /sys/fs/cgroup/devices/devices.list",
        r"c 10:229 rw",
    ),
    "control group": Case(
        {"linux": {"cgroupsPath": f"/{GROUP}/deep/er"}},
        "cat /proc/self/cgroup",
        "pids:/",
    ),
    "memory": Case(
        resources(memory={"limit": 64 << 20, "reservation": 32 << 20, "swap": 128 << 20}),
        f"{limit('memory', 'limit_in_bytes')} /sys/fs/cgroup/memory/memory.soft_limit_in_bytes; "
        + limit("memory", "memsw.limit_in_bytes"),
        f"{64 << 20}\n{32 << 20}\n{128 << 20}",
    ),
    "memory, further": Case(
        resources(
            memory={
                "limit": 64 << 20,
                "kernel": 1 << 20,
                "kernelTCP": 8 << 20,
                "swappiness": 10,
                "disableOOMKiller": True,
                "useHierarchy": True,
                "checkBeforeUpdate": True,
            }
        ),
        f"{limit('memory', 'kmem.tcp.limit_in_bytes')}; {limit('memory', 'swappiness')}; "
        + limit("memory", "oom_control"),
        f"{8 << 20}\n10\noom_kill_disable 1",
    ),
    "processor": Case(
        resources(cpu={"shares": 300, "quota": 50000, "period": 100000, "burst": 1000, "cpus": "0", "mems": "0"}),
        f"{limit('cpu', 'shares')}; {limit('cpu', 'cfs_quota_us')}; {limit('cpu', 'cfs_period_us')}; "
        + f"{limit('cpu', 'cfs_burst_us')}; {limit('cpuset', 'cpus')}; {limit('cpuset', 'mems')}",
        "300\n50000\n100000\n1000\n0\n0",
    ),
    "processor, idle": Case(resources(cpu={"idle": 1}), limit("cpu", "idle"), "1"),
    "processor, real time": Case(
        resources(cpu={"realtimePeriod": 1000000, "realtimeRuntime": 1}), refused="cpu.rt_runtime_us"
    ),
    "block devices": Case(
        resources(blockIO={name: [{**BLOCK, "rate": 1 << 20}] for name in THROTTLES}),
        "; ".join(limit("blkio", f"throttle.{file}") for file in THROTTLES.values()),
        "\n".join([f"{NUMBER} 1048576"] * len(THROTTLES)),
    ),
    "weight": Case(resources(blockIO={"weight": 100}), limit("blkio", "weight"), "100", where="blkio/blkio.weight"),
    "leaf weight": Case(
        resources(blockIO={"leafWeight": 100}), limit("blkio", "leaf_weight"), "100", where="blkio/blkio.leaf_weight"
    ),
    "weight of a device": Case(
        resources(blockIO={"weightDevice": [{**BLOCK, "weight": 100, "leafWeight": 200}]}),
        limit("blkio", "weight_device"),
        f"{NUMBER} 100",
        where="blkio/blkio.weight_device",
    ),
    "leaf weight of a device": Case(
        resources(blockIO={"weightDevice": [{**BLOCK, "leafWeight": 200}]}),
        limit("blkio", "leaf_weight_device"),
        f"{NUMBER} 200",
        where="blkio/blkio.leaf_weight_device",
    ),
    "huge pages": Case(
        resources(hugepageLimits=[{"pageSize": "2MB", "limit": 4 << 20}])
        | mounts({"destination": "/data", "source": f"/sys/fs/cgroup/{HUGE[0]}", "options": ["bind", "ro"]}),
        f"cat /data/{GROUP}/*/{HUGE[1]}",
        str(4 << 20),
        where=HUGE[0],
    ),
    "network class": Case(
        resources(network={"classID": 0x10001}), limit("net_cls", "classid"), str(0x10001), where="net_cls"
    ),
    "network priority": Case(
        resources(network={"priorities": [{"name": "lo", "priority": 3}]}),
        limit("net_prio", "ifpriomap"),
        "lo 3",
        where="net_prio",
    ),
    "processes": Case(resources(pids={"limit": 33}), limit("pids", "max"), "33"),
    "RDMA": Case(
        resources(rdma={"mlx5_0": {"hcaHandles": 3, "hcaObjects": 4}}), limit("rdma", "max"), "mlx5_0", where="rdma"
    ),
    "processes, without a limit": Case(resources(pids={"limit": -1}), limit("pids", "max"), "max"),
    "processes, nothing said": Case(resources(pids={"limit": None}), limit("pids", "max"), "max"),
    "processes, none more": Case(resources(pids={"limit": 0}), limit("pids", "max"), "^1$"),
    "processes, 0 as it was": Case(
        {"ociVersion": "1.2.1"} | resources(pids={"limit": 0}), limit("pids", "max"), "max"
    ),
    "unified": Case(
        resources(unified={"memory.high": "1000000"}), refused="$.linux.resources.unified"
    ),
    "cache": Case(
        linux(
            intelRdt={
                "closID": "ours",
                "schemata": ["L3:0=f"],
                "l3CacheSchema": "L3:0=f",
                "memBwSchema": "MB:0=10",
                "enableMonitoring": True,
                "enableCMT": True,
                "enableMBM": True,
            }
        ),
        refused="$.linux.intelRdt",
    ),
    "a virtual machine": Case(
        {
            "vm": {
                "hypervisor": {"path": "/bin/vmm", "parameters": ["a"]},
                "kernel": {"path": "/kernel", "parameters": ["b"], "initrd": "/initrd"},
                "image": {"path": "/image", "format": "raw"},
                "hwConfig": {
                    "deviceTree": "/tree",
                    "vcpus": 1,
                    "memory": 1 << 20,
                    "dtdevs": ["c"],
                    "iomems": [{"firstGFN": 1, "firstMFN": 2, "nrMFNs": 3}],
                    "irqs": [11],
                },
            }
        },
        refused="$.vm",
    ),
    "other platforms": Case(
        {
            **{name: {"anything": 1} for name in ("freebsd", "solaris", "windows", "zos")},
            **process(commandLine="cmd", user={"uid": 0, "gid": 0, "username": "eve"}),
        },
        "id -u",
        "^0$",
        warned=("freebsd", "solaris", "windows", "zos", "process.commandLine", "process.user.username"),
    ),
    "memory policy": Case(
        linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
        "head -1 /proc/self/numa_maps",
        "bind=static:0",
    ),
    "sysctl": Case(linux(sysctl={"net.core.somaxconn": "77"}), "cat /proc/sys/net/core/somaxconn", "77"),
    "sysctl of the host": Case(linux(sysctl={"kernel.panic": "77"}), refused="kernel.panic"),
    "filter": Case(
        seccomp(
            "SCMP_ACT_ALLOW",
            {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"],
            flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            defaultErrnoRet=1,
        ),
        "mkdir /tmp/x 2>&1 || true",
        "No space left",
    ),
    "filter of arguments": Case(
        seccomp(
            "SCMP_ACT_ALLOW",
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 13,
                "args": [{"index": 1, "value": 0xFF, "valueTwo": 10, "op": "SCMP_CMP_MASKED_EQ"}],
            },
        ),
        "kill -USR1 1 2>&1 || true; kill -CONT 1 && echo sent",
        "Permission denied\nsent",
    ),
    "root's propagation": Case(
        linux(rootfsPropagation="rprivate"), "grep ' / / ' /proc/self/mountinfo | grep -c master || true", "0"
    ),
    "root is shared": Case(
        linux(rootfsPropagation="shared"), "grep ' / ' /proc/self/mountinfo", "shared:"
    ),
    "masks": Case(
        linux(maskedPaths=["/etc/hidden", "/data"], readonlyPaths=["/proc/sys"]),
        "cat /etc/hidden; ls /data | wc -l; echo 1 > /proc/sys/net/ipv4/ip_forward; true",
        "0\n(.|\n)*Read-only",
    ),
    "personality": Case(
        linux(personality={"domain": "LINUX32"}), "uname -m", "i686", ),
    "personality's flags": Case(
        linux(personality={"domain": "LINUX", "flags": ["MOON"]}), refused="$.linux.personality.flags"
    ),
}  # fmt: skip
if ONLY_UNIFIED:
    CASES = unified(CASES)
