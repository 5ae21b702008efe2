"""Stages: scopes of ARG, names, dependencies."""

from __future__ import annotations

import pytest

from trivet.build.dockerfile import parse
from trivet.build.error import BuildError, DockerfileError
from trivet.build.graph import Graph, build_graph
from trivet.build.scope import Scope, platform_arguments
from trivet.oci.platform import parse as parse_platform

AMD64 = parse_platform("linux/amd64")


def graph(text: str, **given: str) -> Graph:
    """Read stages for an amd64 target on an amd64 host."""
    return build_graph(parse(text), Scope(given=given, platform=platform_arguments(AMD64, AMD64)))


def test_unused_stages_are_skipped() -> None:
    """Only what the target needs is listed, through FROM and COPY --from."""
    found = graph("FROM a AS one\nFROM b AS two\nFROM one AS three\nCOPY --from=0 x y\nFROM c\nCOPY --from=three x y")
    assert [stage.name for stage in found.needs(found.target(""))] == ["one", "three"]
    assert found.needs(found.target("two")) == ()


def test_from_uses_outer_arguments() -> None:
    """ARG before FROM, the request's arguments and the platform are known to FROM."""
    text = "ARG V=12\nARG N=debian:$V\nFROM --platform=$BUILDPLATFORM $N-$TARGETARCH"
    assert graph(text).stages[0].image == "debian:12-amd64"
    assert graph(text, V="13").stages[0].image == "debian:13-amd64"
    assert graph(text).stages[0].platform == "linux/amd64"


def test_outer_arguments_have_to_be_declared_again() -> None:
    """A stage knows an outer ARG only after an ARG of its own."""
    scope = graph("ARG V=12\nFROM a", W="given").scope.inner()
    assert scope.variables({}) == {}
    assert scope.declare("V", None).variables({}) == {"V": "12"}
    assert scope.declare("V", "13").variables({"V": "env"}) == {"V": "env"}
    assert scope.declare("W", "default").variables({}) == {"W": "given"}
    assert scope.declare("TARGETARCH", None).variables({}) == {"TARGETARCH": "amd64"}
    assert scope.declare("other", None).variables({}) == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("RUN x\nFROM a", "Dockerfile:1: RUN before the first FROM"),
        ("FROM a\nCOPY --from=7 x y", "Dockerfile:2: COPY from=7 does not name an earlier stage"),
        ("FROM a\nCOPY --from=b x y\nFROM c AS b", "Dockerfile:2: COPY from=b does not name an earlier stage"),
        ("ARG A\nFROM $A", "Dockerfile:2: FROM $A is empty after its variables were replaced"),
        ("FROM ${A", "Dockerfile:1: FROM: bad substitution of A: '}' or a modifier must follow the name"),
    ],
)
def test_errors(text: str, problem: str) -> None:
    """What stages refer to is checked before anything is built."""
    with pytest.raises(DockerfileError) as caught:
        graph(text)
    assert caught.value.message == problem


def test_unknown_target() -> None:
    """An unknown target is told with the stages there are; so is a file without any."""
    with pytest.raises(BuildError, match="no stage x"):
        graph("FROM a AS b").target("x")
    with pytest.raises(BuildError, match="has no FROM"):
        graph("# nothing\n")
