"""What a command is: options as data, a handler, examples; and how argparse is told.

A noun's module holds a table of these. Only the parser of the command that was typed is built; the
whole tree is built for `--help`, the reference page and shell completion.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from trivet.base.error import InvalidArgument
from trivet.cli.context import Context

Handler = Callable[[Context, argparse.Namespace], int]

FAILED, MISUSED, REFUSED = 1, 2, 125
WIDTH = 110  # of the help, when the terminal is wider


class Misuse(InvalidArgument):
    """The command line itself is wrong."""


class Option(NamedTuple):
    """One option or positional argument: what `add_argument` takes, and the heading it stands under."""

    names: tuple[str, ...]
    settings: dict[str, Any]
    heading: str = ""


class Command(NamedTuple):
    """One command. `failed` and `misused` are its exit codes when trivet itself is the reason."""

    run: Handler
    options: tuple[Option, ...] = ()
    about: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    failed: int = FAILED
    misused: int = MISUSED


def option(*names: str, heading: str = "", **settings: Any) -> Option:
    """Describe an option that takes a value, or a positional argument (a name without dashes)."""
    return Option(names, settings, heading)


def flag(*names: str, heading: str = "", **settings: Any) -> Option:
    """Describe an option that is given or not."""
    return Option(names, {"action": "store_true", **settings}, heading)


def under(heading: str, *options: Option) -> tuple[Option, ...]:
    """Put options under a heading of the help."""
    return tuple(entry._replace(heading=heading) for entry in options)


class Parser(argparse.ArgumentParser):
    """An argparse parser that speaks like the rest of trivet: one sentence, a hint, the right exit code."""

    def error(self, message: str) -> NoReturn:
        """Raise `Misuse` instead of printing usage and leaving."""
        raise Misuse(_sentence(message), hint=f"see `{self.prog} --help`")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal allows, with room for long options."""

    def __init__(self, prog: str) -> None:
        import shutil  # only for who reads help

        super().__init__(prog, max_help_position=34, width=min(shutil.get_terminal_size().columns, WIDTH))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Write `-e, --env KEY`, the value once; long options without a short one line up below the others."""
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        names = names if len(action.option_strings[0]) == 2 else f"    {names}"
        value = "" if action.nargs == 0 else f" {self._format_args(action, action.dest.upper())}"
        return names + value


def build_parser(parser: argparse.ArgumentParser, command: Command, summary: str) -> argparse.ArgumentParser:
    """Add a command's options and texts to `parser`."""
    parser.formatter_class = Formatter
    parser.usage = " ".join([parser.prog, "[OPTION ...]", *_positionals(command)])
    parser.description = f"{summary[0].upper()}{summary[1:]}." + (f"\n\n{command.about}" if command.about else "")
    parser.epilog = _examples(command.examples)
    arguments = parser.add_argument_group("arguments")
    headings: dict[str, Any] = {}
    for entry in command.options:
        if entry.heading not in headings and entry.names[0].startswith("-"):
            headings[entry.heading] = parser.add_argument_group(entry.heading or "options")
        settings = dict(entry.settings)
        complete = settings.pop("complete", None)
        heading = headings[entry.heading] if entry.names[0].startswith("-") else arguments
        action: Any = heading.add_argument(*entry.names, **settings)
        if action.nargs == argparse.REMAINDER:
            action.required = False  # argparse would name it among what is missing
        if complete:
            action.complete = complete
    taken = {name for entry in command.options for name in entry.names}
    help_names = [name for name in ("-h", "--help") if name not in taken]
    last = headings.get("") or parser.add_argument_group("help")
    last.add_argument(*help_names, action="help", help="show this help")
    return parser


def _sentence(message: str) -> str:
    """Say argparse's complaint in our words: the long name of the option in front."""
    names, colon, rest = message.removeprefix("argument ").partition(": ")
    if message.startswith("argument ") and colon:
        return f"{names.split('/')[-1]}: {_REPHRASED.get(rest, rest)}"
    return message.replace("the following arguments are required:", "missing:").replace(
        "unrecognized arguments:", "unknown:"
    )


_REPHRASED = {"expected one argument": "needs a value", "expected at least one argument": "needs at least one value"}


def _positionals(command: Command) -> list[str]:
    entries = [entry for entry in command.options if not entry.names[0].startswith("-")]
    return [_ARITY[entry.settings.get("nargs")].format(entry.settings["metavar"]) for entry in entries]


_ARITY = {None: "{}", "?": "[{}]", "+": "{} ...", "*": "[{} ...]", argparse.REMAINDER: "[{} ...]"}


def _examples(examples: Iterable[tuple[str, str]]) -> str | None:
    rows = list(examples)
    if not rows:
        return None
    width = max(len(line) for line, _ in rows)
    return "examples:\n" + "\n".join(f"  {line:<{width}}  {'# ' + why if why else ''}".rstrip() for line, why in rows)
