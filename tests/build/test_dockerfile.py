"""The Dockerfile language: what is understood, and what is said when it isn't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.build import instruction
from trivet.build.dockerfile import parse
from trivet.build.error import DockerfileError
from trivet.build.instruction import Command, Instruction


def only(text: str) -> Instruction:
    """Parse a Dockerfile of one instruction."""
    (found,) = parse(text).instructions
    return found


COMMANDS = [
    ("RUN echo hi", ("echo hi",), True),
    ('RUN ["echo", "a b"]', ("echo", "a b"), False),
    ("RUN ['echo']", ("['echo']",), True),
    ("RUN [ -f /x ] && true", ("[ -f /x ] && true",), True),
    ("RUN a \\\n  b \\\n# comment\n\n  c", ("a   b   c",), True),
    ("RUN a \\   \n b", ("a  b",), True),
    ("run echo", ("echo",), True),
]


@pytest.mark.parametrize(("text", "words", "shell"), COMMANDS)
def test_commands(text: str, words: tuple[str, ...], shell: bool) -> None:
    """A command is a JSON array of strings or, when it isn't one, a line for the shell."""
    found = only(text)
    assert isinstance(found, instruction.Run)
    assert found.command == Command(words=words, shell=shell)


PAIRS = [
    ("ENV a=b", (("a", "b"),)),
    ("ENV a=\"b c\" d=e\\ f g='h i'", (("a", '"b c"'), ("d", "e\\ f"), ("g", "'h i'"))),
    ("ENV a b c=d", (("a", "b c=d"),)),
    ("LABEL a.b=c", (("a.b", "c"),)),
    ("LABEL a=b \\\n  c=d", (("a", "b"), ("c", "d"))),
    ("ARG a b= c=d", (("a", None), ("b", ""), ("c", "d"))),
]


@pytest.mark.parametrize(("text", "pairs"), PAIRS)
def test_pairs(text: str, pairs: tuple[tuple[str, str | None], ...]) -> None:
    """ENV, LABEL and ARG take pairs, and ENV the old form without an equals sign."""
    found = only(text)
    assert isinstance(found, instruction.Env | instruction.Label | instruction.Arg)
    assert found.pairs == pairs


def test_from() -> None:
    """FROM takes an image, a platform, and a name that is kept in lower case."""
    found = only("FROM --platform=linux/arm64 debian:12 as Base")
    assert isinstance(found, instruction.From)
    assert (found.image, found.platform, found.name) == ("debian:12", "linux/arm64", "base")


def test_copy() -> None:
    """COPY takes flags, several sources and a target; the JSON form allows spaces."""
    found = only("COPY --from=build --chown=1:2 --chmod=755 --link a b /c/")
    assert isinstance(found, instruction.Copy)
    assert (found.sources, found.target) == (("a", "b"), "/c/")
    assert (found.origin, found.chown, found.chmod) == ("build", "1:2", "755")
    found = only('ADD ["a b", "/c d/"]')
    assert isinstance(found, instruction.Add)
    assert (found.sources, found.target) == (("a b",), "/c d/")


def test_heredocs() -> None:
    """Here-documents belong to the instruction before them, with and without expansion and leading tabs."""
    text = "FROM x\nCOPY <<EOF <<-'END' /t/\na $b\nEOF\n\tc $d\n\tEND\nRUN <<EOF\nset -e\nEOF\nUSER u\n"
    _, copy, run, user = parse(text).instructions
    assert isinstance(copy, instruction.Copy)
    assert copy.sources == ()
    assert [(each.name, each.content, each.expand) for each in copy.heredocs] == [
        ("EOF", "a $b\n", True),
        ("END", "c $d\n", False),
    ]
    assert isinstance(run, instruction.Run)
    assert run.heredocs[0].content == "set -e\n"
    assert user.line == 10


def test_healthcheck() -> None:
    """HEALTHCHECK reads durations as Go writes them."""
    found = only("HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl localhost")
    assert isinstance(found, instruction.Healthcheck)
    assert (found.interval, found.timeout, found.retries) == (90 * 10**9, 5 * 10**8, 3)
    assert found.command == Command(words=("curl localhost",), shell=True)
    none = only("HEALTHCHECK NONE")
    assert isinstance(none, instruction.Healthcheck)
    assert none.command is None


def test_escape_directive() -> None:
    """A directive on the first line changes the escape character; after a comment it is one itself."""
    assert parse("# escape=`\nFROM a\nRUN c:\\ `\n  d").instructions[1].text == "RUN c:\\   d"
    assert parse("# hello\n# escape=`\nFROM a\nRUN b \\\n c").instructions[1].text == "RUN b  c"


def test_line_numbers() -> None:
    """Every instruction knows the line it begins at, across continuations and comments."""
    text = "# syntax=docker/dockerfile:1\n\nFROM a\nRUN b \\\n  c\n\n# d\nUSER e\r\nWORKDIR /f"
    assert [each.line for each in parse(text).instructions] == [3, 4, 8, 9]


ERRORS = [
    ("FROM a\nRUNN b", 2, "unknown instruction RUNN", "did you mean RUN"),
    ("FROM a\n\nCOPY b", 3, "COPY needs at least one source and a target", None),
    ("FROM a\nCOPY --form=x b c", 2, "COPY has no flag --form", "did you mean --from"),
    ("FROM a\nCOPY --from b c", 2, "flag --from needs a value", "write --from=VALUE"),
    ("FROM a\nCOPY --from=b --from=c d e", 2, "flag --from is given twice", None),
    ("FROM a b", 1, "FROM takes an image, or an image AS a name", "write FROM IMAGE [AS NAME]"),
    ("FROM a AS 1x", 1, "FROM cannot name a stage '1x'", None),
    ("FROM a\nENV b", 2, "ENV gives b no value", "write ENV b=VALUE"),
    ("FROM a\nENV b=c d", 2, "ENV has no value for 'd'", None),
    ('FROM a\nCMD ["a", 1]', 2, "CMD takes a JSON array of strings only", None),
    ("FROM a\nSHELL /bin/sh", 2, "SHELL takes a JSON array of strings", None),
    ("FROM a\nRUN", 2, "RUN needs an argument", None),
    ("FROM a\nRUN <<EOF\nb", 2, "here-document EOF is never ended", None),
    ("FROM a\nRUN --mount=type=device,id=x b", 2, "RUN --mount=type=device is not supported", "use bind, cache"),
    ("FROM a\nRUN --mount=type=secret b", 2, "RUN --mount=type=secret needs an id or a target", "write id="),
    ("FROM a\nRUN --mount=type=cache b", 2, "RUN --mount=type=cache needs a target that is not /", None),
    ("FROM a\nRUN --mount=type=tmpfs,target=/x,id=y b", 2, "RUN --mount=type=tmpfs has no option id", "it has"),
    ("FROM a\nRUN --mount=type=tmpfs,target=/x,size=1x b", 2, "RUN --mount size=1x is not a size", None),
    ("FROM a\nRUN --mount=type=cache,target=/x,mode=9 b", 2, "RUN --mount mode=9 is not a number in range", None),
    ("FROM a\nRUN --device=x b", 2, "RUN --device=x is no name of a CDI device", "write --device=VENDOR/CLASS=NAME"),
    ("FROM a\nRUN --device=v.com/c,x b", 2, "RUN --device has no option x", "write --device=VENDOR/CLASS=NAME"),
    ("FROM a\nRUN --device=v.com/c,required=2 b", 2, "RUN --device: required=2 is neither true nor false", None),
    ("FROM a\nRUN --security=lax b", 2, "RUN --security=lax is unknown", "use sandbox or insecure"),
    ("FROM a\nONBUILD FROM b", 2, "ONBUILD cannot trigger FROM", None),
    ("FROM a\nONBUILD CPOY b c", 2, "unknown instruction CPOY", "did you mean COPY"),
    ("FROM a\nHEALTHCHECK --interval=soon CMD b", 2, "HEALTHCHECK cannot read the duration 'soon'", None),
    ("FROM a\nHEALTHCHECK b", 2, "HEALTHCHECK takes CMD and a command, or NONE", None),
    ("# escape=x\nFROM a", 1, "escape character 'x' is neither a backslash nor a backtick", None),
    ("FROM a\nRUN \0", 2, "contains a null character", None),
]


@pytest.mark.parametrize(("text", "line", "problem", "hint"), ERRORS)
def test_errors(text: str, line: int, problem: str, hint: str | None) -> None:
    """A mistake is told in one sentence that begins with file and line."""
    with pytest.raises(DockerfileError) as caught:
        parse(text, "Containerfile")
    assert caught.value.message == f"Containerfile:{line}: {problem}"
    if hint:
        assert caught.value.hint is not None
        assert caught.value.hint.startswith(hint)


WORDS = st.sampled_from(
    [
        *("FROM a\n", "RUN ", "COPY ", "ADD ", "ENV ", "ARG ", "LABEL ", "ONBUILD ", "HEALTHCHECK ", "VOLUME "),
        *("SHELL ", "CMD ", "--from=", "--", "<<EOF", "EOF\n", "\\\n", "# escape=`\n", "${x:-", "}", "=", "\n"),
        *('["', '"]', "'", '"'),
    ]
)


@given(st.lists(st.one_of(WORDS, st.text(max_size=8)), max_size=30).map("".join))
def test_fuzz(text: str) -> None:
    """Any text is understood or refused with a DockerfileError whose line is in the text."""
    line = 1
    try:
        parse(text)
    except DockerfileError as error:
        line = error.line
    assert 1 <= line <= text.count("\n") + 1
