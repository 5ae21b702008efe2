"""Options that several commands of `compose` have."""

from __future__ import annotations

from trivet.cli.argument import FILE, repeated
from trivet.cli.command import Command, Option, flag, option
from trivet.cli.value import seconds

SERVICES = option("services", metavar="SERVICE", nargs="*", help="only these")
GRACE = option(
    "-t", "--timeout", metavar="TIME", type=seconds, help="grace before they are killed (default: the service's)"
)
COUNTS = repeated("--scale", metavar="SERVICE=N", help="how many instances of a service")
CHANGES = (
    COUNTS,
    flag("--force-recreate", help="replace instances that are as they should be, too"),
    flag("--no-recreate", help="leave instances that aren't as they should be"),
    flag("--no-deps", help="leave services alone that these need"),
)
MAKING = (
    flag("--build", help="build images first, also those that are there"),
    flag("--no-build", help="never build images"),
    option(
        "--pull",
        metavar="WHEN",
        choices=("missing", "always", "never", "build"),
        default="",
        help="pull images: missing, always, never; build: build what can be built",
    ),
    flag("--quiet-pull", help="no progress of pulls"),
    *CHANGES,
    flag("-V", "--renew-anon-volumes", help="don't carry anonymous volumes over"),
    flag("--remove-orphans", help="remove instances of services that are gone"),
    flag("-y", "--yes", help="nothing is asked anyway"),
)
QUIET = flag("-q", "--quiet", help="don't tell what is done")
WAIT = (
    flag("--wait", help="wait until all run and are healthy, then leave"),
    option("--wait-timeout", metavar="TIME", type=seconds, help="how long at most"),
)


def with_project(command: Command, short: bool) -> Command:
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
