"""What people read when something is wrong, and what the exit code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivet.cli.main import main

NOBODY = "unix:///nonexistent/trivet.sock"

WRONG: list[tuple[list[str], int, str]] = [
    (["pss"], 2, "unknown command 'pss'\nhint: did you mean `trivet ps`?"),
    (["volume", "crate"], 2, "unknown command 'volume crate'\nhint: did you mean `trivet volume create`?"),
    (["--hots", "x", "ps"], 2, "unknown option --hots"),
    (["--host"], 2, "--host needs a value"),
    (["ps", "--nope"], 2, "unknown: --nope\nhint: see `trivet ps --help`"),
    (["stop"], 2, "missing: INSTANCE"),
    (["run"], 125, "missing: IMAGE"),
    (["run", "-m", "x", "image"], 125, "--memory: 'x' is not a size"),
    (["exec", "web"], 125, "COMMAND is missing"),
    (["ps", "--filter", "x"], 2, "--filter: 'x' is not KEY=VALUE"),
    (["logs", "--since", "yesterday", "web"], 2, "--since: 'yesterday' is not a time"),
    (["cp", "a", "b"], 2, "exactly one of the two must be INSTANCE:PATH"),
    (["system", "prune"], 2, "pruning needs a yes"),
    (["--host", "tcp://1.2.3.4:5", "ps"], 1, "engine address 'tcp://1.2.3.4:5' is not a unix socket"),
    (["--host", "unix:///" + "x" * 120, "ps"], 1, "longer than the 107 bytes"),
    (["--host", NOBODY, "ps"], 1, f"cannot reach the engine at {NOBODY}: no such file or directory"),
    (["--host", NOBODY, "run", "image"], 125, f"cannot reach the engine at {NOBODY}"),
    (["--host", NOBODY, "exec", "web", "sh"], 125, "cannot reach the engine"),
    (["--host", NOBODY, "stop", "web"], 1, "cannot reach the engine"),
    (["--host", NOBODY, "load", "-i", "/nonexistent.tar"], 1, "cannot load: /nonexistent.tar: no such file"),
    (["--host", NOBODY, "build", "/nonexistent"], 1, "cannot build: context /nonexistent does not exist"),
]


@pytest.mark.parametrize(
    ("words", "code", "sentence"), WRONG, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else ""
)
def test_wrong_lines(
    words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong line gets a sentence on standard error, nothing on standard output, and a documented exit code."""
    monkeypatch.setattr("trivet.cli.terminal.is_terminal", lambda descriptor: False)
    assert main(words) == code
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("trivet: ")
    assert sentence in error
    assert "Traceback" not in error


def test_a_terminal_is_required(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`-it` without a terminal is refused in Docker's words, before the engine is asked."""
    monkeypatch.setattr("trivet.cli.terminal.is_terminal", lambda descriptor: False)
    assert main(["--host", NOBODY, "run", "-it", "image"]) == 125
    assert "the input device is not a TTY" in capsys.readouterr().err


def test_an_id_file_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing --cidfile is refused; a new one is gone again when no instance was made."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("precious")
    assert main(["--host", NOBODY, "run", "--cidfile", str(old), "image"]) == 125
    assert "exists already" in capsys.readouterr().err
    assert old.read_text() == "precious"
    assert main(["--host", NOBODY, "run", "--cidfile", str(new), "image"]) == 125
    assert not new.exists()


def test_a_context_without_dockerfile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A context without a Dockerfile is refused with its name and a hint."""
    assert main(["--host", NOBODY, "build", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path} holds no Dockerfile" in error
    assert "hint: name one with -f" in error


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    """`--debug` adds a traceback."""
    assert main(["--debug", "--host", NOBODY, "ps"]) == 1
    assert "Traceback" in capsys.readouterr().err
