"""`completion`: scripts for bash and zsh; names of objects come from the engine when it runs."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli.command import Command, option
from trivet.cli.context import Context

# Only a running engine is asked: pressing tab shouldn't start one.
_LIST = "TRIVET_START=0 trivet {} --format name 2>/dev/null"
_NOUNS = {"instances": "ps -a", "images": "images", "volumes": "volume ls", "networks": "network ls"}

PREAMBLE = {
    "bash": "".join(
        f'_trivet_{noun}() {{ compgen -W "$({_LIST.format(words)})" -- "$1"; }}\n' for noun, words in _NOUNS.items()
    ),
    "zsh": "".join(
        f'_trivet_{noun}() {{ local -a names; names=(${{(f)"$({_LIST.format(words)})"}}); compadd -a names; }}\n'
        for noun, words in _NOUNS.items()
    ),
}


def completion(context: Context, args: Namespace) -> int:
    """Print the script."""
    import shtab  # nobody else needs it

    from trivet.cli.tree import build_tree

    print(shtab.complete(build_tree(), shell=args.shell, preamble=PREAMBLE[args.shell]))
    return 0


COMMANDS = {
    "completion": Command(
        completion,
        (option("shell", metavar="SHELL", choices=("bash", "zsh"), help="bash or zsh"),),
        examples=(
            ("trivet completion bash > /etc/bash_completion.d/trivet", ""),
            ('trivet completion zsh > "${fpath[1]}/_trivet"', ""),
        ),
    ),
}
