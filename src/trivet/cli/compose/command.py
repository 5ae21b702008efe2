"""`trivet compose`: what people type."""

from __future__ import annotations

import os
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.error import NotFound, TrivetError
from trivet.cli.archive import output_
from trivet.cli.argument import FILE, repeated
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.compose import image, inside, listing, log, plan, program, watch
from trivet.cli.compose.apply import Application
from trivet.cli.compose.option import CHANGES, GRACE, MAKING, QUIET, SERVICES, WAIT, with_project
from trivet.cli.compose.project import NoComposeFile, Project, Wish, load, normal, profiles
from trivet.cli.compose.store import PROJECT
from trivet.cli.context import Context
from trivet.cli.output import JSON, write_json
from trivet.client.address import default_socket, parse_address
from trivet.client.schema import Instance


def project_of(context: Context, args: Namespace, *, services: bool = True) -> Project:
    """Read the project of a command line; without files, where a name is enough, an empty one of that name."""
    wish = Wish(
        files=args.file,
        name=args.project_name,
        directory=args.project_directory,
        profiles=args.profile,
        env_files=args.env_file,
        socket=_docker_socket(context),
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


def _docker_socket(context: Context) -> str:
    """Tell where the engine speaks Docker's API, unless it was told another place: beside its own socket."""
    text = context.host or os.environ.get("TRIVET_HOST", "")
    own = parse_address(text) if text else default_socket()
    return str(Path(own).with_name("docker.sock"))


def application_of(context: Context, args: Namespace, *, services: bool = True) -> Application:
    """Build the application of a command line."""
    as_json = getattr(args, "json", False)

    def tell(name: str, words: str) -> None:
        if as_json:
            write_json({"object": name, "status": words})
        elif not getattr(args, "quiet", False):
            context.note(f"{name}  {words}")

    return Application(
        context.client, project_of(context, args, services=services), tell, grace=getattr(args, "timeout", None)
    )


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
        always=getattr(args, "force_recreate", False),
        never=getattr(args, "no_recreate", False),
    )


def up(context: Context, args: Namespace) -> int:
    """Make it so, and stay with it unless `-d`."""
    application = application_of(context, args)
    project = application.project
    for name in args.services:
        if name in project.jobs:
            raise Misuse(f"{name} is a job", hint=f"trivet compose run --rm {name}")
    names = _make(context, application, args, start=not args.no_start)
    if args.wait:
        application.await_ready(names, args.wait_timeout)
    if args.detach or args.wait or args.no_start:
        return 0
    if args.watch:
        threading.Thread(
            target=watch.follow, args=(application, context, watch.all_rules(project, names)), daemon=True
        ).start()
    shown = [name for name in args.attach or names if project.service(name).get("attach") is not False]
    shown = [name for name in shown if name not in args.no_attach]
    ends = "any" if args.abort_on_container_exit else "failure" if args.abort_on_container_failure else ""
    return log.stay(application, shown, names, args, ends=ends, chosen=args.exit_code_from)


def _make(context: Context, application: Application, args: Namespace, *, start: bool) -> list[str]:
    project, wanted = application.project, _wanted(args, application.project)
    application.renew = args.renew_anon_volumes
    names = project.wanted(args.services, alone=args.no_deps)
    image.provide(context, project, names, build=args.build, never_build=args.no_build, pull=args.pull)
    application.make_stores(names)
    _orphans(context, application, remove=args.remove_orphans)
    changes = plan.changes(context.client, project, wanted)
    application.converge(changes, start=start, limit=getattr(args, "wait_timeout", None))
    return names


def create(context: Context, args: Namespace) -> int:
    """Make what isn't there, without starting it."""
    _make(context, application_of(context, args), args, start=False)
    return 0


def scale(context: Context, args: Namespace) -> int:
    """Let there be so many instances of services."""
    args.scale = args.numbers
    args.services = [text.partition("=")[0] for text in args.numbers]
    application = application_of(context, args)
    wanted = _wanted(args, application.project)
    names = application.project.wanted(args.services, alone=args.no_deps)
    image.provide(context, application.project, names, build=False, never_build=False, pull="")
    application.make_stores(names)
    application.converge(plan.changes(context.client, application.project, wanted))
    return 0


def _orphans(context: Context, application: Application, *, remove: bool) -> None:
    found = plan.orphans(context.client, application.project)
    remove = remove or os.environ.get("COMPOSE_REMOVE_ORPHANS", "").lower() in ("1", "true")
    if found and not remove and os.environ.get("COMPOSE_IGNORE_ORPHANS", "").lower() in ("1", "true"):
        return
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
    project = project_of(context, args)
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
    for name in args.services:
        if name not in known:
            raise NotFound(f"there is no service {name} in {project.name}")
    wanted = set(args.services) or known
    mine = [one for one in there if not wanted or args.remove_orphans or one.labels.get(plan.SERVICE) in wanted]

    def end(name: str) -> None:
        application.together(
            lambda one: _end(application, name, one, volumes=args.volumes),
            [one for one in mine if one.labels.get(plan.SERVICE) == name],
        )

    present = {one.labels.get(plan.SERVICE, "") for one in mine}
    application.each_service([name for name in known if name in present], end, reverse=True)
    for name in sorted(present - known):
        end(name)
    if not args.services:
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


def config(context: Context, args: Namespace) -> int:
    """Show what the files mean; secrets that only who starts it has needn't be there."""
    project = project_of(context, args)
    stores = (*project.secrets.values(), *project.configs.values())
    absent = {str(found["environment"]): "" for found in stores if found and found.get("environment")}
    project = msgspec.structs.replace(project, variables={**absent, **project.variables})
    with output_(args.output) if args.output else nullcontext(1) as output:
        for line in _config(project, args):
            os.write(output, f"{line}\n".encode())
    return 0


def _config(project: Project, args: Namespace) -> Iterator[str]:
    if args.names == "profiles":
        yield from profiles(project)
    elif args.names == "variables":
        yield from (f"{name}={text}" for name, text in sorted(project.variables.items()))
    elif args.names:
        yield from project.wanted(()) if args.names == "services" else getattr(project, args.names)
    elif args.images:
        yield from (plan.desired(project, name, 1)[0].image for name in project.services)
    elif args.hash is not None:
        names = list(project.services) if args.hash in ("", "*") else args.hash.split(",")
        for name in project.wanted(names, alone=True):
            yield f"{name} {plan.desired(project, name, 1)[0].labels[plan.HASH]}"
    else:
        for name in project.services:
            plan.desired(project, name, 1)  # what can't be meant is told
        if not args.quiet:
            yield _shown(project, as_json=args.json or args.format == "json").rstrip("\n")


def _shown(project: Project, *, as_json: bool) -> str:
    kinds = ("name", "services", "jobs", "networks", "volumes", "configs", "secrets")
    found = {kind: getattr(project, kind) for kind in kinds if getattr(project, kind)}
    if as_json:
        return msgspec.json.encode(found).decode()
    import yaml

    return str(yaml.safe_dump(msgspec.to_builtins(found), sort_keys=False, allow_unicode=True))


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

        forced = all or getattr(args, "stop", False)

        def one(name: str) -> None:
            def act(instance: Instance) -> None:
                if verb == "rm" and not _fits(verb, instance.status):
                    application.stop(name, instance.id)
                program.act(application, verb, name, instance, args)
                application.tell(instance.name, past)

            application.together(act, [it for it in application.instances(name) if forced or _fits(verb, it.status)])

        if project.services:
            application.each_service(names, one, reverse=reverse)
        else:
            for name in args.services or names:
                one(name)
        if getattr(args, "wait", False):
            application.await_ready(names, args.wait_timeout)
        return 0

    return run


def _fits(verb: str, status: str) -> bool:
    wanted = {"start": ("created", "exited", "dead"), "unpause": ("paused",), "rm": ("created", "exited", "dead")}
    return status in wanted.get(verb, ("running", "restarting", "paused"))


def _with_example(verb: str, command: Command) -> Command:
    example = (f"trivet compose {_EXAMPLES[verb]}", "") if verb in _EXAMPLES else command.examples[0]
    return command._replace(examples=command.examples or (example,))


_TABLE = {
    "up": Command(
        up,
        (
            flag("-d", "--detach", help="leave it running in the background"),
            *MAKING,
            flag("--no-start", help="only create"),
            *WAIT,
            repeated("--attach", metavar="SERVICE", help="show only what these write"),
            repeated("--no-attach", metavar="SERVICE", help="don't show what these write"),
            *log.LOOK,
            flag("--timestamps", help="write the time in front of each line"),
            flag("--abort-on-container-exit", help="stop all when one ends"),
            flag("--abort-on-container-failure", help="stop all when one ends with another exit code than 0"),
            option("--exit-code-from", metavar="SERVICE", default="", help="end with this one's exit code"),
            flag("-w", "--watch", help="do what `develop: watch:` says when files change"),
            GRACE,
            QUIET,
            *JSON,
            SERVICES,
        ),
        about="What is as the files say is left alone. `trivet compose plan` tells beforehand what would be done.",
        examples=(("trivet compose up -d --wait", ""), ("trivet compose -f shop.yaml up --scale web=3", "")),
    ),
    "create": Command(create, (*MAKING, QUIET, *JSON, SERVICES), examples=(("trivet compose create", ""),)),
    "scale": Command(
        scale,
        (
            flag("--no-deps", help="leave services alone that these need"),
            *JSON,
            option("numbers", metavar="SERVICE=N", nargs="+", help="how many instances of a service"),
        ),
        examples=(("trivet compose scale web=3 worker=5", ""),),
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
            QUIET,
            *JSON,
            SERVICES,
        ),
        examples=(("trivet compose down -v", "the data too"), ("trivet compose down web", "only this service")),
    ),
    "plan": Command(
        show_plan,
        (*CHANGES, flag("-a", "--all", help="what stays as it is, too"), *JSON, SERVICES),
        examples=(("trivet compose plan", ""),),
    ),
    "config": Command(
        config,
        (
            *(
                option(f"--{what}", action="store_const", const=what, dest="names", help="only the names")
                for what in ("services", "volumes", "networks", "profiles")
            ),
            option(
                "--variables",
                "--environment",
                action="store_const",
                const="variables",
                dest="names",
                help="their values",
            ),
            flag("--images", help="only the names of the images"),
            option("--hash", metavar="SERVICE", help="what tells a changed service from its instances; * for all"),
            option("--format", choices=("yaml", "json"), default="yaml", help="how to show it (default: yaml)"),
            option("-o", "--output", metavar="FILE", help="file to write", complete=FILE),
            flag("-q", "--quiet", help="only find mistakes"),
            *JSON,
        ),
        examples=(("trivet compose config", "files merged, values put in"),),
    ),
    "start": Command(each("start", "started"), (*WAIT, *JSON, SERVICES)),
    "stop": Command(each("stop", "stopped", reverse=True), (GRACE, *JSON, SERVICES)),
    "restart": Command(
        each("restart", "restarted", all=True), (GRACE, flag("--no-deps", help="only these anyway"), *JSON, SERVICES)
    ),
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
            flag("-s", "--stop", help="stop what runs first"),
            flag("-v", "--volumes", help="their anonymous volumes, too"),
            *JSON,
            SERVICES,
        ),
    ),
    **listing.COMMANDS,
    **log.COMMANDS,
    **image.COMMANDS,
    **inside.COMMANDS,
    **program.COMMANDS,
    **watch.COMMANDS,
}
_EXAMPLES = {
    "ps": "ps -a",
    "volumes": "volumes",
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
    verb: with_project(
        _with_example(verb, command), not {"-f", "-p"} & {name for one in command.options for name in one.names}
    )
    for verb, command in _TABLE.items()
}
