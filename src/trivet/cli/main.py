"""`trivet`: find the command, parse, do it, and say in one sentence what went wrong."""

from __future__ import annotations

import gc
import os
import sys

import trivet.cli.lean  # isort: skip  # noqa: F401 - first, before anybody imports what it makes lean
from argparse import ArgumentTypeError
from typing import NamedTuple

from trivet.base.error import TrivetError
from trivet.cli.catalog import ALONE, BY_WORDS, MEANT, NOUNS, Entry
from trivet.cli.command import FAILED, MISUSED, Misuse, Parser, build_parser
from trivet.cli.context import Context

INTERRUPTED = 130
BROKEN_PIPE = 141


class Call(NamedTuple):
    """A command line, taken apart as far as needed to know whose it is."""

    host: str
    debug: bool
    words: list[str]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Without `arguments` it is the process's own, which ends at once."""
    gc.disable()  # until the command's modules are there, nothing becomes garbage
    try:
        code = _main(arguments)
    finally:
        gc.enable()
    return code if arguments is not None else _leave(code)


def _leave(code: int) -> int:
    """End the process without taking the interpreter apart first."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        code = BROKEN_PIPE
    os._exit(code)


def _main(arguments: list[str] | None) -> int:
    try:
        call = _globals(list(sys.argv[1:] if arguments is None else arguments))
        context = Context(call.host, debug=call.debug)
        entry, spelling, rest = find(call.words)
    except Misuse as error:
        Context().complain(error)
        return MISUSED
    if entry is None:
        return _help(call.words)
    return _invoke(context, entry, spelling, rest)


def find(words: list[str]) -> tuple[Entry | None, str, list[str]]:
    """Find whose command it is; None asks for help. Raises `Misuse` with the nearest spelling."""
    if not words or words[0] in ("help", "-h", "--help"):
        return None, "", words
    if words[:2] == ["network", "policy"]:
        words = words[1:]
    if words[0] == "compose":
        words = _in_front(words)
    if (noun := words[0]) in NOUNS:
        if words == [noun] and noun in ALONE:
            return BY_WORDS[f"{noun} {MEANT[noun]}"], noun, []
        if len(words) == 1 or words[1] in ("-h", "--help"):
            return None, noun, words
        spelling, rest = f"{words[0]} {words[1]}", words[2:]
        if spelling not in BY_WORDS and words[0] in MEANT:
            spelling, rest = f"{words[0]} {MEANT[words[0]]}", words[1:]
    else:
        spelling, rest = words[0], words[1:]
    if spelling in BY_WORDS:
        return BY_WORDS[spelling], spelling, rest
    raise Misuse(f"unknown command {spelling!r}", hint=_nearest(spelling))


def _in_front(words: list[str]) -> list[str]:
    """Move options that stand before the verb of `compose`, as people know it, behind it, spelled in full."""
    moved, rest, dry = [], words[1:], False
    while rest and rest[0].startswith("-") and rest[0] not in ("-h", "--help", "-v", "--version"):
        name, equals, text = rest.pop(0).partition("=")
        if name in _SWITCHES:
            dry = dry or name == "--dry-run"
            continue
        if not equals and not rest:
            raise Misuse(f"{name} needs a value", hint="see `trivet compose --help`")
        text = text if equals else rest.pop(0)
        if name not in _LOOKS:
            moved += [_PROJECT.get(name, name), text]
    if rest[:1] in (["-v"], ["--version"]):
        rest[0] = "version"
    if dry and rest and rest[0] != "plan":
        raise Misuse("--dry-run is a command of its own", hint="trivet compose plan")
    return [words[0], *rest[:1], *moved, *rest[1:]]


_PROJECT = {"-f": "--file", "-p": "--project-name"}
_SWITCHES = ("--all-resources", "--compatibility", "--dry-run", "--verbose")
_LOOKS = ("--ansi", "--parallel", "--progress")
"""Of docker compose, for how it shows and does things: taken, and nothing follows."""


def _globals(words: list[str]) -> Call:
    """Take the options in front of the command."""
    host, debug = "", bool(os.environ.get("TRIVET_DEBUG"))
    while words and words[0].startswith("-"):
        word = words[0]
        if word in ("-D", "--debug"):
            debug = True
        elif word in ("-H", "--host"):
            if len(words) < 2:
                raise Misuse("--host needs a value", hint="write --host unix:///PATH")
            host = words.pop(1)
        elif word.startswith("--host="):
            host = word.removeprefix("--host=")
        elif word in ("-h", "--help"):
            break
        elif word in ("-v", "--version"):
            words[0] = "version"
            break
        else:
            raise Misuse(f"unknown option {word}", hint="see `trivet --help`")
        words = words[1:]
    return Call(host, debug, words)


def _invoke(context: Context, entry: Entry, spelling: str, rest: list[str]) -> int:
    failed, misused = FAILED, MISUSED
    try:
        command = entry.command()
        failed, misused = command.failed, command.misused
        parser = Parser(prog=f"trivet {spelling}", add_help=False, allow_abbrev=False)
        args = build_parser(parser, command, entry.summary).parse_args(rest)
        context.verb = entry.key
        gc.enable()
        code = command.run(context, args)
        sys.stdout.flush()
        return code
    except (Misuse, ArgumentTypeError) as error:
        context.complain(error if isinstance(error, Misuse) else Misuse(str(error)))
        return misused
    except TrivetError as error:
        _traceback(context)
        context.complain(error)
        return error.exit_code or failed
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more when it ends
        return BROKEN_PIPE
    except OSError as error:
        _traceback(context)
        where = f" {error.filename}" if error.filename else ""
        context.complain(TrivetError(f"cannot {entry.key}:{where}: {(error.strerror or str(error)).lower()}"))
        return failed
    except Exception as error:
        _traceback(context)
        hint = "this is a defect of trivet; --debug in front of the command shows where it happened"
        context.complain(TrivetError(f"unexpected {type(error).__name__}: {error}", hint=hint))
        return failed


def _traceback(context: Context) -> None:
    if context.debug:
        import traceback  # rarely needed, and it takes its time

        traceback.print_exc()


def _help(words: list[str]) -> int:
    from trivet.cli.help import help_of_noun, overview

    words = [word for word in words if word not in ("help", "-h", "--help")]
    if words and words[0] in NOUNS and len(words) == 1:
        print(help_of_noun(words[0]), end="")
    elif words:
        return _main([*words, "--help"])
    else:
        print(overview(), end="")
    return 0


def _nearest(spelling: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(spelling, BY_WORDS, n=1)
    return f"did you mean `trivet {close[0]}`?" if close else "see `trivet --help`"


if __name__ == "__main__":
    sys.exit(main())
