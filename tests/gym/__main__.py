"""`python -m tests.gym`: try all attacks on everybody who is installed, and write docs/gym.md."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests.gym.attack import Attack
from tests.gym.catalogue import ATTACKS
from tests.gym.host import Host
from tests.gym.program import build, installed
from tests.gym.report import Column, Word, page
from tests.gym.ring import Ring
from tests.gym.subject.contract import NotApplicable, Subject
from tests.gym.subject.engine import Docker, Podman
from tests.gym.subject.runtime import Runtime
from tests.gym.subject.trivet import Trivet

PAGE = Path("docs/gym.md")


def subjects() -> list[Subject]:
    """Name everybody who may be tried."""
    return [
        Trivet(),
        Docker("docker"),
        Podman(),
        Runtime("trivet-runtime", Path(sys.executable).with_name("trivet-runtime")),
        Runtime("runc", "runc"),
        Runtime("crun", "crun"),
    ]


def tried(subject: Subject, attacks: tuple[Attack, ...]) -> Column:
    """Try all attacks on one, on a host of its own."""
    column = Column(subject.name, "", [], {})
    if not isinstance(subject, Trivet) and (missing := installed(subject.name)) and subject.name != "trivet-runtime":
        column.failed = f"{missing} is not installed"
        return column
    with ExitStack() as undo:
        directory = Path(tempfile.mkdtemp(prefix="tg", dir="/tmp"))
        undo.callback(shutil.rmtree, directory, True)
        host = undo.enter_context(Host(build(directory)))
        try:
            undo.callback(subject.close)
            subject.open(host, directory / subject.name)
            column.version = subject.version()
        except (AssertionError, OSError) as error:
            column.failed = (str(error).strip().splitlines() or ["?"])[-1]
            return column
        ring = Ring(host, directory, subject, subject)
        for attack in attacks:
            column.words.append(_word(ring, attack, column))
            print(f"{subject.name}: {attack.name}: {column.words[-1]}", file=sys.stderr)
    return column


def _word(ring: Ring, attack: Attack, column: Column) -> Word:
    try:
        verdict = ring.real(attack)
    except NotApplicable:
        return Word.ABSENT
    if verdict.escaped:
        return Word.ESCAPED
    if verdict.damage:
        column.notes[attack.name] = "; ".join(verdict.damage)[:300]
        return Word.DAMAGED
    return Word.HELD


def main() -> None:
    """Try, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="these subjects")
    parser.add_argument("--attack", default="", help="attacks whose name holds this; the page is printed, not written")
    parser.add_argument("--jobs", type=int, default=2, help="how many subjects at once")
    args = parser.parse_args()
    attacks = tuple(attack for attack in ATTACKS if args.attack in attack.name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that hosts and directories go
    wanted = [subject for subject in subjects() if not args.only or subject.name in args.only]
    with ThreadPoolExecutor(args.jobs) as pool:
        columns = list(pool.map(lambda subject: tried(subject, attacks), wanted))
    text = page(attacks, columns)
    if args.attack or args.only:
        print(text)
    else:
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
