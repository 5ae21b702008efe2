"""The help and the reference page agree with the tables they are made from."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.cli.catalog import BY_WORDS, ENTRIES, Entry
from trivet.cli.command import Misuse, Parser, build_parser
from trivet.cli.main import find, main
from trivet.cli.reference import render

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
PAGES = [ROOT / "README.md", *sorted({*ROOT.glob("docs/*.md")} - {PAGE, ROOT / "docs" / "bench.md"})]


def test_the_reference_page_is_current() -> None:
    """docs/cli.md is what `python -m trivet.cli.reference` writes."""
    assert PAGE.read_text() == render()


@pytest.mark.parametrize("words", BY_WORDS)
def test_every_command_has_help(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Either spelling of a command shows usage, what it does, and an example."""
    with pytest.raises(SystemExit) as ended:
        main([*words.split(), "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert text.startswith(f"usage: trivet {words}")
    assert BY_WORDS[words].summary[1:] in text
    assert "examples:\n  " in text


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.spelling)
def test_every_option_is_explained(entry: Entry) -> None:
    """No option or argument is without a line of help."""
    assert [option.names for option in entry.command().options if not option.settings.get("help")] == []


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["volume"], ["volume", "--help"], ["help", "volume"]])
def test_overviews(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command there is an overview on standard output, of everything or of a noun."""
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "prune" in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The completion script is valid, and knows commands, options and where names come from."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "--isolation" in script
    assert "_trivet_instances()" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def written(page: Path) -> Iterator[list[str]]:
    """Give the commands in the blocks of a page, as words."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:[;|]|&&)\s|\s&$", re.sub(r"\s+# .*$", "", line.removeprefix("$ "))):
            if part.strip().startswith("trivet ") and "…" not in part:
                yield shlex.split(part)[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_what_pages_tell_to_type_is_understood(page: Path) -> None:
    """Every command in a page's blocks is one that there is, with options and arguments that it takes."""
    problems = []
    for words in written(page):
        try:
            entry, _, rest = find([word for word in words if not re.match(r"\d?>", word)])
            if entry:
                parser = Parser(prog="trivet", add_help=False, allow_abbrev=False)
                build_parser(parser, entry.command(), entry.summary).parse_args(rest)
        except Misuse as error:
            problems.append((shlex.join(words), str(error)))
    assert problems == []


def test_pages_are_read() -> None:
    """There are many commands in the pages: they aren't overlooked."""
    assert sum(1 for page in PAGES for _ in written(page)) > 60


@pytest.mark.parametrize(("words", "missing"), [("run", "missing: IMAGE"), ("compose run", "missing: SERVICE")])
def test_only_what_is_needed_is_missing(words: str, missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A command that may be left out isn't asked for."""
    assert main(words.split()) != 0
    assert capsys.readouterr().err.splitlines()[0] == f"trivet: {missing}"
