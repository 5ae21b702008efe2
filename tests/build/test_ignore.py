"""Patterns: .dockerignore and COPY's wildcards, against results known from Docker."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.build.error import ContextError
from trivet.build.ignore import Ignore
from trivet.build.pattern import PatternError, compile_pattern

# From moby/patternmatcher's table: pattern, path, left out?
MATCHES = [
    ("**", "file", True),
    ("**/", "file", True),
    ("**", "dir/file", True),
    ("**/**", "dir/file", True),
    ("dir/**", "dir/file", True),
    ("dir/**", "dir/dir2/file", True),
    ("**/dir", "dir", True),
    ("**/dir", "dir/file", True),
    ("**/dir2/*", "dir/dir2/file", True),
    ("**/dir2/**", "dir/dir2/dir2/file", True),
    ("**file", "dir/dir/file", True),
    ("**/file", "dir/file", True),
    ("**file", "dir/file.txt", False),
    ("**/file*", "dir/file.txt", True),
    ("**/*.txt", "dir/file.txt", True),
    ("a**/*.txt", "a/dir/file.txt", True),
    ("a/*.txt", "a/file.txt", True),
    ("a/*.txt", "a/dir/file.txt", False),
    ("a[b-d]e", "ace", True),
    ("a[^b-d]e", "aze", True),
    ("a[^b-d]e", "ace", False),
    (".*", ".foo", True),
    (".*", "foo", False),
    ("abc.def", "abcdef", False),
    ("abc.def", "abc.def", True),
    ("abc?def", "abcZdef", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "axb", False),
    ("**/foo/bar", "foo/bar", True),
    ("**/foo/bar", "dir/dir2/foo/bar", True),
    ("abc/**", "abc", False),
    ("/docs/", "docs/x", True),
    ("./docs", "docs", True),
    ("a/../b", "b", True),
]


@pytest.mark.parametrize(("pattern", "path", "excluded"), MATCHES)
def test_matches(pattern: str, path: str, excluded: bool) -> None:
    """A pattern leaves out what Docker's own table says."""
    assert Ignore([pattern]).excludes(path) is excluded


def test_order_and_exceptions() -> None:
    """The last pattern that matches decides, also for files below an excluded directory."""
    ignore = Ignore.read("# comment\n\n*.md\n!README*.md\nREADME-secret.md\ndocs\n!docs/keep\n")
    left_out = {"a.md": True, "README.md": False, "README-secret.md": True, "docs/x": True, "docs/keep": False}
    assert {path: ignore.excludes(path) for path in left_out} == left_out
    assert ignore.may_keep_below("docs")


@pytest.mark.parametrize("pattern", ["[", "[a", "[b-a]", "[]", "a\\", "[-]"])
def test_bad_patterns(pattern: str) -> None:
    """A broken pattern is an error that names it."""
    with pytest.raises(ContextError, match="pattern"):
        Ignore([pattern])


def test_star_stays_in_directory() -> None:
    """A wildcard of COPY never crosses a slash, not even a double star."""
    assert compile_pattern("**.txt").fullmatch("a/b.txt") is None
    assert compile_pattern("*/b.txt").fullmatch("a/b.txt")


def test_costly_patterns() -> None:
    """Patterns made to be slow are matched fast or refused."""
    begin = time.process_time()
    assert compile_pattern("*a" * 100 + "b").fullmatch("a" * 255) is None
    with pytest.raises(PatternError):
        compile_pattern("**/a/" * 20, deep=True)
    assert time.process_time() - begin < 1


@given(st.text(alphabet="ab/*?[]^-\\!.", max_size=20), st.text(alphabet="ab/.", min_size=1, max_size=20))
def test_fuzz(pattern: str, path: str) -> None:
    """Any pattern works or is refused."""
    try:
        Ignore([pattern]).excludes(path)
    except ContextError:
        pass
