"""Arguments and options that many commands have, and what a shell completes them with."""

from __future__ import annotations

from typing import Any

from trivet.cli import value
from trivet.cli.command import Option, option

# What a shell completes these arguments with; the functions are in completion.py.
INSTANCE = {"bash": "_trivet_instances", "zsh": "_trivet_instances"}
IMAGE = {"bash": "_trivet_images", "zsh": "_trivet_images"}
VOLUME = {"bash": "_trivet_volumes", "zsh": "_trivet_volumes"}
NETWORK = {"bash": "_trivet_networks", "zsh": "_trivet_networks"}
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files"}
DIRECTORY = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}


def repeated(*names: str, **settings: Any) -> Option:
    """Describe an option that may be given several times."""
    return option(*names, action="append", default=[], **settings)


REF = option("instance", metavar="INSTANCE", help="name, id or beginning of an id", complete=INSTANCE)
REFS = option("instances", metavar="INSTANCE", nargs="+", help="name, id or beginning of an id", complete=INSTANCE)
FILTER = repeated("-f", "--filter", metavar="KEY=VALUE", type=value.pair, help="only those that match, e.g. label=web")
