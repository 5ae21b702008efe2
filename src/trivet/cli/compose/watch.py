"""`compose watch`: what `develop.watch` says is to be done when files change."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trivet.build.ignore import Ignore
from trivet.cli.command import Command, flag, option
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.merge import Value, as_list
from trivet.cli.context import Context
from trivet.client.archive import tar_writer
from trivet.client.connection import Writer
from trivet.client.schema import ExecRequest

if TYPE_CHECKING:
    from trivet.cli.compose.apply import Application

ACTIONS = ("sync", "rebuild", "restart", "sync+restart", "sync+exec")
BEAT = 0.3  # seconds between two looks

Seen = dict[str, tuple[int, int]]


class Rule(NamedTuple):
    """One entry of `develop.watch`."""

    service: str
    action: str
    path: Path
    target: str
    ignore: Ignore
    command: list[str]
    include: tuple[str, ...] = ()
    initial: bool = False

    def takes(self, name: str) -> bool:
        """Tell whether a file is among those that are to be included."""
        return not self.include or any(matches(name, pattern) for pattern in self.include)


def rules(name: str, service: Value) -> list[Rule]:
    """Read the rules of a service. Raises `ComposeError`."""
    found = []
    for one in (service.get("develop") or {}).get("watch", ()):
        place, action = f"services.{name}.develop.watch", str(one.get("action", ""))
        if action not in ACTIONS:
            raise ComposeError(place, f"{action!r} is none of {', '.join(ACTIONS)}")
        if action.startswith("sync") and not one.get("target"):
            raise ComposeError(place, f"{action} has no target")
        text = "\n".join(str(line) for line in as_list(one.get("ignore") or []))
        command = (one.get("exec") or {}).get("command", [])
        words = command.split() if isinstance(command, str) else list(map(str, command))
        initial = bool(one.get("initial_sync", False))
        if initial and not action.startswith("sync"):
            raise ComposeError(place, f"initial_sync means nothing with {action}")
        path, target = Path(str(one["path"])), str(one.get("target", ""))
        include = tuple(str(line) for line in as_list(one.get("include") or []))
        found.append(Rule(name, action, path, target, Ignore.read(text), words, include, initial))
    return found


def matches(name: str, pattern: str) -> bool:
    """Tell whether a pattern means a file: by its path, by a directory it is in, or without a slash by its name."""
    clean = pattern.strip().removeprefix("./").rstrip("/")
    parts = name.split("/")
    ways = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(fnmatchcase(way, clean) for way in ways) or ("/" not in clean and fnmatchcase(parts[-1], clean))


def look(rule: Rule) -> Seen:
    """Note every file below a rule's path: when it was changed, and its size."""
    seen: Seen = {}
    pending = [rule.path]
    while pending:
        path = pending.pop()
        name = str(path.relative_to(rule.path))
        try:
            facts = path.lstat()
            if name != "." and rule.ignore.excludes(name):
                continue
            if path.is_dir() and not path.is_symlink():
                pending.extend(Path(one.path) for one in os.scandir(path))
            elif rule.takes(name):
                seen[name] = (facts.st_mtime_ns, facts.st_size)
        except OSError:
            continue  # it is just being written
    return seen


def react(application: Application, context: Context, rule: Rule, changed: list[str], gone: list[str]) -> None:
    """Do what a rule says of files that have changed or are gone."""
    from trivet.cli.compose import image, plan

    client = application.client
    if rule.action == "rebuild":
        image.make(context, application.project, rule.service, application.project.service(rule.service), ())
        wanted = plan.Wanted(services=[rule.service], alone=True)
        application.converge(plan.changes(client, application.project, wanted))
        return
    for instance in application.instances(rule.service):
        if rule.action.startswith("sync"):
            client.instances.write_archive(instance.id, "/", lambda writer: _tar(rule, changed, writer))
            paths = [_inside(rule, name) for name in gone]
            if paths and instance.status == "running":
                with client.instances.exec(instance.id, ExecRequest(command=["rm", "-rf", "--", *paths])) as stream:
                    for _ in stream:
                        pass
            application.tell(instance.name, f"synced {len(changed) + len(gone)} files")
        if rule.action.endswith("restart"):
            client.instances.restart(instance.id, grace=application.grace)
            application.tell(instance.name, "restarted")
        if rule.command:
            with client.instances.exec(instance.id, ExecRequest(command=rule.command)) as stream:
                for _ in stream:
                    pass


def _inside(rule: Rule, name: str) -> str:
    return rule.target if name == "." else f"{rule.target.rstrip('/')}/{name}"


def _tar(rule: Rule, names: list[str], writer: Writer) -> None:
    with tar_writer(writer) as tar:
        for name in names:
            entry = tar.gettarinfo(rule.path / name, arcname=_inside(rule, name).lstrip("/"))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if entry.isreg():
                with (rule.path / name).open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)


def watch(context: Context, args: Namespace) -> int:
    """Look at the files again and again, until Ctrl-C."""
    from trivet.cli.compose import plan
    from trivet.cli.compose.command import application_of

    application = application_of(context, args)
    project = application.project
    found = [one for name in project.wanted(args.services) for one in rules(name, project.service(name))]
    if not found:
        raise ComposeError("services", "nothing is to be watched", "add develop: watch: to a service")
    if not args.no_up:
        names = project.wanted(args.services)
        application.make_stores(names)
        application.converge(plan.changes(context.client, project, plan.Wanted(services=args.services)))
    seen = {number: look(rule) for number, rule in enumerate(found)}
    for number, rule in enumerate(found):
        if rule.initial and seen[number]:
            react(application, context, rule._replace(action="sync", command=[]), list(seen[number]), [])
    context.note("watching; Ctrl-C ends it")
    while True:
        time.sleep(BEAT)
        for number, rule in enumerate(found):
            now = look(rule)
            before, seen[number] = seen[number], now
            changed = [name for name, facts in now.items() if before.get(name) != facts]
            gone = [name for name in before if name not in now]
            if changed or gone:
                react(application, context, rule, changed, gone)


COMMANDS = {
    "watch": Command(
        watch,
        (
            flag("--no-up", help="don't start the services first"),
            option("services", metavar="SERVICE", nargs="*", help="only these"),
        ),
        about="Rules are under develop: watch: of a service: sync, rebuild, restart, sync+restart, sync+exec.",
    ),
}
