"""Directories of the host inside a machine."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.conformance.harness import Harness

from trivet.base.error import NotFound
from trivet.isolation.plan import Mount, Security
from trivet.kernel import capability

pytestmark = pytest.mark.vm

PRIVILEGED = Security(capabilities=capability.DEFAULT, privileged=True, seccomp="unconfined")


def test_both_sides_see_changes_at_once(machine: Harness, tmp_path: Path) -> None:
    """What either side writes while the machine runs, the other reads at once; renames and sizes included."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "word").write_text("one")
    script = "while read name; do cat /data/$name; echo; echo from-guest-$name > /data/answer; done"
    session = machine.start(
        "sh", "-c", script, stdin=True, mounts=(Mount(kind="bind", source=str(shared), target="/data"),)
    )
    session.channel.write(b"word\n")
    session.until(b"one\n")
    (shared / "word").write_text("a longer word")
    (shared / "word").rename(shared / "renamed")
    session.channel.write(b"renamed\n")
    session.until(b"a longer word\n")
    _eventually((shared / "answer"), "from-guest-renamed\n")


def test_read_only_holds_against_root_inside(machine: Harness, tmp_path: Path) -> None:
    """A read-only volume can't be written by a guest that has every right and remounts it."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "canary").write_text("alive")
    script = "mount -o remount,rw /data; echo dead > /data/canary; touch /data/new; cat /data/canary"
    mounts = (Mount(kind="bind", source=str(shared), target="/data", read_only=True),)
    result = machine.shell(script, security=PRIVILEGED, mounts=mounts)
    assert result.text == "alive"
    assert (shared / "canary").read_text() == "alive"
    assert not (shared / "new").exists()


def test_single_file_and_its_neighbours(machine: Harness, tmp_path: Path) -> None:
    """A file is shared alone: its neighbours on the host are nowhere in the guest."""
    (tmp_path / "shown").write_text("shown")
    (tmp_path / "hidden").write_text("hidden")
    mounts = (Mount(kind="bind", source=str(tmp_path / "shown"), target="/etc/shown"),)
    result = machine.shell("cat /etc/shown; echo more >> /etc/shown; find / -xdev -name hidden", mounts=mounts)
    assert result.text == "shown"
    assert (tmp_path / "shown").read_text() == "shownmore\n"


def test_missing_source_is_told(machine: Harness, tmp_path: Path) -> None:
    """A host path that isn't there is named before anything boots."""
    mounts = (Mount(kind="bind", source=str(tmp_path / "nowhere"), target="/data"),)
    with pytest.raises(NotFound, match="nowhere"):
        machine.start("true", mounts=mounts)


def _eventually(path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < deadline, f"{path} never said {text!r}"
        time.sleep(0.02)
