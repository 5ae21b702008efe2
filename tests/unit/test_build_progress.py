"""A build's progress: warnings are told once, and are no steps."""

from __future__ import annotations

import io

import pytest

from trivet.cli.build_progress import LiveBuild, PlainBuild
from trivet.client.schema import Progress

STEPS = [
    Progress(id="warning 3 StageNameCasing", status="StageNameCasing: stage name 'A' should be lowercase"),
    Progress(id="[base 1/1]", status="COPY a b"),
    Progress(id="[base 1/1]", status="COPY a b · done"),
]


@pytest.mark.parametrize("kind", [PlainBuild, LiveBuild])
def test_a_warning_is_told_once(kind: type[PlainBuild | LiveBuild]) -> None:
    """Its rule stands in front of it, once; it counts neither as a step that was done nor as one that wasn't."""
    output = io.StringIO()
    display = kind(output)
    for step in STEPS:
        display.show(step)
    display.close()
    last = output.getvalue().rpartition("\x1b[J")[2]
    assert "warning: StageNameCasing: stage name 'A' should be lowercase" in last
    assert last.count("StageNameCasing") == 1
    if kind is LiveBuild:
        assert last.startswith("[+] Built ")
        assert "(1/1)\n" in last
