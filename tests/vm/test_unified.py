"""What needs version 2 of control groups, or systemd as PID 1, run in a guest that has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.vm import unified
from tests.vm.unified import Kind

from trivet.isolation import provision

FILES = {
    Kind.PLAIN: ["tests/conformance/test_runtime_unified.py", "-k", "not systemd_inside"],
    Kind.SYSTEMD: ["tests/conformance/test_runtime_systemd.py"],
}
MORE = os.environ.get("TRIVET_UNIFIED", "")
"""More files, or other words for pytest, for `make test-unified`; they take minutes under emulation."""

pytestmark = [pytest.mark.vm, pytest.mark.needs("root", "mmdebstrap", "mkfs.erofs")]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", Kind)
def test_in_a_guest(kind: Kind, tmp_path: Path) -> None:
    """The tests that need such a machine pass in one, and none of them is left out."""
    missing, _ = provision.lacks()
    if missing:
        pytest.skip(f"a guest needs {', '.join(missing)}")
    # Plugins and the fixtures of other tests would take an emulated machine longer to load than these tests to run.
    words = ["--noconftest", "-p", "tests.runtime", "-p", "no:cacheprovider", "-q", "-rs", "--durations=5"]
    command = [".venv/bin/python", "-m", "pytest", *words, *(MORE.split() or FILES[kind])]
    answer = unified.run(kind, ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", *command], tmp_path, seconds=1500)
    print(answer.output)
    assert answer.code == 0, answer.output
    assert MORE or "skipped" not in answer.output
