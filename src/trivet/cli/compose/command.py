"""`trivet compose`: what people type."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import msgspec

from trivet.base.error import NotFound, TrivetError
from trivet.cli.argument import FILE, repeated
from trivet.cli.command import Command, Misuse, Option, flag, option
from trivet.cli.compose import image, log, plan, program, watch
from trivet.cli.compose.apply import Application
from trivet.cli.compose.project import NoComposeFile, Project, Wish, load, normal
from trivet.cli.compose.store import PROJECT
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, JSON, Column, print_table, show, write_json
from trivet.cli.value import seconds
from trivet.client.schema import Instance
from trivet.client.schema_network import Port


def project_of(args: Namespace, *, services: bool = True) -> Project:
    """Read the project of a command line; without files, where a name is enough, an empty one of that name."""
    wish = Wish(
        files=args.file,
        name=args.project_name,
        directory=args.project_directory,
        profiles=args.profile,
        env_files=args.env_file,
    )
    try:
        return load(wish, os.environ)
    except NoComposeFile:
        name = args.project_name or os.environ.get("COMPOSE_PROJECT_NAME", "")
        if services or not name:
            raise
        empty: dict[str, Any] = {
            "services": {},
            "dormant": {},
            "networks": {},
            "volumes": {},
            "configs": {},
            "secrets": {},
        }
        return Project(name=normal(name), directory="", files=(), variables={}, **empty)


def application_of(context: Context, args: Namespace, *, services: bool = True) -> Application:
    """Build the application of a command line."""
    as_json = getattr(args, "json", False)

    def tell(name: str, words: str) -> None:
        if as_json:
            write_json({"object": name, "status": words})
        elif not getattr(args, "quiet", False):
            context.note(f"{name}  {words}")

    return Application(context.client, project_of(args, services=services), tell, grace=getattr(args, "timeout", None))


def _wanted(args: Namespace, project: Project) -> plan.Wanted:
    counts = {}
    for text in args.scale:
        name, _, count = text.partition("=")
        if not count.isdecimal():
            raise Misuse(f"--scale: {text!r} is not SERVICE=N")
        project.wanted([name])
        counts[name] = int(count)
    return plan.Wanted(
        services=args.services,
        scale=counts,
        alone=args.no_deps,
        always=args.force_recreate,
        never=args.no_recreate,
    )


def up(context: Context, args: Namespace) -> int:
    """Make it so, and stay with it unless `-d`."""
    application = application_of(context, args)
    project, wanted = application.project, _wanted(args, application.project)
    application.renew = args.renew_anon_volumes
    names = project.wanted(args.services, alone=args.no_deps)
    image.provide(context, project, names, build=args.build, never_build=args.no_build, pull=args.pull)
    application.make_stores(names)
    _orphans(context, application, remove=args.remove_orphans)
    changes = plan.changes(context.client, project, wanted)
    application.converge(changes, start=not args.no_start, limit=args.wait_timeout)
    if args.wait:
        application.await_ready(names, args.wait_timeout)
    if args.detach or args.wait or args.no_start:
        return 0
    shown = [name for name in names if project.service(name).get("attach") is not False]
    return log.stay(application, shown, names, ends=args.abort_on_container_exit, chosen=args.exit_code_from)


def _orphans(context: Context, application: Application, *, remove: bool) -> None:
    found = plan.orphans(context.client, application.project)
    if found and not remove:
        names = ", ".join(one.name for one in found)
        context.warn(f"instances of services that are gone: {names} (--remove-orphans removes them)")
        return
    for one in found:
        context.client.instances.stop(one.id, grace=application.grace)
        context.client.instances.remove(one.id, force=True, volumes=True)
        application.tell(one.name, "removed")


def show_plan(context: Context, args: Namespace) -> int:
    """Tell what `up` would do."""
    project = project_of(args)
    steps = [
        one for one in plan.steps(context.client, project, _wanted(args, project)) if args.all or one.action != "keep"
    ]
    if args.json:
        for step in steps:
            write_json(step)
        return 0
    if not steps:
        print("nothing to do")
        return 0
    signs = {
        "create": "+",
        "build": "+",
        "pull": "+",
        "recreate": "~",
        "start": "~",
        "remove": "-",
        "orphan": "?",
        "keep": "=",
    }
    for step in steps:
        print(
            f"{signs[step.action]} {step.kind} {step.name}  {step.action}{f' ({step.reason})' if step.reason else ''}"
        )
    return 0


def down(context: Context, args: Namespace) -> int:
    """Stop and remove everything."""
    application = application_of(context, args, services=False)
    project, client = application.project, context.client
    there = plan.present(client, project.name)
    known = {*project.services, *project.dormant}
    mine = [one for one in there if not known or args.remove_orphans or one.labels.get(plan.SERVICE) in known]

    def end(name: str) -> None:
        application.together(
            lambda one: _end(application, name, one, volumes=args.volumes),
            [one for one in mine if one.labels.get(plan.SERVICE) == name],
        )

    present = {one.labels.get(plan.SERVICE, "") for one in mine}
    application.each_service([name for name in known if name in present], end, reverse=True)
    for name in sorted(present - known):
        end(name)
    _remove_stores(application, volumes=args.volumes)
    if args.rmi:
        image.remove(client, project, mine, every=args.rmi == "all", tell=application.tell)
    return 0


def _end(application: Application, name: str, one: Instance, *, volumes: bool) -> None:
    try:
        application.stop(name, one.id)
        application.client.instances.remove(
            one.id, force=True, volumes=True if volumes else not one.request.auto_remove
        )
    except NotFound:
        return  # it had --rm
    application.tell(one.name, "removed")


def _remove_stores(application: Application, *, volumes: bool) -> None:
    client, wanted = application.client, {"label": [f"{PROJECT}={application.project.name}"]}
    for network in client.networks.list(wanted):
        try:
            client.networks.remove(network.id)
            application.tell(f"network {network.name}", "removed")
        except TrivetError as error:
            application.tell(f"network {network.name}", f"stays: {error.message}")
    for volume in client.volumes.list(wanted=wanted) if volumes else []:
        client.volumes.remove(volume.name)
        application.tell(f"volume {volume.name}", "removed")


def ps(context: Context, args: Namespace) -> int:
    """List the instances."""
    project = project_of(args, services=False)
    rows = [
        one
        for one in plan.present(context.client, project.name)
        if (args.all or one.status not in ("exited", "dead", "created"))
        and (not args.services or one.labels.get(plan.SERVICE) in args.services)
    ]
    if args.quiet:
        for row in rows:
            print(row.id)
        return 0
    columns: list[Column[Instance]] = [
        Column("NAME", lambda row: row.name),
        Column("SERVICE", lambda row: row.labels.get(plan.SERVICE, "")),
        Column("IMAGE", lambda row: row.image),
        Column("LEVEL", lambda row: row.isolation),
        Column("STATUS", _status),
        Column("PORTS", lambda row: ", ".join(map(_port, row.ports))),
    ]
    show(rows, columns, args, lambda row: row.name)
    return 0


def _status(row: Instance) -> str:
    if row.status == "exited":
        return f"exited ({row.exit_code})"
    return f"{row.status} ({row.health.status})" if row.health else row.status


def _port(port: Port) -> str:
    address = f"[{port.host_address}]" if ":" in port.host_address else port.host_address or "0.0.0.0"
    return f"{address}:{port.host_port}->{port.container_port}/{port.protocol}"


def list_(context: Context, args: Namespace) -> int:
    """List the applications of the engine."""
    found: dict[str, list[Instance]] = {}
    for one in context.client.instances.list(all=True, wanted={"label": [PROJECT]}):
        found.setdefault(one.labels[PROJECT], []).append(one)
    rows = [
        (name, sum(1 for one in all if one.status == "running"), len(all), all[0].labels.get(plan.FILES, ""))
        for name, all in sorted(found.items())
    ]
    rows = [row for row in rows if args.all or row[1]]
    if args.json:
        for row in rows:
            write_json(dict(zip(("name", "running", "instances", "files"), row, strict=True)))
        return 0
    print_table(
        rows,
        [
            Column("NAME", lambda row: row[0]),
            Column("RUNNING", lambda row: f"{row[1]}/{row[2]}"),
            Column("FILES", lambda row: row[3]),
        ],
    )
    return 0


def config(context: Context, args: Namespace) -> int:
    """Show what the files mean."""
    project = project_of(args)
    if args.names:
        for name in project.wanted(()) if args.names == "services" else getattr(project, args.names):
            print(name)
        return 0
    if args.images:
        for name in project.services:
            print(plan.desired(project, name, 1)[0].image)
        return 0
    for name in project.services:
        plan.desired(project, name, 1)  # what can't be meant is told
    if not args.quiet:
        kinds = ("name", "services", "networks", "volumes", "configs", "secrets")
        found = {kind: getattr(project, kind) for kind in kinds if getattr(project, kind)}
        if args.json:
            write_json(found)
        else:
            import yaml

            sys.stdout.write(yaml.safe_dump(msgspec.to_builtins(found), sort_keys=False, allow_unicode=True))
    return 0


def each(verb: str, past: str, *, reverse: bool = False, all: bool = False) -> Callable[[Context, Namespace], int]:
    """Make a command that does one thing to the instances of services."""

    def run(context: Context, args: Namespace) -> int:
        application = application_of(context, args, services=False)
        project = application.project
        names = (
            project.wanted(args.services, alone=True)
            if project.services
            else sorted({one.labels.get(plan.SERVICE, "") for one in plan.present(context.client, project.name)})
        )

        def one(name: str) -> None:
            def act(instance: Instance) -> None:
                program.act(application, verb, name, instance, args)
                application.tell(instance.name, past)

            application.together(act, [it for it in application.instances(name) if all or _fits(verb, it.status)])

        if project.services:
            application.each_service(names, one, reverse=reverse)
        else:
            for name in args.services or names:
                one(name)
        return 0

    return run


def _fits(verb: str, status: str) -> bool:
    wanted = {"start": ("created", "exited", "dead"), "unpause": ("paused",), "rm": ("created", "exited", "dead")}
    return status in wanted.get(verb, ("running", "restarting", "paused"))


def _with_example(verb: str, command: Command) -> Command:
    example = (f"trivet compose {_EXAMPLES[verb]}", "") if verb in _EXAMPLES else command.examples[0]
    return command._replace(examples=command.examples or (example,))


SERVICES = option("services", metavar="SERVICE", nargs="*", help="only these")
GRACE = option(
    "-t", "--timeout", metavar="TIME", type=seconds, help="grace before they are killed (default: the service's)"
)
CHANGES = (
    repeated("--scale", metavar="SERVICE=N", help="how many instances of a service"),
    flag("--force-recreate", help="replace instances that are as they should be, too"),
    flag("--no-recreate", help="leave instances that aren't as they should be"),
    flag("--no-deps", help="leave services alone that these need"),
)


def _with_project(command: Command, short: bool) -> Command:
    """Add what finds the project; -f and -p have other meanings after some verbs, but stand in front of all."""
    own: tuple[Option, ...] = (
        repeated(
            *(("-f",) if short else ()),
            "--file",
            metavar="FILE",
            help="compose file (default: compose.yaml)",
            complete=FILE,
        ),
        option(
            *(("-p",) if short else ()), "--project-name", metavar="NAME", default="", help="name of the application"
        ),
        option("--project-directory", metavar="DIR", default="", help="what paths are relative to"),
        repeated("--profile", metavar="NAME", help="enable the services of a profile"),
        repeated("--env-file", metavar="FILE", help="values of variables (default: .env)", complete=FILE),
    )
    return command._replace(options=(*(one._replace(heading="project") for one in own), *command.options))


_TABLE = {
    "up": Command(
        up,
        (
            flag("-d", "--detach", help="leave it running in the background"),
            flag("--build", help="build images first, also those that are there"),
            flag("--no-build", help="never build images"),
            option(
                "--pull",
                metavar="WHEN",
                choices=("missing", "always", "never"),
                default="",
                help="pull images: missing, always, never",
            ),
            *CHANGES,
            flag("--no-start", help="only create"),
            flag("-V", "--renew-anon-volumes", help="don't carry anonymous volumes over"),
            flag("--remove-orphans", help="remove instances of services that are gone"),
            flag("--wait", help="wait until all run and are healthy, then leave"),
            option("--wait-timeout", metavar="TIME", type=seconds, help="how long at most"),
            flag("--abort-on-container-exit", help="stop all when one ends"),
            option("--exit-code-from", metavar="SERVICE", default="", help="end with this one's exit code"),
            GRACE,
            flag("-q", "--quiet", help="don't tell what is done"),
            *JSON,
            SERVICES,
        ),
        about="What is as the files say is left alone. `trivet compose plan` tells beforehand what would be done.",
        examples=(("trivet compose up -d --wait", ""), ("trivet compose -f shop.yaml up --scale web=3", "")),
    ),
    "down": Command(
        down,
        (
            flag("-v", "--volumes", help="remove the volumes too, with their data"),
            option(
                "--rmi",
                metavar="WHICH",
                choices=("all", "local"),
                default="",
                help="remove images: all, local (those without a name of their own)",
            ),
            flag("--remove-orphans", help="remove instances of services that are gone"),
            GRACE,
            flag("-q", "--quiet", help="don't tell what is done"),
            *JSON,
        ),
        examples=(("trivet compose down -v", "the data too"),),
    ),
    "plan": Command(
        show_plan,
        (*CHANGES, flag("-a", "--all", help="what stays as it is, too"), *JSON, SERVICES),
        examples=(("trivet compose plan", ""),),
    ),
    "ps": Command(
        ps,
        (
            flag("-a", "--all", help="those that don't run, too"),
            flag("-q", "--quiet", help="only ids"),
            *FORMAT,
            SERVICES,
        ),
    ),
    "ls": Command(list_, (flag("-a", "--all", help="those of which nothing runs, too"), *JSON)),
    "config": Command(
        config,
        (
            option("--services", action="store_const", const="services", dest="names", help="only the names"),
            option("--volumes", action="store_const", const="volumes", dest="names", help="only the names"),
            option("--networks", action="store_const", const="networks", dest="names", help="only the names"),
            flag("--images", help="only the names of the images"),
            flag("-q", "--quiet", help="only find mistakes"),
            *JSON,
        ),
        examples=(("trivet compose config", "files merged, values put in"),),
    ),
    "start": Command(each("start", "started"), (*JSON, SERVICES)),
    "stop": Command(each("stop", "stopped", reverse=True), (GRACE, *JSON, SERVICES)),
    "restart": Command(each("restart", "restarted", all=True), (GRACE, *JSON, SERVICES)),
    "kill": Command(
        each("kill", "killed"),
        (
            option("-s", "--signal", metavar="SIGNAL", default="KILL", help="by name or number (default: KILL)"),
            *JSON,
            SERVICES,
        ),
    ),
    "pause": Command(each("pause", "paused"), (*JSON, SERVICES)),
    "unpause": Command(each("unpause", "running again"), (*JSON, SERVICES)),
    "rm": Command(
        each("rm", "removed", reverse=True),
        (
            flag("-f", "--force", help="nothing is asked anyway"),
            flag("-v", "--volumes", help="their anonymous volumes, too"),
            *JSON,
            SERVICES,
        ),
    ),
    **log.COMMANDS,
    **image.COMMANDS,
    **program.COMMANDS,
    **watch.COMMANDS,
}
_EXAMPLES = {
    "ps": "ps -a",
    "ls": "ls -a",
    "start": "start web",
    "stop": "stop -t 30s",
    "restart": "restart web",
    "kill": "kill -s HUP web",
    "pause": "pause",
    "unpause": "unpause",
    "rm": "rm",
    "build": "build --pull",
    "pull": "pull",
    "push": "push web",
    "images": "images",
    "top": "top web",
    "port": "port web 80",
    "watch": "watch",
}
COMMANDS = {
    verb: _with_project(
        _with_example(verb, command), not {"-f", "-p"} & {name for one in command.options for name in one.names}
    )
    for verb, command in _TABLE.items()
}
