"""Words: variables, quotes, modifiers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.build.word import WordError, expand, expand_heredoc, split_words

VARIABLES = {"x": "hello.tar.gz", "empty": "", "sp": "a b", "path": "/usr/lib"}

EXPANSIONS = [
    ("$x ${x}", "hello.tar.gz hello.tar.gz"),
    ("$unset-${unset}.", "-."),
    ("${unset:-d} ${unset-d} ${empty:-d} ${empty-d}", "d d d "),
    ("${x:+y} ${x+y} ${unset:+y} ${empty:+y} ${empty+y}", "y y   y"),
    ("${unset:-${x}}", "hello.tar.gz"),
    ("${unset:-'a}b'}", "a}b"),
    ("${x#*.} ${x##*.} ${x%.*} ${x%%.*}", "tar.gz gz hello.tar hello"),
    ("${x/l/L} ${x//l/L} ${x/.*/}", "heLlo.tar.gz heLLo.tar.gz hello"),
    ("${path//\\//-}", "-usr-lib"),
    ("\\$x \\\\ \\a", "$x \\ a"),
    ("'$x' \"$x\"", "$x hello.tar.gz"),
    ('"\\$x \\a \\""', '$x \\a "'),
    ("a$ $", "a$ $"),
    ("$1x", "x"),
]


@pytest.mark.parametrize(("text", "result"), EXPANSIONS)
def test_expansion(text: str, result: str) -> None:
    """Variables are replaced and quotes removed as the Dockerfile reference says."""
    assert expand(text, VARIABLES) == result


@pytest.mark.parametrize("text", ["'a", '"a', "${x", "${}", "${x:=y}", "${unset:?must be set}", "${x:-'}"])
def test_mistakes(text: str) -> None:
    """An open quote, a broken substitution and a missing required variable are refused."""
    with pytest.raises(WordError):
        expand(text, VARIABLES)


def test_backtick_escape() -> None:
    """With the backtick as escape character a backslash is a character like others."""
    assert expand("c:\\a`$x", VARIABLES, "`") == "c:\\a$x"


def test_heredoc_keeps_quotes() -> None:
    """In a here-document quotes and other escapes stay as they are."""
    assert expand_heredoc("'$sp' \"\\$x\" \\n", VARIABLES) == "'a b' \"$x\" \\n"


def test_splitting() -> None:
    """White space separates words outside quotes, unless escaped."""
    assert split_words("a='b c' d\\ e  \"f g\"", "\\") == ["a='b c'", "d\\ e", '"f g"']


def test_bombs() -> None:
    """Doubling variables, nested substitutions and wicked patterns end in an error, soon."""
    begin = time.process_time()
    with pytest.raises(WordError, match="longer than"):
        expand("$x$x", {"x": "y" * (100 << 10)})
    with pytest.raises(WordError, match="nested"):
        expand("${a:-" * 1000 + "}" * 1000, {})
    expand("${x%%" + "*a" * 20 + "b}", {"x": "a" * 2000})
    assert time.process_time() - begin < 2


@given(st.text(alphabet="ab$x{}:-+?#%/*'\"\\ ", max_size=40))
def test_fuzz(text: str) -> None:
    """Any text expands or is refused."""
    try:
        expand(text, VARIABLES)
    except WordError:
        pass
    split_words(text, "\\")


def test_literal_stars_in_patterns() -> None:
    """A backslash in a pattern makes the star or question mark behind it mean itself."""
    variables = {"v": "a*b?c"}
    assert expand("${v/\\*/_} ${v//\\?/_} ${v#a\\*} ${v%\\?c}", variables) == "a_b?c a*b_c b?c a*b"
    assert expand("${v/`*/_}", variables, "`") == "a_b?c"
