"""Certificates for the fleet's store, by the files they are in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.store import Authority

from trivet.base.error import InvalidArgument
from trivet.store.credential import Credentials

pytestmark = pytest.mark.needs("openssl")


def test_files_that_change(tmp_path: Path) -> None:
    """A renewed certificate is used for the next connection; files that are half written leave the last ones in use."""
    ours = Authority(tmp_path / "authority")
    certificate, key = ours.sign("engine")
    made = Credentials(str(ours.file), str(certificate), str(key))
    first = made.context()
    assert made.context() is first
    key.write_text("half of")
    assert made.context() is first
    ours.sign("engine")
    assert made.context() is not first


def test_files_that_are_none(tmp_path: Path) -> None:
    """The file that can't be used is named, and a key that isn't the certificate's is told."""
    ours, others = Authority(tmp_path / "authority"), Authority(tmp_path / "others")
    certificate, _ = ours.sign("engine")
    for files, words in (
        ((str(tmp_path / "none"), "", ""), "none: No such file"),
        ((str(tmp_path / "authority" / "more"), "", ""), "more: no certificate"),
        (("", str(certificate), str(others.sign("engine")[1])), "no certificate assigned|key values mismatch"),
        (("", "", str(certificate)), "without its certificate"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            Credentials(*files)
