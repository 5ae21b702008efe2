"""The help and the reference page agree with the tables they are made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from trivet.cli.catalog import BY_WORDS, ENTRIES, Entry
from trivet.cli.main import main
from trivet.cli.reference import render

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


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
