"""The whole parser tree at once: for shell completion and the reference page."""

from __future__ import annotations

import argparse

from trivet.cli.catalog import ENTRIES, NOUNS, Entry
from trivet.cli.command import build_parser


def build_tree() -> argparse.ArgumentParser:
    """Build `trivet` with every command under both spellings."""
    top = argparse.ArgumentParser("trivet", description="One image as a process, a container or a virtual machine.")
    top.add_argument("-H", "--host", metavar="ADDRESS", help="engine to talk to")
    top.add_argument("-D", "--debug", action="store_true", help="show where an error came from")
    top.add_argument("-v", "--version", action="store_true", help="show versions")
    verbs = top.add_subparsers(metavar="COMMAND")
    nouns = {
        noun: verbs.add_parser(noun, help=text, description=text).add_subparsers(metavar="COMMAND")
        for noun, text in NOUNS.items()
    }
    for entry in ENTRIES:
        if entry.short:
            build_parser(
                verbs.add_parser(entry.short, help=entry.summary, add_help=False), entry.command(), entry.summary
            )
        if entry.long:
            noun, verb = entry.long.split()
            parser = nouns[noun].add_parser(verb, help=entry.summary, add_help=False)
            build_parser(parser, entry.command(), entry.summary)
    return top


def build_one(entry: Entry) -> argparse.ArgumentParser:
    """Build the parser of one command under its first spelling."""
    parser = argparse.ArgumentParser(f"trivet {entry.spelling}", add_help=False)
    return build_parser(parser, entry.command(), entry.summary)
