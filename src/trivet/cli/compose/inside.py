"""What is done with one instance of a service: copying, attaching, exporting, committing; and what happens to it."""

from __future__ import annotations

from argparse import Namespace

from trivet.base.error import NotFound
from trivet.cli import copy, outcome, session, system
from trivet.cli.argument import FILE, repeated
from trivet.cli.command import Command, flag, option
from trivet.cli.compose import plan
from trivet.cli.compose.program import INDEX, SERVICE, instance_of
from trivet.cli.compose.store import PROJECT
from trivet.cli.context import Context
from trivet.cli.option import KEYS, PROXY
from trivet.cli.output import JSON, write_json
from trivet.cli.value import moment
from trivet.client.schema import Instance


def cp(context: Context, args: Namespace) -> int:
    """Copy in the direction the arguments tell; SERVICE:PATH is inside."""
    for key in ("source", "target"):
        name, colon, path = getattr(args, key).partition(":")
        if colon and name and "/" not in name and not name.startswith("."):
            args.service = name
            every = plan.SERVICE if args.all and key == "target" else ""
            found = _every(context, args) if every else [instance_of(context, args, all=True)]
            for one in found[:-1]:
                copy.copy(context, Namespace(**{**vars(args), key: f"{one.id}:{path}"}))
            setattr(args, key, f"{found[-1].id}:{path}")
    return copy.copy(context, args)


def _every(context: Context, args: Namespace) -> list[Instance]:
    from trivet.cli.compose.command import project_of

    there = plan.present(context.client, project_of(context, args, services=False).name)
    found = [one for one in there if one.labels.get(plan.SERVICE) == args.service]
    if not found:
        raise NotFound(f"{args.service} has no instance", hint="trivet compose ps -a")
    return found


def attach(context: Context, args: Namespace) -> int:
    """Connect to an instance of a service."""
    args.instance = instance_of(context, args).id
    return session.attach(context, args)


def export(context: Context, args: Namespace) -> int:
    """Write the root of an instance of a service to a tar."""
    args.instance = instance_of(context, args, all=True).id
    return outcome.export(context, args)


def commit(context: Context, args: Namespace) -> int:
    """Make an image of an instance of a service."""
    args.instance = instance_of(context, args, all=True).id
    return outcome.commit(context, args)


def wait(context: Context, args: Namespace) -> int:
    """Wait until the instances of services end, print their exit codes; end with the last one that isn't 0."""
    from trivet.cli.compose import command

    there = plan.present(context.client, command.project_of(context, args, services=False).name)
    code = 0
    for one in there:
        if one.labels.get(plan.SERVICE) in args.services and not plan.is_one_off(one):
            ended = context.client.instances.wait(one.id).code
            code = ended or code
            print(ended, flush=True)
    if args.down_project:
        values = {"services": [], "volumes": False, "remove_orphans": False, "rmi": "", "quiet": True, "timeout": None}
        command.down(context, Namespace(**{**vars(args), **values}))
    return code


def events(context: Context, args: Namespace) -> int:
    """Follow what happens to the instances of an application."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args, services=False)
    wanted = {"label": [f"{PROJECT}={project.name}"], "kind": ["instance"]}
    found = context.client.system.events(
        since=args.since or "", until=args.until or "", follow=not args.until, wanted=wanted
    )
    for event in found:
        if args.services and event.labels.get(plan.SERVICE) not in args.services:
            continue
        if args.json:
            write_json(event)
        else:
            print(system.line_of(event), flush=True)
    return 0


COMMANDS = {
    "cp": Command(
        cp,
        (
            flag("-a", "--archive", help="keep owners and set-id bits"),
            flag("-L", "--follow-link", help="copy what a symbolic link points to"),
            flag("-q", "--quiet", help="no progress"),
            flag("--all", help="into every instance of the service"),
            INDEX,
            option("source", metavar="SOURCE", help="path, SERVICE:PATH, or - for a tar", complete=FILE),
            option("target", metavar="TARGET", help="path, SERVICE:PATH, or - for a tar", complete=FILE),
        ),
        examples=(("trivet compose cp web:/etc/nginx/nginx.conf .", ""),),
    ),
    "attach": Command(
        attach,
        (flag("--no-stdin", help="only watch"), KEYS, PROXY, INDEX, SERVICE),
        examples=(("trivet compose attach web", "ctrl-p ctrl-q leaves it running"),),
    ),
    "export": Command(
        export,
        (
            option("-o", "--output", metavar="FILE", help="tar to write", complete=FILE),
            flag("-q", "--quiet", help="no progress"),
            INDEX,
            SERVICE,
        ),
        examples=(("trivet compose export -o web.tar web", ""),),
    ),
    "commit": Command(
        commit,
        (
            option("-a", "--author", metavar="NAME", default="", help="who made it"),
            repeated("-c", "--change", metavar="INSTRUCTION", help="Dockerfile instruction to apply"),
            option("-m", "--message", metavar="TEXT", default="", help="why it was made"),
            flag("--no-pause", help="don't let it stand still meanwhile"),
            *JSON,
            INDEX,
            SERVICE,
            option("name", metavar="NAME[:TAG]", nargs="?", default="", help="name of the image"),
        ),
        examples=(("trivet compose commit web shop/web:mended", ""),),
    ),
    "wait": Command(
        wait,
        (
            flag("--down-project", help="remove the application when the first have ended"),
            *JSON,
            option("services", metavar="SERVICE", nargs="+", help="whose"),
        ),
        examples=(("trivet compose wait test", ""),),
    ),
    "events": Command(
        events,
        (
            option("--since", metavar="TIME", type=moment, help="from a time, or a duration ago: 10m"),
            option("--until", metavar="TIME", type=moment, help="up to a time, or a duration ago"),
            *JSON,
            option("services", metavar="SERVICE", nargs="*", help="only these"),
        ),
        examples=(("trivet compose events --json", ""),),
    ),
    "version": Command(system.version, (*JSON,), examples=(("trivet compose version", ""),)),
}
