"""The same digest on another day, host, file system and in another order of names."""

from __future__ import annotations

import subprocess
import sys

import pytest
from bench.dockerfiles import LARGE, SMALL
from tests.build.workshop import Content, Workshop, make_tar
from tests.repo.tree import ROOT

pytestmark = pytest.mark.needs("root")

FILES: dict[str, Content] = {"a": b"a", "d/b": b"b"}


def test_there_are_thirty() -> None:
    """`python -m bench.reproduce` builds thirty Dockerfiles, all different."""
    assert len({case.dockerfile for case in (*SMALL, *LARGE)}) == 30


@pytest.mark.needs("faketime", "taskset", "unshare")
def test_two_surroundings() -> None:
    """Two engines with nothing in common but the input give the same digests."""
    command = [sys.executable, "-m", "bench.reproduce", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(SMALL)} of {len(SMALL)} the same" in done.stdout


def test_what_is_not_deterministic_differs(workshop: Workshop) -> None:
    """A command that reads the clock or a random number isn't hidden: it gives another digest each time."""
    dockerfile = "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /r"
    assert workshop.build(dockerfile).id != workshop.build(dockerfile, no_cache=True).id


def test_dates(workshop: Workshop) -> None:
    """Without SOURCE_DATE_EPOCH everything is dated as the base image, also what a RUN writes."""
    built = workshop.build("FROM base\nCOPY . /x/\nRUN echo > /made; busybox touch -d 2038-01-01 /late", FILES)
    files = [file for layer in built.layers[1:] for file in layer.values()]
    assert {file.info.mtime for file in files} == {workshop.dated}
    assert {entry.created for entry in built.image.history or () if entry.created_by.startswith(("COPY", "RUN"))} == {
        built.image.created
    }


def test_archives_keep_their_dates(workshop: Workshop) -> None:
    """What ADD unpacks keeps the times of the archive, which are part of the input; what follows is dated by it."""
    new = 1_200_000_000
    lines = "FROM scratch\nADD a.tar /x/\nCOPY f /made"
    built = workshop.build(lines, {"a.tar": make_tar({"in": b"1"}, mtime=new), "f": b""})
    assert (built.files["x/in"].info.mtime, built.files["made"].info.mtime) == (new, new)


def test_the_epoch_is_told_to_commands(workshop: Workshop) -> None:
    """RUN sees SOURCE_DATE_EPOCH, as asked for or else the base image's date; the image doesn't."""
    dockerfile = "FROM base\nRUN echo $SOURCE_DATE_EPOCH"
    assert workshop.build(dockerfile).output == f"{workshop.dated}\n"
    built = workshop.build(dockerfile, timestamp=1234)
    assert built.output == "1234\n"
    assert built.image.created == "1970-01-01T00:20:34Z"
    assert not any(item.startswith("SOURCE_DATE_EPOCH") for item in built.config.env or ())


def test_times_beside_a_cache(workshop: Workshop) -> None:
    """Where a RUN shows a cache, steps see the real times, as make and cargo need; the layer has the others."""
    dockerfile = "FROM base\nCOPY a /a\nRUN --mount=type=cache,target=/c stat -c %Y /a"
    soon = workshop.dated + 50
    built = workshop.build(dockerfile, FILES, mtime=soon)
    assert built.output == f"{soon}\n"
    assert built.files["a"].info.mtime == workshop.dated
    lines = ["FROM base AS b", "COPY a /a", "RUN --mount=type=cache,target=/c true", "FROM base"]
    lines += ["COPY --from=b /a /x", "RUN stat -c %Y /x"]
    assert workshop.build("\n".join(lines), FILES, mtime=soon + 1).output == f"{workshop.dated}\n"
