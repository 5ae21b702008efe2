"""Every field of the runtime-spec, 1.3.0: what it does, seen from inside, or by which name it is refused.

A field of the specification's list that no case sets fails the last test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from tests import newer
from tests.conformance import test_runtime_apart, test_runtime_hooks
from tests.conformance.case import Case
from tests.conformance.field import FIELDS
from tests.conformance.field_case import CASES, linux, process
from tests.conformance.peer import AFTER_RUNC_1_3, EXCEPTIONS, LATER, lack
from tests.runtime import Runtime, made

from trivet.oci.runtime import Spec

NAMED = re.compile(
    r"^(annotations|linux\.sysctl|linux\.resources\.unified|freebsd|solaris|windows|zos)\..+|^(linux\.(?:timeOffsets|netDevices|resources\.rdma))\.[^.]*"
)


@pytest.mark.parametrize("name", CASES)
def test_field(runtime: Runtime, name: str) -> None:
    """A field does what the specification says, or is refused with its path; nothing is left behind."""
    attempt(runtime, CASES[name])


@pytest.mark.parametrize(("peer", "name"), [(peer, name) for peer in EXCEPTIONS for name in CASES])
def test_field_of_a_peer(tmp_path: Path, peer: str, name: str) -> None:
    """The same is true of runc and crun, where they implement the field: the test asks for what everybody means."""
    reason = lack(peer) or EXCEPTIONS[peer].get(name)
    if reason:
        pytest.skip(reason)
    for other in made(peer, tmp_path):
        attempt(other, CASES[name])


@pytest.mark.parametrize("name", [name for name, why in EXCEPTIONS["runc"].items() if why == LATER])
def test_field_of_a_newer_runc(tmp_path: Path, name: str) -> None:
    """What the distribution's runc is too old for is true of a newer one: 1.3, which implements 1.2.1 of the text."""
    if name in AFTER_RUNC_1_3:
        pytest.skip("newer than that one's specification, too")
    for other in made(newer.program("runc", "/usr/sbin/runc", shown=True), tmp_path):
        attempt(other, CASES[name])


def test_exceptions_are_of_fields() -> None:
    """No exception outlives its case."""
    assert {name for table in EXCEPTIONS.values() for name in table} - set(CASES) == set()


def attempt(runtime: Runtime, case: Case) -> None:
    """Try one case."""
    (runtime.bundle / "rootfs/etc/hidden").write_text("hidden")
    (runtime.bundle / "rootfs/data/file").write_text("")
    changes = case.changes
    argv = changes.get("process", {}).get("args") or ["sh", "-c", f"exec 2>&1; {case.script}"]
    runtime.change(changes, *argv)
    if case.changes.get("process", {}).get("terminal"):
        config = json.loads((runtime.bundle / "config.json").read_text())
        config["process"]["terminal"] = True
        (runtime.bundle / "config.json").write_text(json.dumps(config))
    done = runtime("run", runtime.id)
    assert b"Traceback" not in done.stderr
    missing = case.where is not None and not Path("/sys/fs/cgroup", case.where).exists()
    if case.refused or missing:
        assert done.returncode == 1, done
        assert (case.refused or str(case.where).split("/")[-1]) in done.stderr.decode()
    else:
        assert done.returncode == 0, done
        assert re.search(case.prints, done.stdout.decode()), done
        assert [name for name in case.warned if f"{name} is another platform's" not in done.stderr.decode()] == []
    assert runtime.left() == []


ELSEWHERE: dict[str, tuple[Callable[..., None], Any]] = {
    "hooks": (test_runtime_hooks.test_hooks, {"hooks": test_runtime_hooks.HOOKS}),
    "listener": (test_runtime_apart.test_listener, linux(seccomp={"listenerPath": "", "listenerMetadata": ""})),
    "interface": (test_runtime_apart.test_interface, linux(netDevices={"ours": {"name": ""}})),
    "affinity": (test_runtime_apart.test_affinity_of_exec, process(execCPUAffinity={"initial": "", "final": ""})),
}


def paths(value: Any, at: str = "") -> Iterator[str]:
    """List the paths of all values, places in arrays and names in maps left open."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from paths(inner, f"{at}.{key}".lstrip("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from paths(inner, f"{at}[]")
    elif value is not None:
        yield NAMED.sub(lambda found: f"{found[1] or found[2]}.*", at)


def test_every_field_has_a_case() -> None:
    """No field of the specification goes without being tried, and none is made up."""
    changes = [case.changes for case in CASES.values()] + [changes for _, changes in ELSEWHERE.values()]
    tried = {path for change in changes for path in paths(change)}
    assert set(FIELDS) - tried == set()
    assert tried - set(FIELDS) == set()


def shape(kind: Any, at: str = "") -> Iterator[str]:
    """List the paths of all values that a type may hold."""
    inner = [one for one in get_args(kind) if one not in (type(None), Ellipsis)]
    if get_origin(kind) in (Union, UnionType):
        yield from shape(inner[0], at)
    elif get_origin(kind) is tuple and isinstance(inner[0], type) and issubclass(inner[0], msgspec.Struct):
        yield from shape(inner[0], f"{at}[]")
    elif get_origin(kind) is dict:
        yield from shape(inner[1], f"{at}.*")
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        for field in msgspec.structs.fields(kind):
            yield from shape(hints[field.name], f"{at}.{field.encode_name}".lstrip("."))
    else:
        yield at


def test_every_field_is_read() -> None:
    """The records that config.json is read into have the specification's fields, and no others."""
    told = {re.sub(r"^vm\..*", "vm.*", field) for field in FIELDS}  # refused as a whole
    assert set(shape(Spec)) == told
