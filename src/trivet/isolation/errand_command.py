"""What a guest's shell is told to do: a program as its user, or what the launcher's builtins do on the other levels.

Everything of the user's goes in as arguments or variables, never as shell text.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable

import msgspec

from trivet.base.clock import rfc3339
from trivet.base.error import Corrupt, Unsupported
from trivet.isolation.plan import Plan, Program

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_FOUND = 44
"""Exit status for a path that isn't there, as the launcher's builtins have it."""
_SHOW = '[ -e "$1" ] || [ -L "$1" ] || exit 44; '
_READ = f'{_SHOW}exec tar -C "$2" -cf - -- "$3"'
_WRITE = '[ -d "$1" ] || exit 44; exec tar -C "$1" --numeric-owner -xpf -'
_STAT = f'{_SHOW}stat -c "%f %s %.9Y" -- "$1" && readlink -- "$1"; true'
_PROCESSES = "exec ps -eo pid=,ppid=,uid=,etimes=,cputimes=,args="


class TerminalUnsupported(Unsupported):
    """A terminal that the guest agent can't give."""

    def __init__(self, machine: str) -> None:
        super().__init__(
            f"cannot give a program in machine {machine} a terminal: its guest agent passes none",
            hint=f"trivet vm console {machine}, or ssh",
        )


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A shell's text and arguments, the environment, and what becomes of the output at the end (None: it flows)."""

    text: str
    arguments: tuple[str, ...]
    env: tuple[str, ...] = (PATH,)
    change: Callable[[bytes], bytes] | None = None


def command(plan: Plan, program: Program) -> Command:
    """Translate a program. Raises `Unsupported` for a terminal."""
    if program.terminal:
        raise TerminalUnsupported(plan.name)
    path = program.argv[0]
    match program.builtin:
        case "archive-read":
            whole = path if path.rstrip("/") else "/."
            clean = whole.rstrip("/") or "/"
            return Command(text=_READ, arguments=(whole, posixpath.dirname(clean) or "/", posixpath.basename(clean)))
        case "archive-write":
            return Command(text=_WRITE, arguments=(path,))
        case "stat":
            return Command(text=_STAT, arguments=(path,), change=lambda output: _stat(path, output))
        case "processes":
            return Command(text=_PROCESSES, arguments=(), change=_processes)
        case "":
            return _program(program)
    raise Unsupported(f"cannot do {program.builtin} in machine {plan.name}")


def _program(program: Program) -> Command:
    become = 'exec setpriv --reuid "$U" --regid "$G" --init-groups -- "$@"' if program.user else 'exec "$@"'
    user, _, group = program.user.partition(":")
    text = f'cd -- "$D" || exit 126; unset D U G; {become}'
    if program.user:  # the names are looked up in the guest; a group that isn't said is the user's own
        text = (
            'cd -- "$D" || exit 126; u=$U g=${G:-$(id -g -- "$U")} || exit 126; unset D U G; '
            'exec setpriv --reuid "$u" --regid "$g" --init-groups -- "$@"'
        )
    env = (*(program.env or (PATH,)), f"D={program.cwd or '/'}", f"U={user}", f"G={group}")
    return Command(text=text, arguments=program.argv, env=env)


def _stat(path: str, output: bytes) -> bytes:
    first, _, link = output.decode(errors="surrogateescape").partition("\n")
    try:
        mode, size, modified = first.split(" ")
        seconds, _, rest = modified.partition(".")
        time = int(seconds) * 1_000_000_000 + int(rest or 0)
        found = {
            "name": posixpath.basename(path.rstrip("/")) or "/",
            "mode": int(mode, 16),
            "size": int(size),
            "modified": rfc3339(time) or "1970-01-01T00:00:00Z",
            "link": link.removesuffix("\n"),
        }
        return msgspec.json.encode(found)
    except (ValueError, OverflowError, OSError) as error:
        raise Corrupt(f"the guest's answer about {path} cannot be understood: {error}") from error


def _processes(output: bytes) -> bytes:
    """Spell the lines as the builtin does: pid, parent, user, age and CPU time in ms, command."""
    lines = []
    for line in output.decode(errors="replace").splitlines():
        words = line.split(None, 5)
        if len(words) == 6 and all(word.isdigit() for word in words[:5]):
            pid, parent, user, age, used, name = words
            lines.append(f"{pid} {parent} {user} {age}000 {used}000 {name}")
    return ("\n".join(lines) + "\n").encode()
