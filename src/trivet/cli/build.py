"""`build`: send the context, answer what the build asks for, show the steps."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import msgspec

from trivet.cli import terminal, value
from trivet.cli.argument import DIRECTORY, FILE, repeated
from trivet.cli.build_call import call_of, show_call
from trivet.cli.build_context import find_source
from trivet.cli.build_offer import Offer
from trivet.cli.build_progress import choose_build
from trivet.cli.command import Command, Misuse, flag, option
from trivet.cli.context import Context
from trivet.cli.output import JSON, write_json
from trivet.cli.progress import Transfer, follow
from trivet.cli.prune import prune_command
from trivet.client.errand import Errands
from trivet.client.schema_build import BuildRequest
from trivet.client.schema_limit import RlimitRequest

if TYPE_CHECKING:
    from trivet.cli.build_shell import Shell


def build(context: Context, args: Namespace) -> int:
    """Build an image."""
    with ExitStack() as undo:
        return _build(context, args, Offer(args, undo))


def _build(context: Context, args: Namespace, offer: Offer) -> int:
    display = choose_build(sys.stderr, quiet=args.quiet, style=args.progress)
    transfer = Transfer(display, "[internal]", "load build context")
    source = find_source(args, transfer)
    shell = _shell(args)
    answers = {**offer.answers, **({"shell": shell.answer} if shell else {})}
    with Errands(context.client.transport, answers) as errands:
        request = _request(args, offer, source.dockerfile, source.remote, errands.key)
        steps = context.client.images.build(lambda writer: source.produce(transfer.counting(writer)), request)
        result = follow(shell.watch(steps, transfer) if shell else steps, display=transfer)
    if request.call != "build":
        return show_call(result, as_json=args.json or args.call.endswith("json"))
    _write_files(args, result)
    if args.json:
        write_json(result)
    elif result.get("id"):
        print(result["id"])
    return 0


def _shell(args: Namespace) -> Shell | None:
    if args.on_error != "shell":
        return None
    if not terminal.is_terminal(0):
        hint = "leave it out where nobody can type"
        raise Misuse("--on-error shell needs a terminal, and standard input is none", hint=hint)
    from trivet.cli.build_shell import Shell  # few builds need what terminals take

    return Shell()


def _request(args: Namespace, offer: Offer, dockerfile: str, remote: str, session: str) -> BuildRequest:
    return BuildRequest(
        tags=args.tag,
        dockerfile=dockerfile,
        remote=remote,
        target=args.target,
        build_args=_arguments(args.build_arg),
        labels=dict(args.label),
        network=args.network,
        no_cache=args.no_cache,
        no_cache_filter=[name for text in args.no_cache_filter for name in text.split(",")],
        pull=args.pull,
        sbom=offer.attest["sbom"],
        provenance=offer.attest["provenance"],
        platform=",".join(args.platform),
        timestamp=_timestamp(args.timestamp),
        allow=[word for text in args.allow for word in text.split(",")],
        add_hosts=[text.replace("=", ":", 1) for text in args.add_host],
        ulimits=_ulimits(args.ulimit),
        shm_size=args.shm_size,
        memory=args.memory,
        session=session,
        secrets=list(offer.secrets),
        ssh=list(offer.agents),
        contexts=offer.contexts,
        outputs=offer.outputs,
        cache_from=offer.cache_from,
        cache_to=offer.cache_to,
        call=call_of(args),
        on_error=args.on_error,
    )


def _write_files(args: Namespace, result: dict[str, Any]) -> None:
    """Write --iidfile and --metadata-file."""
    if args.iidfile:
        _write(args.iidfile, str(result.get("id", "")))
    if args.metadata_file:
        found = {
            "containerimage.config.digest": result.get("id"),
            "containerimage.digest": result.get("digest"),
            "image.name": ",".join(result.get("names", ())),
        }
        raw = msgspec.json.encode({key: value for key, value in found.items() if value})
        _write(args.metadata_file, f"{msgspec.json.format(raw, indent=2).decode()}\n")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _arguments(items: list[str]) -> dict[str, str]:
    """Read `--build-arg KEY[=VALUE]`; without a value it comes from the environment, if it is there."""
    found = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not key:
            raise Misuse(f"--build-arg: {item!r} has no name; write KEY=VALUE")
        if equals or key in os.environ:
            found[key] = text if equals else os.environ[key]
    return found


def _ulimits(texts: list[str]) -> list[RlimitRequest]:
    if not texts:
        return []
    from trivet.cli.request import ulimit  # brings all that `run` needs

    return [ulimit(text) for text in texts]


def _timestamp(wanted: str) -> int | None:
    text, name = wanted or os.environ.get("SOURCE_DATE_EPOCH", ""), "--timestamp" if wanted else "SOURCE_DATE_EPOCH"
    if text and not text.isdecimal():
        raise Misuse(f"{name}: {text!r} is not a number of seconds")
    return int(text) if text else None


COMMANDS = {
    "build": Command(
        build,
        (
            repeated("-t", "--tag", metavar="NAME[:TAG]", help="name the image"),
            option("-f", "--file", metavar="FILE", help="Dockerfile (default: CONTEXT/Dockerfile)", complete=FILE),
            repeated("--build-arg", metavar="KEY[=VALUE]", help="value of an ARG"),
            option("--target", metavar="STAGE", default="", help="stop at this stage"),
            repeated("--label", metavar="KEY[=VALUE]", type=value.label, help="add a label to the image"),
            flag("--no-cache", help="run every step again"),
            flag("--pull", help="look for newer base images"),
            repeated("--no-cache-filter", metavar="STAGE", help="run this stage's steps again"),
            option("--network", metavar="NETWORK", default="", help="network of RUN: a name, host or none"),
            repeated("--platform", metavar="OS/ARCH", help="platform to build for; several make an index"),
            repeated("--secret", metavar="id=NAME[,src=FILE|,env=VAR]", help="a secret for RUN --mount=type=secret"),
            repeated(
                "--ssh",
                metavar="default|ID=SOCKET|ID=KEY,...",
                help="show an SSH agent, or keys, to RUN --mount=type=ssh",
            ),
            repeated(
                "--build-context", metavar="NAME=VALUE", help="directory, docker-image://, oci-layout:// or URL as NAME"
            ),
            repeated("--allow", metavar="GRANT", help="grant network.host, security.insecure or device[=NAME] to RUN"),
            repeated("--add-host", metavar="NAME:ADDRESS", help="add a line to /etc/hosts of RUN"),
            repeated("--ulimit", metavar="NAME=SOFT[:HARD]", help="resource limit of RUN"),
            option("--shm-size", metavar="SIZE", type=value.size, default=0, help="size of /dev/shm of RUN"),
            option("-m", "--memory", metavar="SIZE", type=value.size, default=0, help="memory limit of each RUN"),
            option("--timestamp", metavar="SECONDS", default="", help="date of all files, as SOURCE_DATE_EPOCH"),
            repeated(
                "-o", "--output", metavar="DEST|type=KIND,dest=PATH", help="files or an archive instead of an image"
            ),
            repeated("--cache-from", metavar="NAME|type=KIND,...", help="use an exported cache: registry or local"),
            repeated("--cache-to", metavar="NAME|type=KIND,...", help="export the cache: registry, local or inline"),
            option("--call", metavar="METHOD", default="build", help="build (default), check, outline or targets"),
            flag("--check", help="look for doubtful lines instead of building"),
            option("--on-error", choices=("fail", "shell"), default="fail", help="shell: open one in the failed step"),
            flag("--sbom", help="attach a list of the packages in the image (SPDX), pushed with it"),
            flag("--provenance", help="attach how the image was made (SLSA), pushed with it"),
            repeated("--attest", metavar="type=sbom|type=provenance", help="either of them, as docker build spells it"),
            flag("--push", help="push the image to the registries of its names"),
            flag("--load", help="keep the image (the default)"),
            option(
                "--progress", choices=("auto", "plain", "tty"), default="auto", help="how to show it (default: auto)"
            ),
            option("--iidfile", metavar="FILE", help="write the image's id to a file", complete=FILE),
            option("--metadata-file", metavar="FILE", help="write id, digest and names to a file", complete=FILE),
            flag("-q", "--quiet", help="print only the id"),
            *JSON,
            option(
                "context",
                metavar="CONTEXT",
                help="directory, URL or Git repository, or - for a Dockerfile or a tar on standard input",
                complete=DIRECTORY,
            ),
        ),
        about=("What .dockerignore names isn't sent. SOURCE_DATE_EPOCH, when set, is every time in the image."),
        examples=(
            ("trivet build -t web:1 .", ""),
            ("trivet build -f docker/web.Dockerfile --build-arg VERSION=3 .", ""),
            ("echo 'FROM scratch' | trivet build -t empty -", ""),
        ),
    ),
    "prune": prune_command(("build",), "trivet builder prune"),
}
