"""The version, which is told in two places."""

from __future__ import annotations

import tomllib

from tests.repo.tree import ROOT

from trivet.base.version import VERSION


def test_the_version_is_that_of_the_package() -> None:
    """What the programs tell is what the package is called."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
