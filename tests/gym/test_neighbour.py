"""Other users of the host: what the engine keeps and where it listens is not for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.gym.ring import Ring

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def places(ring: Ring) -> Iterator[list[Path]]:
    """Where the engine keeps things; the modes of it are put back."""
    found = [ring.directory / "trivet" / name for name in ("root", "run")]
    modes = [path.stat().st_mode for path in found]
    yield found
    for path, mode in zip(found, modes, strict=True):
        path.chmod(mode)


def seen(ring: Ring, places: list[Path]) -> list[str]:
    """List the files that another user of the host can find."""
    return ring.host.run(*NOBODY, "find", *places, "-mindepth", "1").stdout.splitlines()


def test_row_18_nobody_finds_anything(ring: Ring, places: list[Path]) -> None:
    """Another user finds no file of the engine's, which he would if its directories were open (CVE-2021-41091)."""
    assert seen(ring, places) == []
    for path in places:
        path.chmod(0o755)
    assert seen(ring, places) != []


def test_row_18_nobody_may_speak(ring: Ring, places: list[Path]) -> None:
    """Another user can't connect to the engine, also where its directory was opened for him (CVE-2024-25621)."""
    socket = str(places[1] / "trivet.sock")
    words = ("engine", socket)
    assert ring.host.run(ring.host.program, *words).returncode == 0
    assert ring.host.run(*NOBODY, ring.host.program, *words).returncode == 1
    places[1].chmod(0o755)
    assert ring.host.run(*NOBODY, ring.host.program, *words).returncode == 1


def test_row_17_nothing_listens_without_a_path(ring: Ring) -> None:
    """Neither the engine nor its monitors have abstract sockets, which a shared network would show (CVE-2020-15257)."""
    assert [line for line in ring.host.read("net/unix").splitlines() if " @" in line] == []
