"""The container a RUN step runs in, as a plan. Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.build.scope import env_list
from trivet.client.schema_build import BuildRequest
from trivet.isolation.plan import (
    Attachment,
    File,
    Level,
    Limits,
    Log,
    Mount,
    Plan,
    Program,
    Rlimit,
    Root,
    Security,
)
from trivet.kernel.capability import ALL, DEFAULT

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOSTNAME = "build"  # the same for every step and day, since programs write it into files
NAME = "build-step"  # in messages; the id is unique
PIDS = 16384
SHM = 64 << 20
SCRIPT = "/dev/script"


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A program to run in a step, with everything about the image that it can see.

    `script` is shown to it, executable, at `SCRIPT`. `security` is sandbox, or insecure: all of the host's rights.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    user: str
    network: str
    script: str = ""
    security: str = "sandbox"
    hostname: str = HOSTNAME


def make_plan(
    key: str,
    command: Command,
    *,
    root: Root,
    run: Path,
    cgroup: str,
    secret: dict[str, str],
    attachment: Attachment,
    files: tuple[File, ...] = (),
    mounts: tuple[Mount, ...] = (),
    wishes: BuildRequest | None = None,
) -> Plan:
    """Fold a command and its surroundings into a plan for the container level.

    A step may gain privileges inside its container (sudo), as people's Dockerfiles expect; the
    capabilities it can gain are an ordinary container's. What `secret` adds to the environment is no part of the image.
    """
    wishes = wishes or BuildRequest()
    insecure = command.security == "insecure"
    security = Security(
        capabilities=ALL if insecure else DEFAULT,
        no_new_privileges=False,
        seccomp="unconfined" if insecure else "default",
        privileged=insecure,
    )
    return Plan(
        id=key,
        name=NAME,
        level=Level.CONTAINER,
        program=Program(
            argv=command.argv,
            env=env_list({**secret, **command.env}),
            cwd=command.cwd,
            user=command.user,
        ),
        root=root,
        directory=str(run),
        cgroup=cgroup,
        log=Log(path=""),
        security=security,
        hostname=command.hostname,
        files=files,
        mounts=mounts,
        attachments=(attachment,),
        limits=Limits(pids=PIDS, memory=wishes.memory, cpu_shares=wishes.cpu_shares, cpuset=wishes.cpuset),
        rlimits=tuple(Rlimit(limit.name, limit.soft, limit.hard) for limit in wishes.ulimits),
        shm_size=wishes.shm_size or SHM,
    )


def run_directory(run: Path, key: str) -> Path:
    """Tell where a step's monitor lives; short, since socket paths end at 107 bytes."""
    return run / key[-12:]


def cgroup_of(parent: str, key: str) -> str:
    """Name a step's control group."""
    return f"{parent}/{key[-12:]}"
