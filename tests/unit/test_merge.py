"""Like pages kept once: what the kernel is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivet.base.error import Unsupported
from trivet.engine.capacity import merge


@pytest.mark.parametrize(
    ("run", "mode", "then"),
    [("0\n", "[none] scan-time", ("1", "scan-time")), ("1\n", "[none] scan-time", ("1\n", "[none] scan-time"))],
)
def test_the_pace_is_the_kernels_unless_somebody_chose_it(
    tmp_path: Path, run: str, mode: str, then: tuple[str, str]
) -> None:
    """It is switched on at a pace of its own; where it runs already nothing is changed."""
    (tmp_path / "run").write_text(run)
    (tmp_path / "advisor_mode").write_text(mode)
    merge.switch_on(tmp_path)
    assert ((tmp_path / "run").read_text(), (tmp_path / "advisor_mode").read_text()) == then


def test_a_kernel_without_a_pace_or_without_all_of_it(tmp_path: Path) -> None:
    """Before Linux 6.8 it is switched on all the same; a kernel that can't is named."""
    with pytest.raises(Unsupported, match=r"cannot have like pages kept once: .*/run: No such file"):
        merge.switch_on(tmp_path)
    (tmp_path / "run").write_text("0\n")
    (tmp_path / "advisor_mode").mkdir()
    merge.switch_on(tmp_path)
    assert (tmp_path / "run").read_text() == "1"
