"""Build checks, outlines, targets; what an error shows."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from tests.build.workshop import base_files, make_tar
from tests.conftest import Daemon

from trivet.build.dockerfile import parse
from trivet.build.graph import build_graph
from trivet.build.lint import RULES, Check, check
from trivet.build.lint_experimental import EXPERIMENTAL
from trivet.build.scope import Scope

IGNORED = ("secret",)
CASES = [
    ("ConsistentInstructionCasing", 3, "FROM scratch\nARG A\nLabel a=b"),
    ("ConsistentInstructionCasing", 2, "from scratch\nARG A\nlabel a=b"),
    ("DuplicateStageName", 2, "FROM scratch AS a\nFROM scratch AS a"),
    ("ExposeInvalidFormat", 2, "FROM scratch\nEXPOSE 127.0.0.1:80:80"),
    ("ExposeProtoCasing", 2, "FROM scratch\nEXPOSE 80/TcP"),
    ("FromAsCasing", 1, "FROM scratch as a"),
    ("FromPlatformFlagConstDisallowed", 1, "FROM --platform=linux/amd64 scratch"),
    ("InvalidDefaultArgInFrom", 2, "ARG T\nFROM busybox:$T"),
    ("JSONArgsRecommended", 2, "FROM scratch\nCMD run it"),
    ("LegacyKeyValueFormat", 2, "FROM scratch\nENV a b"),
    ("MaintainerDeprecated", 2, "FROM scratch\nMAINTAINER me"),
    ("MultipleInstructionsDisallowed", 2, 'FROM scratch\nCMD ["a"]\nCMD ["b"]'),
    ("NoEmptyContinuation", 3, "FROM scratch\nLABEL a=b \\\n\n  c=d"),
    ("RedundantTargetPlatform", 1, "FROM --platform=$TARGETPLATFORM scratch"),
    ("ReservedStageName", 1, "FROM scratch AS context"),
    ("SecretsUsedInArgOrEnv", 2, "FROM scratch\nARG DB_PASSWORD"),
    ("StageNameCasing", 1, "FROM scratch AS Web"),
    ("UndefinedArgInFrom", 1, "FROM busybox:${TAG}x"),
    ("UndefinedVar", 2, "FROM scratch\nCOPY $NOPE /"),
    ("CopyIgnoredFile", 3, "# check=experimental=CopyIgnoredFile\nFROM scratch\nCOPY ./secret /"),
    (
        "InvalidDefinitionDescription",
        4,
        "# check=experimental=InvalidDefinitionDescription\nFROM scratch AS base\n# what is this\nARG VERSION=1",
    ),
    ("WorkdirRelativePath", 2, "FROM scratch\nWORKDIR app"),
]


def found(text: str) -> list[tuple[str, int]]:
    """List what is said about a Dockerfile."""
    dockerfile = parse(text)
    platform = {"TARGETPLATFORM": "linux/amd64"}
    graph = build_graph(dockerfile, Scope(given={}, platform=platform))
    return [
        (each.rule, each.line) for each in check(dockerfile, graph, Check.read(dockerfile.check), IGNORED.__contains__)
    ]


@pytest.mark.parametrize(("rule", "line", "text"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES])
def test_rules(rule: str, line: int, text: str) -> None:
    """Every rule finds what it is about, with its line, and can be left out."""
    assert (rule, line) in found(text)
    plain = text.removeprefix(f"# check=experimental={rule}\n")
    moved = line + 1 - (plain != text)
    assert (rule, moved) not in found(f"# check=skip={rule};experimental=all\n{plain}")
    assert found(f"# check=skip=all;experimental=all\n{plain}") == []


def test_every_rule_has_a_case() -> None:
    """No rule goes untested."""
    assert {case[0] for case in CASES} == {*RULES, *EXPERIMENTAL}


def test_experimental_rules_are_asked_for() -> None:
    """Some rules say nothing unless the Dockerfile names them, or all."""
    for rule, line, text in CASES:
        if rule in EXPERIMENTAL:
            plain = text.partition("\n")[2]
            assert found(f"# check=skip=none\n{plain}") == []
            assert (rule, line) in found(f"# check=experimental=all\n{plain}")


@pytest.mark.parametrize(
    "text",
    [
        "ARG V=1\nFROM busybox:$V AS a\nENV A=b\nWORKDIR /x\nWORKDIR y\nRUN echo $HOME $(date)\nFROM a\nCOPY $A /",
        'FROM scratch\nENV PUBLIC_KEY=x TOKEN_FILE=/x\nEXPOSE 80/tcp $P\nSHELL ["/bin/sh"]\nCMD run',
        "FROM scratch\nARG X\nLABEL a=${X:-y} b=${Y:-z}\nONBUILD RUN echo $Z",
    ],
)
def test_nothing_to_say(text: str) -> None:
    """What is meant as it stands isn't talked about."""
    assert [each for each in found(text) if each[0] != "UndefinedVar" or "$P" not in text] == []


@pytest.fixture(scope="module")
def engine(daemon: Daemon) -> Daemon:
    """An engine that has the image build-base."""
    daemon.ok("import", "-", "build-base", input=make_tar(base_files()))
    return daemon


def write(context: Path, text: str) -> Path:
    """Write a context's Dockerfile."""
    (context / "Dockerfile").write_text(text)
    return context


@pytest.mark.needs("root")
def test_check(engine: Daemon, tmp_path: Path) -> None:
    """--check shows each finding with its line and builds nothing; a build tells them, or ends because of them."""
    text = "FROM build-base AS Web\nRUN echo ran\nCMD run it\n"
    done = engine.trivet("build", "--check", write(tmp_path, text))
    shown = done.stdout.decode()
    assert done.returncode == 1
    assert "2 warnings found" in shown
    assert "   3 | >>> CMD run it" in shown
    assert "echo ran" not in done.stderr.decode()
    assert b"StageNameCasing" in engine.trivet("build", tmp_path).stderr
    done = engine.trivet("build", write(tmp_path, f"# check=error=true\n{text}"))
    assert done.returncode == 1
    assert b"Dockerfile:2: StageNameCasing" in done.stderr
    assert b"Check complete, no warnings" in engine.trivet("build", "--check", write(tmp_path, "FROM scratch\n")).stdout


@pytest.mark.needs("root")
def test_outline_and_targets(engine: Daemon, tmp_path: Path) -> None:
    """--call tells what a Dockerfile takes and which stages it has, as a table or JSON."""
    head = "# syntax=docker/dockerfile:1\n# V the version\nARG V=1\n# check=skip=all\nARG U\n"
    text = f"{head}FROM build-base AS one\n# what it does\nFROM one AS two\nARG W\n"
    write(tmp_path, f"{text}RUN --mount=type=secret,id=s,required --mount=type=ssh true\n")
    outline = json.loads(engine.ok("build", "--call", "outline,format=json", "--build-arg", "W=w", tmp_path))
    assert outline["name"] == "two"
    assert [(row["name"], row["value"], row["description"]) for row in outline["args"]] == [
        ("V", "1", "the version"),
        ("U", "", ""),
        ("W", "w", ""),
    ]
    assert outline["secrets"] == [{"name": "s", "required": True}]
    assert outline["ssh"] == [{"name": "default", "required": False}]
    targets = engine.ok("build", "--call", "targets", tmp_path)
    assert "two (default)" in targets
    assert "what it does" in targets
    assert "BUILD ARG" in engine.ok("build", "--call=outline", tmp_path)


@pytest.mark.needs("root")
def test_what_an_error_shows(engine: Daemon, tmp_path: Path) -> None:
    """A step that fails shows the line, the exit code, and the last lines of its output."""
    write(tmp_path, "FROM build-base\n\nRUN for i in $(busybox seq 50); do echo line $i; done; \\\n    exit 9\n")
    error = engine.trivet("build", tmp_path).stderr.decode().partition("trivet: ")[2]
    assert error.startswith("Dockerfile:3: RUN for i in")
    assert "exit code 9" in error
    assert "line 50" in error
    assert "line 30\n" not in error


@pytest.mark.needs("root")
def test_hints_at_names(engine: Daemon, tmp_path: Path) -> None:
    """A source that .dockerignore keeps from being sent, and a stage that isn't there, are told as what they are."""
    (tmp_path / "kept").write_text("x")
    (tmp_path / ".dockerignore").write_text("*\n")
    error = engine.trivet("build", write(tmp_path, "FROM build-base\nCOPY kept other /x/\n")).stderr.decode()
    assert "Dockerfile:2: no kept in the build context\nhint: it is left out by .dockerignore" in error
    error = engine.trivet("build", write(tmp_path, "FROM build-base\nCOPY --from=NoStage /a /b\n")).stderr.decode()
    assert "hint: no stage and no --build-context is called NoStage, so it was taken for an image" in error


@pytest.mark.needs("root")
def test_a_dockerfile_from_a_pipe(engine: Daemon, tmp_path: Path) -> None:
    """-f may name a pipe, as <(command) in a shell does; it isn't part of the context."""
    (tmp_path / "file").write_text("x")
    pipe = tmp_path.parent / f"{tmp_path.name}-pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("FROM scratch\nCOPY . /\n"))
    writer.start()
    built = engine.ok("build", "-q", "-f", pipe, tmp_path)
    writer.join(10)
    assert built.startswith("sha256:")
