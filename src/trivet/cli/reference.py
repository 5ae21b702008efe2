"""The reference page docs/cli.md, written from the tables: `python -m trivet.cli.reference > docs/cli.md`."""

from __future__ import annotations

import os

from trivet.cli.catalog import ENTRIES, Entry
from trivet.cli.help import overview
from trivet.cli.tree import build_one

WIDTH = 110

HEAD = """\
# The command `trivet`

This page is written by `python -m trivet.cli.reference`; a test compares the two.

* **Two spellings.** `trivet ps` and `trivet instance ls` are the same command.
* **Which engine.** `--host unix:///PATH` in front of the command, else `TRIVET_HOST`, else the default:
  `/run/trivet/trivet.sock` (`$XDG_RUNTIME_DIR/trivet/trivet.sock` for ordinary users). At the default address an engine
  that isn't running is started; its log is `trivetd.log` beside the socket. One that was named is never started.
* **Output.** Data goes to standard output, progress and messages to standard error. `--json` prints one JSON object per
  line, for lists as for streams; `inspect` prints one indented array. `--format name` prints bare names.
* **Values.** Sizes are `512`, `64k`, `512m`, `1.5g` (powers of 1024); durations `10`, `10s`, `1m30s`;
  times `10m` (ago), `2026-01-31T12:00:00Z` or Unix seconds.
* **Variables.** `TRIVET_HOST`; `TRIVET_ISOLATION`, the default of `--isolation`; `TRIVET_START=0`, never start an
  engine; `TRIVET_DEBUG`, as `--debug`; `SOURCE_DATE_EPOCH`, for builds.

## Exit codes

| code | of | meaning |
|---|---|---|
| 0 | all | done |
| 1 | all others | the request failed, or something was found wrong (`system check`) |
| 2 | all others | wrong usage |
| 125 | `run`, `exec`, `start` | wrong usage, or the engine refused or failed |
| 126 | `run`, `exec`, `start -a` | the program can't be executed |
| 127 | `run`, `exec`, `start -a` | there is no such program |
| 128+n | `run`, `exec`, `start -a`, `attach` | the program died of signal n |
| 130 | all others | interrupted |
| 141 | all others | the reader of standard output went away |
"""


def render() -> str:
    """Write the page."""
    os.environ["COLUMNS"] = str(WIDTH)
    parts = [HEAD, f"## Overview\n\n```text\n{overview()}```\n", *(_section(entry) for entry in ENTRIES)]
    return "\n".join(parts)


def _section(entry: Entry) -> str:
    also = f"\n\nAlso `trivet {entry.long}`." if entry.short and entry.long else ""
    return f"## trivet {entry.spelling}\n\n```text\n{build_one(entry).format_help()}```{also}\n"


if __name__ == "__main__":
    print(render(), end="")
