"""`compose watch`: what `develop.watch` says is to be done when files change."""

from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trivet.base.error import TrivetError
from trivet.build.ignore import Ignore
from trivet.cli.command import Command, flag, option
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.hook import program
from trivet.cli.compose.merge import Value, as_list
from trivet.cli.compose.project import Project
from trivet.cli.compose.store import truth
from trivet.cli.context import Context
from trivet.client.archive import tar_writer
from trivet.client.connection import Writer
from trivet.client.schema import ExecRequest, PruneRequest
from trivet.client.stream import Exit

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
    command: ExecRequest | None
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
        command = program(one["exec"], f"{place}.exec") if one.get("exec") else None
        if action == "sync+exec" and command is None:
            raise ComposeError(f"{place}.exec", "is missing: what sync+exec is to run")
        initial = truth(one.get("initial_sync"), f"{place}.initial_sync")
        if initial and not action.startswith("sync"):
            raise ComposeError(place, f"initial_sync means nothing with {action}")
        path, target = Path(str(one["path"])), str(one.get("target", ""))
        include = tuple(str(line) for line in as_list(one.get("include") or []))
        found.append(Rule(name, action, path, target, Ignore.read(text), command, include, initial))
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
        if rule.command and instance.status == "running":
            with client.instances.exec(instance.id, rule.command) as stream:
                code = next((event.code for event in stream if isinstance(event, Exit)), 0)
            application.tell(instance.name, f"ran {rule.command.command[0]}{f', exit code {code}' if code else ''}")


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
    found = all_rules(project, project.wanted(args.services))
    if not args.no_up:
        names = project.wanted(args.services)
        application.make_stores(names)
        application.converge(plan.changes(context.client, project, plan.Wanted(services=args.services)))
    if args.prune:
        context.client.system.prune(PruneRequest(kinds=["images"]))
    context.note("watching; Ctrl-C ends it")
    follow(application, context, found)
    return 0


def all_rules(project: Project, names: Sequence[str]) -> list[Rule]:
    """Read the rules of services. Raises `ComposeError` if there are none."""
    found = [one for name in names for one in rules(name, project.service(name))]
    if not found:
        raise ComposeError("services", "nothing is to be watched", "add develop: watch: to a service")
    return found


def follow(application: Application, context: Context, found: list[Rule]) -> None:
    """Do what rules say whenever files change, without end."""
    seen = {number: look(rule) for number, rule in enumerate(found)}
    for number, rule in enumerate(found):
        if rule.initial and seen[number]:
            react(application, context, rule._replace(action="sync", command=None), list(seen[number]), [])
    while True:
        time.sleep(BEAT)
        for number, rule in enumerate(found):
            now = look(rule)
            before, seen[number] = seen[number], now
            changed = [name for name, facts in now.items() if before.get(name) != facts]
            gone = [name for name in before if name not in now]
            if not (changed or gone):
                continue
            try:
                react(application, context, rule, changed, gone)
            except TrivetError as error:  # a build that fails is mended, and tried again with the next change
                context.complain(error)


COMMANDS = {
    "watch": Command(
        watch,
        (
            flag("--no-up", help="don't start the services first"),
            flag("--prune", help="remove images that nothing uses first"),
            flag("--quiet", help="don't tell what is done"),
            option("services", metavar="SERVICE", nargs="*", help="only these"),
        ),
        about="Rules are under develop: watch: of a service: sync, rebuild, restart, sync+restart, sync+exec.",
    ),
}
