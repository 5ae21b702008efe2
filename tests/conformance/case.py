"""A field tried: what is set, what is then seen; and where that looks otherwise because version 2 is all there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path("/sys/fs/cgroup")
ONLY_UNIFIED = (ROOT / "cgroup.controllers").exists()
MEBIBYTE = 1 << 20


class Case(NamedTuple):
    """What is changed in the example, what the program then prints, or what the refusal says."""

    changes: dict[str, Any]
    script: str = "true"
    prints: str = ""
    refused: str = ""
    where: str | None = None  # a cgroup controller, without which it is refused
    warned: tuple[str, ...] = ()  # what a warning names


def resources(**fields: Any) -> dict[str, Any]:
    return {"linux": {"resources": fields}}


def block_device() -> dict[str, int]:
    """Any block device that limits can be set for."""
    found = sorted(Path("/sys/block").glob("vd*/dev")) if ONLY_UNIFIED else []
    major, minor = found[0].read_text().split(":") if found else ("7", "0")
    return {"major": int(major), "minor": int(minor)}


def show(*files: str) -> str:
    return "cd /sys/fs/cgroup; cat " + " ".join(files)


BLOCK = block_device()
NUMBER = f"{BLOCK['major']}:{BLOCK['minor']}"


def unified(cases: dict[str, Case]) -> dict[str, Case]:
    """Put what version 2 does in the place of what version 1 does."""
    return cases | {name: cases[name]._replace(where=None, **fields) for name, fields in _UNIFIED.items()}


_UNIFIED: dict[str, dict[str, Any]] = {
    "device rules": {"script": "echo ok", "prints": "ok"},  # a program, tried by test_runtime_unified.py
    "control group": {"prints": "^0::/$"},
    "memory": {
        "script": show("memory.max", "memory.low", "memory.swap.max"),
        "prints": f"{64 * MEBIBYTE}\n{32 * MEBIBYTE}\n{64 * MEBIBYTE}",
    },
    "memory, further": {"refused": "$.linux.resources.memory.kernelTCP"},
    "processor": {
        "script": show("cpu.weight", "cpu.max", "cpu.max.burst", "cpuset.cpus", "cpuset.mems"),
        "prints": "12\n50000 100000\n1000\n0\n0",
    },
    "processor, idle": {"script": show("cpu.idle")},
    "processor, real time": {"refused": "$.linux.resources.cpu.realtimeRuntime"},
    "block devices": {
        "script": show("io.max"),
        "prints": NUMBER + "".join(f" {name}=1048576" for name in ("rbps", "wbps", "riops", "wiops")),
    },
    "weight": {"script": show("io.weight"), "prints": "default 910"},
    "leaf weight": {"refused": "$.linux.resources.blockIO.leafWeight"},
    "weight of a device": {
        "changes": resources(blockIO={"weightDevice": [{**BLOCK, "weight": 100}]}),
        "refused": "io.weight",  # no cost model is set up for the device
    },
    "leaf weight of a device": {"refused": "$.linux.resources.blockIO.weightDevice[].leafWeight"},
    "huge pages": {
        "changes": resources(hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MEBIBYTE}]),
        "script": show("hugetlb.2MB.max"),
    },
    **{
        name: {"script": show("pids.max")}
        for name in (
            "processes",
            "processes, without a limit",
            "processes, nothing said",
            "processes, none more",
            "processes, 0 as it was",
        )
    },
    "RDMA": {"refused": "rdma.max"},
    "unified": {"script": show("memory.high"), "prints": "999424", "refused": ""},
}
