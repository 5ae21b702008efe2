"""Row 23: names inside change places while files are copied in and out (CVE-2018-15664, CVE-2026-42306)."""

from __future__ import annotations

import io
import tarfile
from contextlib import suppress

import pytest
from tests.gym.attack import Attack, Proof, Weakening
from tests.gym.ring import Ring
from tests.gym.subject.trivet import Trivet

from trivet.base.error import TrivetError

TIMES = 20


def _tar(name: str, content: bytes) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


@pytest.mark.parametrize("link", ["link", "dots"])
@pytest.mark.parametrize("opened", [True, False], ids=["opened", "real"])
def test_copies_stay_inside(ring: Ring, link: str, opened: bool) -> None:
    """Copies into and out of a directory that is a link to the host every other moment never reach the host's.

    Where the host's directory is shown at its own path inside, both do: the race is one that can be won.
    """
    assert isinstance(ring.engine, Trivet)
    instances = ring.engine.client.instances
    with ring.canary() as canary:
        words = canary.words()
        (canary.directory / "target/secret").write_text(canary.secret)
        swap = Attack(
            name="cp",
            row=23,
            reference="CVE-2018-15664",
            tries="change places",
            argv=("swap", "/shared/a", f"/shared/{link}"),
            options=("-v", "{shared}:/shared", "-v", "{dir}/target:{dir}/target"),
            beside=("swap", "/shared/a", f"/shared/{link}"),
            proof=Proof.CHANGED,
            weak=Weakening(),
        )
        seen = b""
        with ring.engine.beside(swap, words, 4 if opened else 2) as name:
            for number in range(TIMES):
                with suppress(TrivetError):
                    instances.write_archive(name, "/shared/a", _tar(f"made{number}", b"owned"))
                with suppress(TrivetError), instances.read_archive(name, "/shared/a/secret") as answer:
                    seen += answer.read()
        made = [path.name for path in (canary.directory / "target").iterdir() if path.name != "secret"]
        assert bool(made) == opened
        assert (canary.secret.encode() in seen) == opened
