"""Going inside: `exec`, `run`, `top`, `port`, and what is done to instances one by one."""

from __future__ import annotations

import argparse
import os
import secrets
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from trivet.base.error import Conflict, NotFound
from trivet.cli import terminal
from trivet.cli.argument import FILE, repeated
from trivet.cli.attach import Settings, converse
from trivet.cli.command import REFUSED, Command, Misuse, flag, option
from trivet.cli.compose import plan
from trivet.cli.compose.interpolation import read_file
from trivet.cli.compose.project import Project
from trivet.cli.compose.secret import File
from trivet.cli.compose.store import truth
from trivet.cli.context import Context
from trivet.cli.instance import COMMANDS as OF_INSTANCES
from trivet.cli.mount import volume
from trivet.cli.option import KEYS
from trivet.cli.port import publish
from trivet.cli.run import signal_sender
from trivet.cli.session import exec_ as exec_instance
from trivet.cli.value import label, natural
from trivet.client.schema import Instance, InstanceRequest, RestartPolicy

if TYPE_CHECKING:
    from trivet.cli.compose.apply import Application


def act(application: Application, verb: str, name: str, instance: Instance, args: Namespace) -> None:
    """Do one thing to one instance."""
    instances = application.client.instances
    if verb == "start":
        application.start(name, instance.id)
    elif verb == "stop":
        application.stop(name, instance.id)
    elif verb == "restart":
        instances.restart(instance.id, grace=application.grace)
    elif verb == "kill":
        instances.kill(instance.id, signal=args.signal)
    elif verb == "pause":
        instances.pause(instance.id)
    elif verb == "unpause":
        instances.resume(instance.id)
    else:
        instances.remove(instance.id, volumes=args.volumes)


def instance_of(context: Context, args: Namespace, *, all: bool = False) -> Instance:
    """Find the instance that a service and --index mean. Raises `NotFound`."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args, services=False)
    mine = [
        one
        for one in plan.present(context.client, project.name)
        if one.labels.get(plan.SERVICE) == args.service and not plan.is_one_off(one)
    ]
    found = [one for one in mine if args.index in (0, plan.number_of(one)) and (all or one.status == "running")]
    if not found:
        which = f"instance {args.index} of " if args.index else ""
        raise NotFound(f"{which}{args.service} doesn't run in {project.name}", hint="trivet compose ps -a")
    return found[0]


def exec_(context: Context, args: Namespace) -> int:
    """Run a further program in an instance of a service."""
    interactive = not args.no_tty and terminal.is_terminal(0)
    args.instance = instance_of(context, args).id
    args.env_file, args.interactive, args.tty = [], not args.detach, interactive and not args.detach
    return exec_instance(context, args)


def run(context: Context, args: Namespace) -> int:
    """Run a service once, with another command."""
    from trivet.cli.compose import image
    from trivet.cli.compose.command import application_of

    application = application_of(context, args)
    project, name = application.project, args.service
    if not truth(project.jobs.get(name, {}).get("triggers", {}).get("manual", True), f"jobs.{name}.triggers.manual"):
        raise Conflict(f"job {name} is not to be begun by hand", hint="triggers: {manual: true} permits it")
    names = project.wanted([name], alone=args.no_deps)
    image.provide(context, project, names, build=args.build, never_build=False, pull=args.pull)
    application.make_stores(names)
    if len(names) > 1:
        wanted = plan.Wanted(services=[one for one in names if one != name])
        application.converge(plan.changes(context.client, project, wanted))
    request, files = _request(project, name, args)
    key = application.create(request, files)
    try:
        if args.detach:
            application.start(name, key)
            print(request.name)
            return 0
        with context.client.instances.attach(key, start=True, stdin=request.stdin) as stream:
            forward = signal_sender(context, key)
            settings = Settings(request.terminal, request.stdin, True, True, args.detach_keys, forward)
            return converse(stream, settings)
    finally:
        if args.rm and not args.detach:
            context.client.instances.remove(key, force=True, volumes=True)


def _request(project: Project, name: str, args: Namespace) -> tuple[InstanceRequest, tuple[File, ...]]:
    request, files = plan.desired(project, name, 1)
    tty = not args.no_tty and not args.detach and terminal.is_terminal(0)
    rows, columns = terminal.size() if tty else (0, 0)
    known = [
        f"{one}={text}"
        for path in args.env_from_file
        for one, text in read_file(Path(path), os.environ).items()
        if text is not None
    ]
    known += [
        f"{one}={os.environ[one]}" if "=" not in one else one for one in args.env if "=" in one or one in os.environ
    ]
    own = msgspec.structs.replace(
        request,
        name=args.name or f"{project.name}-{name}-run-{secrets.token_hex(6)}",
        command=args.command or request.command,
        entrypoint=[args.entrypoint] if args.entrypoint else request.entrypoint,
        env=[*request.env, *known],
        user=args.user or request.user,
        cwd=args.workdir or request.cwd,
        mounts=[*request.mounts, *args.volume],
        ports=[*(request.ports if args.service_ports else ()), *(one for text in args.publish for one in text)],
        networks=[
            msgspec.structs.replace(one, aliases=one.aliases if args.use_aliases else [], ip="", ip6="", mac="")
            for one in request.networks
        ],
        labels={key: text for key, text in request.labels.items() if key != plan.NUMBER}
        | dict(args.label)
        | {plan.ONE_OFF: "True"},
        cap_add=[*request.cap_add, *args.cap_add],
        cap_drop=[*request.cap_drop, *args.cap_drop],
        restart=RestartPolicy(),
        health=None,
        terminal=tty,
        stdin=not args.detach,
        rows=rows,
        columns=columns,
    )
    return own, files


def top(context: Context, args: Namespace) -> int:
    """List the processes of services."""
    from trivet.cli.compose.command import project_of

    for one in plan.present(context.client, project_of(context, args, services=False).name):
        if one.status == "running" and (not args.services or one.labels.get(plan.SERVICE) in args.services):
            print(one.name)
            args.instance, args.format = one.id, "table"
            OF_INSTANCES["top"].run(context, args)
            print()
    return 0


def port(context: Context, args: Namespace) -> int:
    """Print where a port of a service is published."""
    number, _, protocol = args.port.partition("/")
    if not number.isdecimal():
        raise Misuse(f"{args.port!r} is not PORT[/udp]")
    for one in instance_of(context, args).ports:
        if (one.container_port, one.protocol) == (int(number), protocol or args.protocol):
            address = one.host_address or "0.0.0.0"
            print(f"[{address}]:{one.host_port}" if ":" in address else f"{address}:{one.host_port}")
            return 0
    raise NotFound(f"port {args.port} of {args.service} is not published")


INDEX = option("--index", metavar="N", type=natural, default=0, help="which of several instances")
SERVICE = option("service", metavar="SERVICE", help="whose")
_PROGRAM = (
    repeated("-e", "--env", metavar="KEY[=VALUE]", help="set a variable"),
    option("-w", "--workdir", metavar="DIR", default="", help="working directory inside"),
    option("-u", "--user", metavar="USER[:GROUP]", default="", help="name or number"),
    flag("-T", "--no-tty", help="no terminal"),
    flag("-d", "--detach", help="don't wait for it"),
    flag("-i", "--interactive", help="standard input is passed on anyway"),
    flag("-t", "--tty", help="a terminal is what a terminal gets anyway"),
    KEYS,
)
_COMMAND = option("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="program and its arguments")
COMMANDS = {
    "exec": Command(
        exec_,
        (*_PROGRAM, flag("--privileged", help="with all privileges"), INDEX, SERVICE, _COMMAND),
        examples=(("trivet compose exec db psql -U postgres", ""),),
        failed=REFUSED,
        misused=REFUSED,
    ),
    "run": Command(
        run,
        (
            *_PROGRAM,
            flag("--rm", help="remove it afterwards"),
            flag("--build", help="build the image first"),
            flag("--no-deps", help="leave services alone that it needs"),
            option("--name", metavar="NAME", default="", help="name of the instance"),
            option("--entrypoint", metavar="PROGRAM", default="", help="replace the entrypoint"),
            repeated("-v", "--volume", metavar="SOURCE:TARGET", type=volume, help="a further mount"),
            repeated("-p", "--publish", metavar="PORTS", type=publish, help="publish a port"),
            flag("-P", "--service-ports", help="publish the service's ports"),
            repeated("-l", "--label", metavar="KEY[=VALUE]", type=label, help="attach a label"),
            repeated("--cap-add", metavar="CAPABILITY", help="add a capability"),
            repeated("--cap-drop", metavar="CAPABILITY", help="drop a capability"),
            repeated("--env-from-file", metavar="FILE", help="set variables from a file", complete=FILE),
            option("--pull", choices=("missing", "always", "never"), default="", help="when to pull the image"),
            flag("-q", "--quiet", help="don't tell what is done"),
            flag("--remove-orphans", help="orphans are left alone anyway"),
            flag("--use-aliases", help="with the service's names on its networks"),
            SERVICE,
            _COMMAND,
        ),
        examples=(("trivet compose run --rm web sh", ""),),
        failed=REFUSED,
        misused=REFUSED,
    ),
    "top": Command(top, (option("services", metavar="SERVICE", nargs="*", help="only these"),)),
    "port": Command(
        port,
        (
            INDEX,
            option("--protocol", choices=("tcp", "udp"), default="tcp", help="of the port (default: tcp)"),
            SERVICE,
            option("port", metavar="PORT[/udp]", help="port inside"),
        ),
    ),
}
