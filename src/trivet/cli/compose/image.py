"""The images of an application: built, pulled, pushed, removed."""

from __future__ import annotations

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trivet.base.error import NotFound, TrivetError
from trivet.cli import build as building
from trivet.cli.argument import repeated
from trivet.cli.command import Command, Parser, build_parser, flag, option
from trivet.cli.compose import service
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.limit import rlimits
from trivet.cli.compose.merge import Value, as_list
from trivet.cli.compose.project import Project
from trivet.cli.compose.reader import Reader
from trivet.cli.context import Context
from trivet.cli.output import FORMAT, Column, short, show
from trivet.cli.progress import follow
from trivet.client.client import Client
from trivet.client.schema import Instance

BUILD = set(
    "context dockerfile dockerfile_inline args ssh labels cache_from cache_to no_cache no_cache_filter"
    " additional_contexts network pull target shm_size extra_hosts secrets tags ulimits platforms entitlements"
    " provenance sbom isolation".split()
)


def provide(
    context: Context, project: Project, names: Sequence[str], *, build: bool, never_build: bool, pull: str
) -> None:
    """See to it that the images of services are there. Raises what building or pulling one does."""
    done = set[str]()
    for name in names:
        own = project.service(name)
        image = service.image_name(name, own, project)
        if image in done:
            continue
        done.add(image)
        policy = pull or own_policy(own)
        there = _is_there(context.client, image)
        if own.get("build") and not never_build and (build or policy == "build" or not there):  # also --pull build
            make(context, project, name, own, ())
        elif not own.get("build") and (policy == "always" or (not there and policy != "never")):
            _pull(context, image, own)


def own_policy(own: Value) -> str:
    """Tell when a service's image is pulled: what is to be refreshed after some time is asked for each time."""
    policy = str(own.get("pull_policy") or "missing")
    return "always" if policy in ("refresh", "daily", "weekly") or policy.startswith("every_") else policy


def _pull(context: Context, image: str, own: Value) -> None:
    follow(context.client.images.pull(image, platform=str(own.get("platform", ""))))


def _is_there(client: Client, name: str) -> bool:
    try:
        client.images.get(name)
    except NotFound:
        return False
    return True


def make(context: Context, project: Project, name: str, own: Value, more: Sequence[str]) -> None:
    """Build the image of a service. Raises `ComposeError`, and what building does."""
    with tempfile.TemporaryDirectory() as directory:
        words = [*build_words(project, name, own, Path(directory)), *more, str(own["build"]["context"])]
        command = building.COMMANDS["build"]
        parser = build_parser(Parser(prog="trivet build", add_help=False, allow_abbrev=False), command, "build")
        stdout, sys.stdout = sys.stdout, sys.stderr  # the id of an image is not what `compose` answers
        try:
            command.run(context, parser.parse_args(words))
        finally:
            sys.stdout = stdout


def build_words(project: Project, name: str, own: Value, directory: Path) -> Iterator[str]:
    """Write a build as the options of `trivet build`; files it needs come into `directory`. Raises `ComposeError`."""
    found: Value = own["build"]
    place = f"services.{name}.build"
    if found.get("privileged"):
        raise ComposeError(f"{place}.privileged", "is not supported", "entitlements: [security.insecure]")
    if unknown := [key for key in found if key not in BUILD and not key.startswith("x-")]:
        raise ComposeError(f"{place}.{unknown[0]}", "is not supported", f"known are {', '.join(sorted(BUILD))}")
    yield from ("--tag", service.image_name(name, own, project))
    if found.get("dockerfile_inline"):
        (directory / "Dockerfile").write_text(str(found["dockerfile_inline"]))
        yield from ("--file", str(directory / "Dockerfile"))
    elif found.get("dockerfile"):
        path = Path(str(found["dockerfile"]))
        context = Path(str(found["context"]))
        yield from ("--file", str(context / path if context.is_dir() else path))
    for key, text in (found.get("args") or {}).items():
        known = project.variables.get(key) if text is None else text
        if known is not None:
            yield from ("--build-arg", f"{key}={known}")
    for key, text in (found.get("labels") or {}).items():
        yield from ("--label", f"{key}={text or ''}")
    for key, text in (found.get("additional_contexts") or {}).items():
        yield from ("--build-context", f"{key}={text}")
    for key, text in (found.get("ssh") or {}).items():
        yield from ("--ssh", f"{key}={text}" if text else str(key))
    for key, flag_ in _REPEATED.items():
        for text in as_list(found.get(key) or []):
            yield from (flag_, str(text))
    for key, flag_ in (("target", "--target"), ("network", "--network"), ("shm_size", "--shm-size")):
        if found.get(key):
            yield from (flag_, str(found[key]))
    for host, addresses in (found.get("extra_hosts") or {}).items():
        for address in str(addresses).split(","):
            yield from ("--add-host", f"{host}:{address}")
    for limit in rlimits(Reader(name, {"ulimits": found.get("ulimits")}, project)):
        yield from ("--ulimit", f"{limit.name.lower()}={limit.soft}:{limit.hard}")
    for key, flag_ in _SWITCHES.items():
        # provenance and sbom may say how, too: mode=max
        if found.get(key) and str(found[key]).lower() != "false":
            yield flag_
    for grant in found.get("secrets") or ():
        yield from ("--secret", _secret(project, place, grant))


_REPEATED = {
    "tags": "--tag",
    "cache_from": "--cache-from",
    "cache_to": "--cache-to",
    "platforms": "--platform",
    "entitlements": "--allow",
    "no_cache_filter": "--no-cache-filter",
}
_SWITCHES = {"no_cache": "--no-cache", "pull": "--pull", "provenance": "--provenance", "sbom": "--sbom"}


def _secret(project: Project, place: str, grant: Any) -> str:
    source = str(grant.get("source", "")) if isinstance(grant, dict) else str(grant)
    known = project.secrets.get(source)
    if known is None:
        raise ComposeError(f"{place}.secrets", f"there is no {source!r}", "add it to secrets:")
    target = str(grant.get("target") or source) if isinstance(grant, dict) else source
    return f"id={target}," + (f"src={known['file']}" if known.get("file") else f"env={known.get('environment')}")


def build(context: Context, args: Namespace) -> int:
    """Build the images of services."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args)
    more = [
        word
        for key, word in (("no_cache", "--no-cache"), ("pull", "--pull"), ("quiet", "--quiet"))
        if getattr(args, key)
    ]
    more += [word for text in args.build_arg for word in ("--build-arg", text)]
    more += [word for text in args.ssh for word in ("--ssh", text)]
    more += [word for key in ("memory", "progress") if getattr(args, key) for word in (f"--{key}", getattr(args, key))]
    more += [f"--{key}" for key in ("push", "provenance", "sbom", "check") if getattr(args, key)]
    names = args.services or list(project.services)
    for name in project.wanted(names, alone=not args.with_dependencies):
        own = project.service(name)
        if own.get("build"):
            make(context, project, name, own, more)
    return 0


def pull(context: Context, args: Namespace) -> int:
    """Pull the images of services that aren't built."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args)
    for name in project.wanted(args.services, alone=not args.include_deps):
        own = project.service(name)
        image = service.image_name(name, own, project)
        if own.get("build") or (args.policy == "missing" and _is_there(context.client, image)):
            continue
        with _forgiving(context, ignore=args.ignore_pull_failures):
            _pull(context, image, own)
    return 0


@contextmanager
def _forgiving(context: Context, *, ignore: bool) -> Iterator[None]:
    try:
        yield
    except TrivetError as error:
        if not ignore:
            raise
        context.complain(error)


def push(context: Context, args: Namespace) -> int:
    """Push the images of services that are built."""
    from trivet.cli.compose.command import project_of

    project = project_of(context, args)
    for name in project.wanted(args.services, alone=not args.include_deps):
        own = project.service(name)
        if own.get("build") and own.get("image"):
            with _forgiving(context, ignore=args.ignore_push_failures):
                follow(context.client.images.push(str(own["image"])))
    return 0


def images(context: Context, args: Namespace) -> int:
    """List the images of an application."""
    from trivet.cli.compose.command import project_of
    from trivet.cli.compose.plan import SERVICE, present

    found = present(context.client, project_of(context, args, services=False).name)
    found = [one for one in found if not args.services or one.labels.get(SERVICE) in args.services]
    if args.quiet:
        for key in dict.fromkeys(one.image_id for one in found):
            print(key)
        return 0
    columns: list[Column[Instance]] = [
        Column("INSTANCE", lambda row: row.name),
        Column("IMAGE", lambda row: row.image),
        Column("ID", lambda row: short(row.image_id)),
    ]
    show(found, columns, args, lambda row: row.image)
    return 0


def remove(
    client: Client, project: Project, instances: Sequence[Instance], *, every: bool, tell: Callable[[str, str], None]
) -> None:
    """Remove the images of an application: all, or those that have no name of their own in the files."""
    every_service = {**project.services, **project.dormant}
    local = {service.image_name(name, own, project) for name, own in every_service.items() if not own.get("image")}
    names = {one.image for one in instances} | {
        service.image_name(key, own, project) for key, own in every_service.items()
    }
    for name in sorted(names if every else local):
        try:
            client.images.remove(name)
            tell(f"image {name}", "removed")
        except NotFound:
            continue
        except TrivetError as error:
            tell(f"image {name}", f"stays: {error.message}")


_SERVICES = option("services", metavar="SERVICE", nargs="*", help="only these")
COMMANDS = {
    "build": Command(
        build,
        (
            flag("--no-cache", help="build everything anew"),
            flag("--pull", help="ask for newer base images"),
            repeated("--build-arg", metavar="KEY[=VALUE]", help="value of an ARG"),
            repeated("--ssh", metavar="NAME[=PATH]", help="an agent for RUN --mount=type=ssh"),
            option("-m", "--memory", metavar="SIZE", default="", help="memory limit of each RUN"),
            option("--progress", metavar="HOW", default="", help="how to show it: auto, plain, tty"),
            flag("--with-dependencies", help="what these need, too"),
            flag("--push", help="push the images, too"),
            flag("--provenance", help="attach how the images were made"),
            flag("--sbom", help="attach lists of their packages"),
            flag("--check", help="look for doubtful lines instead of building"),
            flag("-q", "--quiet", help="no progress"),
            _SERVICES,
        ),
    ),
    "pull": Command(
        pull,
        (
            flag("--include-deps", help="what these need, too"),
            option("--policy", choices=("missing", "always"), default="always", help="which (default: always)"),
            flag("--ignore-pull-failures", help="go on when one can't be pulled"),
            flag("--ignore-buildable", help="what is built is left out anyway"),
            flag("-q", "--quiet", help="no progress"),
            _SERVICES,
        ),
    ),
    "push": Command(
        push,
        (
            flag("--include-deps", help="what these need, too"),
            flag("--ignore-push-failures", help="go on when one can't be pushed"),
            flag("-q", "--quiet", help="no progress"),
            _SERVICES,
        ),
    ),
    "images": Command(images, (flag("-q", "--quiet", help="only ids"), *FORMAT, _SERVICES)),
}
