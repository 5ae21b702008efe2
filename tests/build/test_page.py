"""docs/build.md tells of every instruction, flag and option, and names tests that exist."""

from __future__ import annotations

import re

from tests.repo.tree import ROOT

from trivet.build.dockerfile import _READERS
from trivet.build.flag import FLAGS
from trivet.cli.build import COMMANDS

ROWS = [line.split("|")[1:-1] for line in (ROOT / "docs/build.md").read_text().splitlines() if line.startswith("| ")]
STATES = {"done", "differs", "refused", "absent"}


def test_every_row_names_its_tests() -> None:
    """Every row has a state, and tests that exist unless the thing itself doesn't."""
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    existing = set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
    rows = [row for row in ROWS if row[1].strip() in STATES]
    assert len(rows) > 40
    for name, state, _, tests in rows:
        named = set(re.findall(r"test_\w+", tests))
        assert named <= existing, name
        assert named or state.strip() == "absent", name


def test_nothing_is_left_out() -> None:
    """Every instruction with its flags, and every option of the command, has a row."""
    first = "\n".join(row[0] for row in ROWS) + "\n".join(row[2] for row in ROWS)
    assert [keyword for keyword in _READERS if not re.search(rf"`{keyword}\b", first)] == []
    assert [name for flags in FLAGS.values() for name in flags if f"--{name}" not in first] == []
    names = {name for option in COMMANDS["build"].options for name in option.names if name.startswith("--")}
    assert {name for name in names - {"--json"} if name not in first} == set()
