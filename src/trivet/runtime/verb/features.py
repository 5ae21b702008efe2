"""features: say what this runtime can do (runtime-spec, features.md)."""

from __future__ import annotations

import argparse
import platform
import sys

import msgspec

from trivet.kernel import capability
from trivet.oci import runtime as oci
from trivet.runtime import bpf, mount, namespace, property, schedule, seccomp


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(features()), indent=2).decode() + "\n")
    return 0


def features() -> dict[str, object]:
    """Build the answer."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": oci.VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": sorted(mount.WORDS),
        "linux": {
            "namespaces": sorted(namespace.FLAGS),
            "capabilities": list(capability.ALL),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": platform.machine() in seccomp.COMPATIBLE,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(bpf.OPERATORS),
                "archs": sorted(seccomp.COMPATIBLE.get(platform.machine(), ())),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
            "memoryPolicy": {
                "modes": sorted(schedule.MEMORY_MODES),
                "flags": sorted(schedule.MEMORY_FLAGS),
            },
        },
        "potentiallyUnsafeConfigAnnotations": [property.PREFIX],
    }
