"""`make clones`: what happens is done by the commands that are printed, which can be typed by hand just as well."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.engine import engine
from demo.step import Failure, headline, note, trivet
from trivet.base.error import TrivetError
from trivet.client.client import Client

IMAGE, BASE, SOURCE = "demo-postgres", "debian:bookworm", "bootstrap:debian/bookworm"
NAME = "demo-database"
PATIENCE = 600.0  # seconds; an emulated machine on a busy host is slow
PROGRAMS = "/usr/lib/postgresql/15/bin"
SERVER = f"{PROGRAMS}/postgres -D /var/lib/postgresql/15/main"
PROGRAM = (
    "install -d -o postgres -g postgres /run/postgresql;"
    f" exec setpriv --reuid postgres --regid postgres --init-groups"
    f" {SERVER} -c config_file=/etc/postgresql/15/main/postgresql.conf"
)
ROWS = 20_000
LOAD = f"create table entry as select id, md5(id::text) as word from generate_series(1, {ROWS}) as id"
SUM = "select count(*), md5(string_agg(word, '' order by id)) from entry"
STARTED = "select pg_postmaster_start_time()"


def main() -> int:
    """Load, clone, compare, change, compare again; 0 when all of it is as it should be."""
    parser = argparse.ArgumentParser(prog="make clones", description=__doc__)
    parser.add_argument("--count", type=int, default=3, help="how many clones")
    arguments = parser.parse_args()
    try:
        with engine() as client, _removed(client):
            return _clone(client, arguments.count)
    except (Failure, TrivetError) as error:
        print(f"clones: {error}", file=sys.stderr)
        return 1


def _clone(client: Client, count: int) -> int:
    _image(client)
    headline("A database in a machine, with its data loaded")
    trivet("run", "-d", "--name", NAME, "--isolation", "vm", "-m", "384m", IMAGE, "sh", "-c", PROGRAM)
    _answers()
    _ask(NAME, LOAD)
    data, started = _ask(NAME, SUM), _ask(NAME, STARTED)
    note(f"{NAME}: {data}")
    headline(f"{count} clones of it")
    begun = time.monotonic()
    trivet("clone", NAME, "--count", str(count))
    clones = [f"{NAME}-{number}" for number in range(1, count + 1)]
    cloned = time.monotonic() - begun
    same = [_ask(each, SUM) == data and _ask(each, STARTED) == started for each in clones]
    answered = time.monotonic() - begun
    headline("Each goes its own way")
    for number, each in enumerate(clones, start=1):
        _ask(each, f"delete from entry where id <= {1000 * number}")
    counts = [int(_ask(each, SUM).split("|")[0]) for each in clones]
    note(f"cloned in {cloned:.1f} s, all have answered after {answered:.1f} s")
    note(f"rows then: {counts}, the original's {ROWS}")
    apart = counts == [ROWS - 1000 * number for number in range(1, count + 1)] and _ask(NAME, SUM) == data
    note("the same data, without a restart, and independent" if all(same) and apart else "not what was expected")
    return 0 if all(same) and apart else 1


def _image(client: Client) -> None:
    if any(f"{IMAGE}:latest" in image.names for image in client.images.list()):
        return
    headline("An image with PostgreSQL")
    trivet("pull", SOURCE)
    trivet("build", "-t", IMAGE, str(Path(__file__).parent))


def _answers() -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            _ask(NAME, "select 1")
            return
        except Failure:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _ask(name: str, question: str) -> str:
    return trivet("exec", "--user", "postgres", name, f"{PROGRAMS}/psql", "-qAtd", "postgres", "-c", question).strip()


@contextmanager
def _removed(client: Client) -> Iterator[None]:
    try:
        yield
    finally:
        for instance in client.instances.list(all=True):
            if instance.name.startswith(NAME):
                client.instances.remove(instance.id, force=True)


if __name__ == "__main__":
    sys.exit(main())
