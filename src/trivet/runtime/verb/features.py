"""features: say what this runtime can do (runtime-spec, features.md)."""

from __future__ import annotations

import argparse
import platform
import sys

import msgspec

from trivet.kernel import capability, cgroup
from trivet.oci import runtime as oci
from trivet.runtime import bpf, mount, namespace, seccomp


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(arguments: argparse.Namespace) -> int:
    """Do it."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(features()), indent=2).decode() + "\n")
    return 0


def features() -> dict[str, object]:
    """Build the answer."""
    versions = {hierarchy.version for hierarchy in cgroup.detect().hierarchies}
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": oci.VERSION,
        "hooks": [],
        "mountOptions": sorted(mount.WORDS),
        "linux": {
            "namespaces": sorted(set(namespace.FLAGS) - {"user", "time"}),
            "capabilities": list(capability.available()),
            "cgroup": {"v1": 1 in versions, "v2": 2 in versions, "systemd": False, "systemdUser": False, "rdma": False},
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
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": False}},
        },
    }
