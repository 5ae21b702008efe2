"""Launch plans as golden files: one per feature, so that a change is read as a difference.

`TRIVET_REGENERATE=1` writes them anew; read the diff.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.base.error import Denied, InvalidArgument, TrivetError, Unsupported
from trivet.isolation import specification
from trivet.isolation.plan import (
    Address,
    Attachment,
    Level,
    Limits,
    Log,
    Mount,
    Plan,
    Program,
    Rlimit,
    Root,
    Security,
)
from trivet.kernel import capability
from trivet.kernel.cgroup_record import Hierarchy
from trivet.launch.operation import Monitor, Operation, encode
from trivet.oci import runtime as oci
from trivet.runtime import enter, plan, resource
from trivet.runtime.setting import Setting

GOLDEN = Path(__file__).parent / "golden"
HIERARCHIES = (Hierarchy(version=1, mount="/sys/fs/cgroup/memory", controllers=("memory",)),)
SETTING = Setting(root="/run/x/root", monitor=Monitor("/run/x", log="/var/x/log"), hierarchies=HIERARCHIES, user="")

BASE = Plan(
    id="x",
    name="web",
    level=Level.CONTAINER,
    program=Program(argv=("serve", "-v"), env=("PATH=/bin",)),
    root=Root(form="mount", lowers=("/layer",), upper="/upper", work="/work"),
    directory="/run/x",
    cgroup="trivet/x",
    log=Log(path="/var/x/log"),
    security=Security(capabilities=capability.DEFAULT),
    attachments=(Attachment(kind="none", network="none"),),
    hostname="web",
)
NETWORK = Attachment(
    kind="netns",
    network="bridge",
    device="veth1",
    path="/run/netns/x",
    addresses=(Address(address="10.88.0.2/16", gateway="10.88.0.1"),),
)
MOUNTS = (
    Mount(kind="bind", source="/srv/data", target="/data", read_only=True),
    Mount(kind="tmpfs", target="/scratch", size=1 << 20, mode=0o700),
    Mount(kind="bind", source="/srv/shared", target="/shared", propagation="rslave", recursive=False),
)

CASES: dict[str, oci.Spec] = {
    "container": specification.contained(BASE),
    "container-privileged": specification.contained(
        msgspec.structs.replace(BASE, security=Security(capabilities=(), privileged=True)),
        devices=(oci.Device(type="b", path="/dev/sda", major=8, minor=0),),
    ),
    "container-host-network": specification.contained(
        msgspec.structs.replace(BASE, attachments=(Attachment(kind="host", network="host"),))
    ),
    "container-network": specification.contained(msgspec.structs.replace(BASE, attachments=(NETWORK,))),
    "container-terminal": specification.contained(
        msgspec.structs.replace(BASE, program=Program(argv=("sh",), terminal=True, rows=24, columns=80))
    ),
    "container-mounts": specification.contained(msgspec.structs.replace(BASE, mounts=MOUNTS)),
    "container-read-only": specification.contained(
        msgspec.structs.replace(
            BASE,
            root=msgspec.structs.replace(BASE.root, read_only=True),
            rlimits=(Rlimit("NOFILE", 100, -1),),
            sysctls=(("net.core.somaxconn", "99"),),
        )
    ),
    "process": specification.bare(msgspec.structs.replace(BASE, mounts=MOUNTS)),
}


MOUNT_ONLY = (oci.Namespace(type="mount"),)


def _linux(**changes: Any) -> oci.Linux:
    return msgspec.structs.replace(CASES["container"].linux or oci.Linux(), **changes)


def show(steps: list[Operation]) -> str:
    """Render a plan as `--dry-run` does."""
    encode(steps)
    return "".join(f"{step.describe()}\n" for step in steps)


def compare(name: str, text: str) -> None:
    """Compare with the golden file, or write it."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("TRIVET_REGENERATE"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", CASES)
def test_launch_plan(name: str) -> None:
    """The plan of each feature is what was reviewed."""
    attachments = (NETWORK,) if name == "container-network" else ()
    setting = msgspec.structs.replace(SETTING, network=specification.network(attachments))
    compare(name, show(plan.launch(CASES[name], setting)))


def test_exec_plan() -> None:
    """The plan that adds a program to a container is what was reviewed."""
    program = Program(argv=("sh",), user="ann", terminal=True, rows=24, columns=80)
    process = specification.process(program, BASE.security, BASE)
    linux = oci.Linux(seccomp=specification.filtering(BASE.security))
    setting = Setting(root="/", monitor=Monitor("/run/x/exec/1", linger=1), user="ann")
    kinds = ("mount", "pid", "uts", "ipc", "cgroup", "network")
    compare("exec", show(enter.operations(process, linux, setting, 4711, kinds)))


def test_limits_become_resources() -> None:
    """Limits are translated once, swap counting memory and swap together; freed where a change asks for it."""
    limits = Limits(memory=64 << 20, cpus=1.5, pids=10, cpuset="0-1", cpu_shares=512)
    made = resource.resources(specification.resources(limits, ()))
    assert (made.memory, made.swap, made.quota, made.period, made.pids) == (64 << 20, 128 << 20, 150000, 100000, 10)
    assert (made.cpus, made.shares) == ("0-1", 512)
    freed = resource.resources(specification.resources(Limits(), (), reset=True))
    assert (freed.memory, freed.swap, freed.quota, freed.pids, freed.shares) == (-1, -1, -1, -1, 1024)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"process": None}, InvalidArgument, "no process"),
        ({"process": oci.Process(cwd="relative", args=("a",))}, InvalidArgument, "'relative'"),
        ({"process": oci.Process(cwd="/")}, InvalidArgument, "process.args"),
        ({"mounts": (oci.Mount(destination="data", type="tmpfs"),)}, InvalidArgument, "'data'"),
        (
            {"mounts": (oci.Mount(destination="/d", source="/s", options=("bind", "idmap")),)},
            InvalidArgument,
            "/d needs",
        ),
        ({"linux": oci.Linux()}, Unsupported, "mount namespace"),
        ({"linux": oci.Linux(namespaces=(oci.Namespace(type="user"),))}, InvalidArgument, "uidMappings"),
        ({"linux": _linux(sysctl={"kernel.core_pattern": "|/x"})}, Denied, "kernel.core_pattern"),
        ({"linux": _linux(sysctl={"net/../kernel/panic": "1"})}, InvalidArgument, "net/../kernel/panic"),
        ({"linux": _linux(sysctl={"net...kernel.panic": "1"})}, InvalidArgument, "kernel.panic"),
        ({"linux": oci.Linux(namespaces=MOUNT_ONLY, sysctl={"net.core.somaxconn": "1"})}, Denied, "somaxconn"),
        ({"linux": _linux(rootfs_propagation="sideways")}, InvalidArgument, "sideways"),
        (
            {"process": oci.Process(cwd="/", args=("a",), rlimits=(oci.Rlimit(type="RLIMIT_X", soft=1, hard=1),))},
            InvalidArgument,
            "RLIMIT_X",
        ),
    ],
)
def test_bad_configuration_is_refused(change: dict[str, object], error: type[Exception], words: str) -> None:
    """A configuration that can't be carried out is refused by the part that is wrong, before anything is done."""
    spec = msgspec.structs.replace(CASES["container"], hostname="", **change)
    with pytest.raises(error, match=words):
        plan.launch(spec, SETTING)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 70), 1 << 70),
        st.text(max_size=8),
        st.sampled_from(["/", "..", "/../x", "\0", "SCMP_ACT_ALLOW", "bind", "mount"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300)
@given(data=st.data())
def test_hostile_configuration_never_crashes(data: st.DataObject) -> None:
    """Whatever stands at whichever place of a config.json, it becomes a plan or one of our errors."""
    config = json.loads(oci.encode(CASES["container-mounts"]))
    place: Any = config
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 3)) == 0:
            place[key] = data.draw(JSON)
            break
        place = inner
    with suppress(TrivetError):
        steps = plan.launch(oci.decode(json.dumps(config).encode()), msgspec.structs.replace(SETTING, user=None))
        with suppress(ValueError, OverflowError):  # NUL bytes and giant numbers: refused when a plan is encoded
            show(steps)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"{", "truncated"),
        (b"[]", "expected `object`"),
        (b"{}", "ociVersion"),
        (b'{"ociVersion": 1}', "$.ociVersion"),
        (b'{"ociVersion": "1", "mounts": [{"destination": "/", "options": [1]}]}', "$.mounts[0].options[0]"),
        (b'{"ociVersion": "1", "linux": {"namespaces": [{"type": "moon"}]}}', "$.linux.namespaces[0].type"),
        (b'{"ociVersion": "1", "process": {"cwd": "/", "user": {"uid": "0"}}}', "$.process.user.uid"),
        (b'{"a":' * 100_000, "recursion"),
    ],
)
def test_malformed_configuration_names_the_place(raw: bytes, path: str) -> None:
    """A config.json that isn't one is refused with the JSON path of the first mistake."""
    with pytest.raises(oci.InvalidSpec) as caught:
        oci.decode(raw)
    assert path.lower() in str(caught.value).lower()
