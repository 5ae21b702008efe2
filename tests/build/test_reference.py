"""What the Dockerfile reference says between its lines: inherited arguments, triggers that take of stages, links."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web
from tests.build.test_elsewhere import commit, forge, git
from tests.build.workshop import Content, Workshop
from tests.conftest import Daemon
from tests.image.test_registry_hostile import serving

from trivet.build.error import BuildError, StepFailed
from trivet.build.remote import FetchFailed

pytestmark = pytest.mark.needs("root")
__all__ = ["forge"]


def test_arguments_are_inherited(workshop: Workshop) -> None:
    """A stage knows the arguments of the stage it goes on from, and of no other."""
    lines = "FROM base AS a\nARG X=1\nFROM a AS b\nFROM b\nRUN test $X = 1\nLABEL x=$X\n"
    assert workshop.build(lines).config.labels == {"x": "1"}
    assert workshop.build(lines, build_args={"X": "1"}).config.labels == {"x": "1"}
    assert not workshop.build("FROM base AS a\nARG X=1\nFROM base\nLABEL x=$X\n").config.labels["x"]  # type: ignore[index]


def test_triggers_take_of_stages(workshop: Workshop) -> None:
    """ONBUILD COPY --from and RUN --mount=from= name stages of the Dockerfile that is built, and only earlier ones."""
    trigger = "ONBUILD COPY --from=made /o /copied\nONBUILD RUN --mount=from=made,target=/m cat /m/o > /read\n"
    workshop.build(f"FROM base\n{trigger}", tags=["trigger:1"])
    stage = "FROM base AS made\nRUN echo made > /o\n"
    built = workshop.build(f"{stage}FROM trigger:1\nRUN test -e /copied\n")
    assert built.files["copied"].content == built.files["read"].content == b"made\n"
    assert built.config.on_build is None
    with pytest.raises(StepFailed):  # of the stage that only the trigger needs
        workshop.build("FROM base AS made\nRUN exit 3\nFROM trigger:1\n")
    with pytest.raises(BuildError, match="does not name an earlier stage"):
        workshop.build(f"FROM trigger:1\n{stage}", target="0")
    assert workshop.leftovers() == []


def test_linked_copies_see_nothing(workshop: Workshop) -> None:
    """COPY --link puts a layer on top: it replaces links on the way, knows no users, and is kept for other bases."""
    files: dict[str, Content] = {"a": b"1"}
    base = "FROM base\nRUN mkdir /real && ln -s /real /way\n"
    built = workshop.build(f"{base}COPY --link a /way/\nRUN test ! -L /way && test ! -e /real/a\n", files)
    assert built.files["way/a"].content == b"1"
    assert built.files["way"].info.isdir()
    with pytest.raises(BuildError, match="no user 'app'"):
        workshop.build(f"{base}COPY --link --chown=app a /way/\n", files)
    again = workshop.build("FROM base\nRUN echo other > /other\nCOPY --link a /way/\n", files)
    assert again.cached == 1
    assert again.files["other"].content == b"other\n"
    assert workshop.build(f"{base}COPY a /way/\n", files).files["real/a"].content == b"1"


def test_arguments_for_the_builder(workshop: Workshop) -> None:
    """BuildKit's own arguments name the step's host, part caches, date the image and ask for an inline cache."""
    line = "FROM base\nRUN --mount=type=cache,target=/c cat /c/x 2>/dev/null; echo $(hostname) | tee /c/x"
    one, two = {"BUILDKIT_CACHE_MOUNT_NS": "one"}, {"BUILDKIT_CACHE_MOUNT_NS": "two"}
    assert workshop.build(line, no_cache=True, build_args=one).output.count("build") == 1
    assert workshop.build(line, no_cache=True, build_args=two).output.count("build") == 1
    assert workshop.build(line, no_cache=True, build_args=one).output.count("build") == 2
    named = {"BUILDKIT_SANDBOX_HOSTNAME": "forge", "SOURCE_DATE_EPOCH": "1234567890", "BUILDKIT_INLINE_CACHE": "1"}
    built = workshop.build("FROM base\nRUN hostname\nRUN touch /x", build_args=named)
    assert "forge" in built.output
    assert built.files["x"].info.mtime == 1234567890
    assert not [step for step in built.progress if step.id == "warning"]
    for bad in ({"SOURCE_DATE_EPOCH": "today"}, {"BUILDKIT_SANDBOX_HOSTNAME": "a b"}):
        with pytest.raises(BuildError, match="is no "):
            workshop.build("FROM base\nRUN true", build_args=bad)


@pytest.mark.parametrize("word", ["NOPE", "SIGNOPE", "0", "65", "999", "RTMIN+x"])
def test_signals_that_are_none(workshop: Workshop, word: str) -> None:
    """STOPSIGNAL takes what Linux has."""
    with pytest.raises(BuildError, match="is not a signal"):
        workshop.build(f"FROM base\nSTOPSIGNAL {word}\n")


@pytest.mark.needs("git")
def test_git_addresses(workshop: Workshop, forge: tuple[str, Path]) -> None:
    """A checksum may be the beginning of a commit; tag= and branch= mean just that; commit= verifies what they name."""
    address, base = forge
    url = f"{address}/query"
    first = commit(base / "query", file="one")
    git(base / "query", "tag", "same")
    git(base / "query", "branch", "same")
    git(base / "query", "checkout", "-q", "same")
    second = commit(base / "query", file="two")
    git(base / "query", "checkout", "-q", "main")

    def content(what: str) -> bytes:
        return workshop.build(f"FROM base\nADD {what} /g/").files["g/file"].content

    assert content(f"{url}?tag=same") == b"one"
    assert content(f"{url}?branch=same") == b"two"
    assert content(f"{url}?branch=same&commit={second[:9]}") == b"two"
    assert content(f"--checksum={first[:7]} {url}#main") == b"one"
    for wrong in (f"{url}?tag=same&commit={second}", f"{url}?branch=same&checksum={first[:7]}"):
        with pytest.raises(BuildError, match="not at the --checksum"):
            content(wrong)
    with pytest.raises(BuildError, match="not at the --checksum"):
        content(f"--checksum={second[:7]} {url}#main")  # no cache answers for the beginning of a commit


def test_secrets_for_urls(daemon: Daemon, tmp_path: Path) -> None:
    """ADD shows a host the caller's HTTP_AUTH secret, and no other host along a redirect."""
    seen: list[tuple[str, str | None]] = []

    async def run() -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            seen.append((request.path, request.headers.get("Authorization")))
            if request.path == "/away":
                raise web.HTTPFound(f"http://{elsewhere}/other")
            return web.Response(body=b"content", status=200 if "Authorization" in request.headers else 401)

        async def other(request: web.Request) -> web.StreamResponse:
            seen.append((request.path, request.headers.get("Authorization")))
            return web.Response(body=b"other")

        async with serving(answer) as host, serving(other) as elsewhere:
            (tmp_path / "Dockerfile").write_text(
                f"FROM scratch\nADD http://{host}/file /file\nADD http://{host}/away /other\n"
            )
            for name, value in (("TOKEN", "geheim"), ("HEADER", "Basic eA==")):
                (tmp_path / "secret").write_text(value)
                secret = f"id=HTTP_AUTH_{name}_{host},src={tmp_path}/secret"
                await asyncio.to_thread(daemon.ok, "build", "--no-cache", "-q", "--secret", secret, tmp_path)

    asyncio.run(run())
    assert [each for each in seen if each[0] == "/file"] == [("/file", "Bearer geheim"), ("/file", "Basic eA==")]
    assert [each for each in seen if each[0] == "/other"] == [("/other", None)] * 2


def test_no_secret_without_tls(workshop: Workshop) -> None:
    """A secret doesn't go over plain http to another machine."""
    with pytest.raises(FetchFailed):  # not `NoAnswer`: nobody was asked for it
        workshop.build("FROM base\nADD http://host.invalid/x /x\n", secrets=["HTTP_AUTH_TOKEN_host.invalid"])
