"""What needs version 2 of control groups, or systemd as PID 1, run in a guest that has it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from tests.conformance.conftest import INSIDE
from tests.gym import program
from tests.native import compiled
from tests.vm import unified
from tests.vm.unified import Kind

from trivet.isolation import provision

# Plugins and the fixtures of other tests would take an emulated machine longer to load than few tests to run.
PLAIN = ("--noconftest", "-p", "tests.runtime")
NAMES = "tests/conformance/test_runtime_"


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """Tests for one guest; `skips` is how many of them may be left out, for a reason that they give."""

    name: str
    kind: Kind
    words: tuple[str, ...]
    long: bool = False  # minutes under emulation: for `make test-unified`
    skips: bool = False


COURSES = (
    Course(name="groups", kind=Kind.PLAIN, words=(*PLAIN, f"{NAMES}unified.py", "-k", "not systemd_inside")),
    Course(name="systemd", kind=Kind.SYSTEMD, words=(*PLAIN, f"{NAMES}systemd.py")),
    Course(
        name="levels", kind=Kind.PLAIN, words=("tests/conformance/test_driver_limit.py", "-k", "container and limit")
    ),
    Course(
        name="fields",
        kind=Kind.PLAIN,
        words=(*PLAIN, f"{NAMES}unified.py", f"{NAMES}fields.py", f"{NAMES}options.py"),
        long=True,
        skips=True,
    ),
    Course(
        name="fields with systemd",
        kind=Kind.SYSTEMD,
        words=(*PLAIN, f"{NAMES}unified.py", f"{NAMES}fields.py", f"{NAMES}options.py"),
        long=True,
        skips=True,
    ),
    Course(
        name="contract",
        kind=Kind.PLAIN,
        words=("tests/conformance", "-k", "test_driver and not vm"),
        long=True,
        skips=True,
    ),
    Course(name="gym", kind=Kind.PLAIN, words=("tests/gym",), long=True, skips=True),
)
# On a machine with enough else to do, emulation takes a multiple of its hour; without LONG all is done in minutes.
LIMIT = 4 * 3600
LONG = os.environ.get("TRIVET_UNIFIED", "")
"""`all`, or words for pytest in each guest: both by `make test-unified`."""

pytestmark = [pytest.mark.vm, pytest.mark.needs("root", "mmdebstrap", "mkfs.erofs", "musl-gcc")]


@pytest.mark.timeout(LIMIT + 300)
@pytest.mark.parametrize("course", COURSES, ids=lambda course: course.name)
def test_in_a_guest(course: Course, tmp_path: Path) -> None:
    """The tests that need such a machine pass in one, and none of them is left out."""
    if course.long and not LONG:
        pytest.skip("minutes under emulation: make test-unified")
    missing, _ = provision.lacks()
    if missing:
        pytest.skip(f"a guest needs {', '.join(missing)}")
    compiled("inside", [INSIDE / "inside.c"])  # there is no compiler in the guest
    compiled("gym", program.INSIDE.glob("*.c"))
    words = course.words if LONG in ("", "all") else (*PLAIN, *LONG.split())
    general = ["-p", "no:cacheprovider", "-q", "-rs", "--durations=5"]
    command = [".venv/bin/python", "-m", "pytest", *general, *words]
    answer = unified.run(course.kind, ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", *command], tmp_path, seconds=LIMIT)
    print(answer.output)
    assert answer.code == 0, answer.output
    assert course.skips or LONG or "skipped" not in answer.output
