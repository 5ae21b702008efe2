"""Overviews: `trivet --help`, and the help of a noun."""

from __future__ import annotations

from textwrap import fill

from trivet.cli.catalog import ENTRIES, NOUNS, Entry

TITLE = "trivet runs one OCI image as a process, a container or a virtual machine."

EXAMPLES = """\
examples:
  trivet run --rm debian:bookworm uname -r                  # a container
  trivet run --rm --isolation vm debian:bookworm uname -r   # the same, with a kernel of its own
  trivet run -d --name web -p 8080:80 nginx
  trivet logs -f web
"""

OPTIONS = """\
options, in front of the command:
  -H, --host ADDRESS   engine to talk to, unix:///PATH (default: TRIVET_HOST, or the machine's own)
  -D, --debug          show where in trivet an error came from
  -v, --version        show the versions of command and engine
  -h, --help           show this help
"""


def overview() -> str:
    """Write what `trivet --help` shows: every command with a short spelling, by group, and the nouns."""
    groups: dict[str, list[Entry]] = {}
    for entry in ENTRIES:
        if entry.short:
            groups.setdefault(entry.group, []).append(entry)
    parts = [TITLE + "\n", "usage: trivet [OPTION ...] COMMAND ...\n"]
    parts += [_block(group, [(entry.short, entry.summary) for entry in rows]) for group, rows in groups.items()]
    parts += [_block("nouns, each with commands of its own", [(noun, _verbs(noun)) for noun in NOUNS])]
    parts += [OPTIONS, EXAMPLES, "`trivet COMMAND --help` tells more about each.\n"]
    return "\n".join(parts)


def help_of_noun(noun: str) -> str:
    """Write the help of `trivet volume` and the like."""
    rows = [(entry.long.split()[1], entry.summary) for entry in ENTRIES if entry.long.startswith(f"{noun} ")]
    title = f"{noun}: {NOUNS[noun]}\n"
    return "\n".join([title, f"usage: trivet {noun} COMMAND ...\n", _block("commands", rows)])


def _verbs(noun: str) -> str:
    return " ".join(entry.long.split()[1] for entry in ENTRIES if entry.long.startswith(f"{noun} "))


def _block(title: str, rows: list[tuple[str, str]]) -> str:
    return f"{title}:\n" + "".join(_row(name, summary) for name, summary in rows)


def _row(name: str, summary: str) -> str:
    indent = " " * 15
    return fill(summary, 100, initial_indent=f"  {name:<12} ", subsequent_indent=indent) + "\n"
