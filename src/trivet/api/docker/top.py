"""What runs in containers, as ps shows it: `docker top`.

What is asked most is answered from what the engine knows. For anything else it is ps that knows its own arguments: the
host's, of what the host sees.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import datetime

from aiohttp import web

from trivet.api.docker.route import Route, answer, name
from trivet.base.error import InvalidArgument, Unsupported
from trivet.client.schema import TopRow
from trivet.engine.engine import Engine

COLUMNS: dict[str, Callable[[TopRow], str]] = {
    # ps's names for one fact, by any of which it can be asked for
    "uid": lambda row: row.user,
    "user": lambda row: row.user,
    "pid": lambda row: str(row.pid),
    "ppid": lambda row: str(row.ppid),
    "c": lambda row: str(round(row.cpu)),
    "pcpu": lambda row: str(row.cpu),
    "%cpu": lambda row: str(row.cpu),
    "stime": lambda row: _moment(row),
    "start": lambda row: _moment(row),
    "tty": lambda row: "?",
    "time": lambda row: _span(row.used),
    "cmd": lambda row: row.command,
    "args": lambda row: row.command,
    "command": lambda row: row.command,
    "comm": lambda row: row.command.split(" ")[0].rpartition("/")[2],
}
TITLES = {"comm": "COMMAND", "args": "COMMAND", "pcpu": "%CPU"}
EVERY = re.compile(r"-[eAa]f?o\b")  # -eo is -e -o
FULL = ("uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
STYLES: dict[str, tuple[str, ...]] = {"": FULL, "-ef": FULL, "-f": FULL, "ef": FULL}
MACHINE: dict[str, tuple[str, ...]] = {"aux": ("user", "pid", "%cpu", "start", "time", "command")}
RENAMED = re.compile(r"\s(\S*)=\s*(PID\S*)")
OWNER = ("UID", "USER", "EUSER", "EUID")
PATIENCE = 20  # seconds
Table = tuple[list[str], list[list[str]]]


async def top(engine: Engine, request: web.Request) -> web.StreamResponse:
    """List processes: titles, and the columns of each."""
    arguments, key = request.query.get("ps_args", "").strip(), engine.instances.key(name(request))
    found = await engine.instances.inspect(key)
    machine = found.isolation == "vm"
    columns = _columns(arguments, {**STYLES, **MACHINE} if machine else STYLES)
    if columns and "pid" not in columns:
        raise InvalidArgument("Couldn't find PID field in ps output")
    if machine and not columns:
        raise Unsupported(
            f"ps arguments {arguments!r} are not supported at level vm: -ef, aux or -o {','.join(COLUMNS)}"
        )
    rows = await engine.instances.top(key)
    titles, shown = _known(columns, rows) if columns else await asyncio.to_thread(_asked, arguments, rows)
    engine.instances.tell(key, "top")
    return answer({"Titles": titles, "Processes": shown})


def _columns(arguments: str, styles: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Read ps's arguments: a style, or `-o` with columns; nothing if there is more in them."""
    if arguments in styles:
        return styles[arguments]
    style, option, wanted = EVERY.sub(r"-e -o ", arguments).rpartition("-o")
    columns = tuple(wanted.strip(" ").replace(" ", ",").lower().split(","))
    understood = option and style.strip() in (*styles, "-e", "-a") and set(columns) <= COLUMNS.keys()
    return columns if understood else ()


def _known(columns: tuple[str, ...], rows: list[TopRow]) -> Table:
    titles = [TITLES.get(column, column.upper()) for column in columns]
    return titles, [[COLUMNS[column](row) for column in columns] for row in rows]


def _asked(arguments: str, rows: list[TopRow]) -> Table:
    """Ask the host's ps, and keep the lines of these processes. Raises `InvalidArgument`, `Unsupported`."""
    if match := RENAMED.search(f" {arguments}"):
        raise InvalidArgument(f'specifying "{match[1]}={match[2]}" is not allowed')
    if not (program := shutil.which("ps")):
        raise Unsupported(f"ps arguments {arguments!r} need a program ps on the host", hint="apt-get install procps")
    words = arguments.split()
    done = _run([program, *words, "-q", ",".join(str(row.pid) for row in rows)])
    if done.returncode:  # a sorted list or a tree is never one of chosen processes
        done = _run([program, *words])
    if done.returncode:
        raise InvalidArgument(f"ps: {done.stderr.partition(chr(10))[0]}")
    return _read(done.stdout, {str(row.pid): row for row in rows})


def _run(line: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unsupported(f"{' '.join(line)} did not end within {PATIENCE} s") from None


def _read(output: str, rows: dict[str, TopRow]) -> Table:
    """Find the processes in ps's output, whose last column may hold spaces; users are those inside."""
    head, *lines = output.splitlines() or [""]
    titles = head.split()
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    place, owner = titles.index("PID"), next((titles.index(each) for each in OWNER if each in titles), None)
    shown = []
    for line in lines:
        fields = line.split(None, len(titles) - 1)
        if len(fields) == len(titles) and (row := rows.get(fields[place])):
            if owner is not None:
                fields[owner] = row.user
            shown.append([field.rstrip() if field is fields[-1] else field for field in fields])
    return titles, shown


def _moment(row: TopRow) -> str:
    """Spell when it was started: the hour, or the day when that was another."""
    started = datetime.fromisoformat(row.started[:19] + "+00:00").astimezone()
    return started.strftime("%H:%M" if time.time() - started.timestamp() < 24 * 3600 else "%b%d")


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), 24 * 3600)
    return time.strftime(f"{days}-%H:%M:%S" if days else "%H:%M:%S", time.gmtime(rest))


ROUTES = (Route("GET", "/containers/{name}/top", top, ("ps_args",)),)
