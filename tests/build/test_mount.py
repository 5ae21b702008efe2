"""RUN --mount: what steps are shown, what stays, and what never gets into the image (SECURITY rows 36, 37, 39)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.build.workshop import Content, Workshop

from trivet.base.error import TrivetError
from trivet.build.error import BuildError

pytestmark = pytest.mark.needs("root")

CACHE = "--mount=type=cache,target=/var/cache/x"


def test_cache_outlives_the_build(workshop: Workshop) -> None:
    """A cache keeps its files from build to build, and leaves no trace in the layer."""
    first = workshop.build(f"FROM base\nRUN {CACHE},mode=700 echo first > /var/cache/x/f; stat -c %a /var/cache/x")
    assert first.output == "700\n"
    built = workshop.build(f"FROM base\nRUN {CACHE} cat /var/cache/x/f; touch /made")
    assert built.output == "first\n"
    assert set(built.layers[1]) == {"made"}


def test_cache_is_named_by_its_id(workshop: Workshop) -> None:
    """Two targets with one id share a cache, one target with two ids doesn't; ids are no paths."""
    workshop.build(f"FROM base\nRUN {CACHE},id=../../escape echo here > /var/cache/x/f")
    shared = workshop.build("FROM base\nRUN --mount=type=cache,target=/other,id=../../escape cat /other/f")
    assert shared.output == "here\n"
    assert workshop.build(f"FROM base\nRUN {CACHE},id=else ls /var/cache/x").output == ""
    assert {path.name for path in workshop.root.iterdir()} >= {"build"}
    assert not list(workshop.root.parent.glob("escape*"))


def test_locked_cache(workshop: Workshop) -> None:
    """Builds that lock a cache use it one after the other."""
    command = "test ! -e /var/cache/x/busy && touch /var/cache/x/busy && sleep 0.3 && rm /var/cache/x/busy"

    async def together() -> None:
        lines = [f"FROM base\nRUN {CACHE},id=locked,sharing=locked {command} && echo {name}" for name in "abc"]
        await asyncio.gather(*(workshop.building(line) for line in lines))

    asyncio.run(together())


def test_two_locked_caches(workshop: Workshop) -> None:
    """Steps that lock the same caches in another order, or one twice, don't wait for one another for ever."""
    one, two = (f"--mount=type=cache,sharing=locked,target=/{name}" for name in ("c1", "c2"))
    twice = "--mount=type=cache,sharing=locked,target=/c3,id=/c1"

    async def together() -> None:
        lines = (f"{one} {two} sleep 0.1", f"{two} {one} sleep 0.2", f"{one} {twice} sleep 0.3")
        await asyncio.gather(*(workshop.building(f"FROM base\nRUN {line}") for line in lines))

    asyncio.run(asyncio.wait_for(together(), 30))


def test_ordinary_users_reach_a_mount(workshop: Workshop) -> None:
    """A mount deep below directories that the image lacks can be used by a user other than root."""
    mount = "--mount=type=cache,target=/very/deep/cache,id=users,uid=1000,mode=700"
    built = workshop.build(f"FROM base\nUSER app\nRUN {mount} echo mine > /very/deep/cache/f && cat /very/deep/cache/f")
    assert built.output == "mine\n"
    assert len(built.layers) == 1


def test_tmpfs(workshop: Workshop) -> None:
    """Memory is shown with the size asked for, and what is written to it is gone."""
    line = "--mount=type=tmpfs,target=/scratch,size=1m dd if=/dev/zero of=/scratch/f bs=1M count=3"
    built = workshop.build(f"FROM base\nRUN {line} 2>&1; true")
    assert "No space left" in built.output
    assert len(built.layers) == 1


def test_bind(workshop: Workshop) -> None:
    """Files of the context, a stage or an image are shown read-only; with rw what is written is thrown away."""
    dockerfile = """
        FROM base AS one
        RUN mkdir /out && echo of the stage > /out/f && ln -s /out /link
        FROM base
        WORKDIR /w
        RUN --mount=target=/ctx cat /ctx/a /ctx/d/b; touch /ctx/x || echo read-only
        RUN --mount=type=bind,source=a,dst=rel cat /w/rel
        RUN --mount=from=one,source=/link,target=/s cat /s/f
        RUN --mount=from=base,source=/etc/passwd,target=/etc/shadow,rw echo gone > /etc/shadow; cat /etc/shadow
    """
    files: dict[str, Content] = {"a": b"A\n", "d/b": b"B\n"}
    built = workshop.build(dockerfile, files)
    assert built.output.replace("touch: /ctx/x: Read-only file system\n", "") == (
        "A\nB\nread-only\nA\nof the stage\ngone\n"
    )
    assert [set(layer) for layer in built.layers[1:]] == [{"w"}]
    again = workshop.build(dockerfile, files)
    assert again.run == 0
    assert workshop.build(dockerfile, {**files, "a": b"changed\n"}).run == 2


def test_traps(workshop: Workshop, tmp_path: Path) -> None:
    """Targets and sources that are links to the host change and show nothing of it."""
    canary = tmp_path / "canary"
    canary.write_text("secret of the host")
    link = f"FROM base AS evil\nRUN ln -s {tmp_path} /t; ln -s {canary} /f\n"
    for line in (
        "RUN --mount=type=cache,target=/t/canary echo x > /t/canary/y",
        "RUN --mount=type=tmpfs,target=/t/new true",
        "RUN --mount=target=/f cat /f/a",
        "RUN --mount=from=evil,source=/f,target=/x cat /x\nFROM base\nRUN --mount=from=evil,source=/t,target=/x ls /x",
    ):
        try:
            assert "secret" not in workshop.build(f"{link}{line}", {"a": b""}).output
        except TrivetError:
            pass
        assert canary.read_text() == "secret of the host"
        assert [path.name for path in tmp_path.iterdir()] == ["canary"]
        assert workshop.leftovers() == []


def test_link_in_a_cache(workshop: Workshop, tmp_path: Path) -> None:
    """A link that one build leaves in a cache leads the next one nowhere but inside its own root."""
    canary = tmp_path / "canary"
    canary.write_text("secret of the host")
    workshop.build(f"FROM base\nRUN {CACHE},id=trap ln -s {canary} /var/cache/x/l")
    with pytest.raises(BuildError, match="exit code 1"):
        workshop.build(f"FROM base\nRUN {CACHE},id=trap cat /var/cache/x/l")


def test_missing_source(workshop: Workshop) -> None:
    """A source that isn't there is an error with file and line."""
    with pytest.raises(BuildError, match="Dockerfile:2: no nothing in the build context"):
        workshop.build("FROM base\nRUN --mount=source=nothing,target=/x true")
    with pytest.raises(BuildError, match="names 2 files"):
        workshop.build("FROM base\nRUN --mount=source=*.md,target=/x true", {"a.md": b"", "b.md": b""})


def test_prune(workshop: Workshop) -> None:
    """Emptying the cache forgets steps and kept files, says what that frees, and changes nothing in a dry run."""
    workshop.build(f"FROM base\nRUN {CACHE},id=pruned echo x > /var/cache/x/f")
    used = workshop.cache.usage()
    assert used.total
    assert used.size
    assert workshop.cache.forget(True).freed
    assert workshop.cache.usage() == used
    assert len(workshop.cache.forget(False).deleted) == used.total
    assert workshop.cache.usage().size == 0
    assert workshop.build(f"FROM base\nRUN {CACHE},id=pruned ls /var/cache/x").output == ""


def test_prune_beside_a_build(workshop: Workshop) -> None:
    """Kept files that a running step uses stay."""

    async def both() -> str:
        line = f"RUN {CACHE},id=busy echo kept > /var/cache/x/f; sleep 1; cat /var/cache/x/f"
        build = asyncio.create_task(workshop.building(f"FROM base\n{line}"))
        await asyncio.sleep(0.6)
        workshop.cache.forget(False)
        return (await build).output

    assert asyncio.run(both()) == "kept\n"
