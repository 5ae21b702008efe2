"""From parsed options to the request: pure, but for the files that options name."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from trivet.base.error import InvalidArgument
from trivet.cli import endpoint, terminal, value
from trivet.cli.command import Misuse
from trivet.client.schema import BlockLimitRequest, InstanceRequest, LevelName, LogRequest, RestartPolicy, RlimitRequest
from trivet.client.schema_health import HealthCheck

_RESTART = re.compile(r"(no|always|unless-stopped|on-failure)(?::(\d+))?")
_UNCONFINED = "systempaths=unconfined"
_ULIMIT = re.compile(r"([a-z]+)=(-?\d+)(?::(-?\d+))?")
LEVELS: dict[str, LevelName] = {"process": "process", "container": "container", "vm": "vm"}
PULLS: dict[str, Literal["missing", "always", "never"]] = {"missing": "missing", "always": "always", "never": "never"}


class UnreadableFile(InvalidArgument):
    """A file named by an option can't be used."""


def request_of(args: Namespace, environ: Mapping[str, str]) -> InstanceRequest:
    """Translate the options of `run` and `create`. Raises `Misuse` and `UnreadableFile`."""
    rows, columns = terminal.size() if args.tty else (0, 0)
    seccomp, no_new_privileges = security(args.security_opt)
    return InstanceRequest(
        image=args.image,
        isolation=level(args, environ),
        name=args.name,
        command=args.command,
        entrypoint=None if args.entrypoint is None else [args.entrypoint] if args.entrypoint else [],
        env=environment(args, environ),
        cwd=args.workdir,
        user=args.user,
        groups=args.group_add,
        umask=args.umask,
        hostname=args.hostname,
        terminal=args.tty,
        stdin=args.interactive,
        rows=rows,
        columns=columns,
        mounts=[*args.volume, *args.mount, *args.tmpfs],
        secrets=args.secret,
        ports=[port for ports in args.publish for port in ports],
        publish_all=args.publish_all,
        exposed=args.expose,
        links=args.link,
        networks=endpoint.wanted(args),
        dns=args.dns,
        dns_search=args.dns_search,
        dns_options=args.dns_option,
        extra_hosts=[_host(text) for text in args.add_host],
        memory=args.memory,
        memory_swap=args.memory_swap,
        memory_reservation=args.memory_reservation,
        cpus=args.cpus,
        cpu_shares=args.cpu_shares,
        cpuset=args.cpuset_cpus,
        cpuset_mems=args.cpuset_mems,
        swappiness=args.memory_swappiness,
        oom_kill_disable=args.oom_kill_disable,
        oom_score_adj=args.oom_score_adj,
        block_limits=[
            msgspec.convert({"device": device, field: rate}, BlockLimitRequest)
            for field in BlockLimitRequest.__struct_fields__[1:]
            for device, rate in getattr(args, f"device_{field.replace('bytes', 'bps').replace('operations', 'iops')}")
        ],
        device_rules=args.device_cgroup_rule,
        system_paths="unconfined" if _UNCONFINED in args.security_opt else "masked",
        pids_limit=args.pids_limit,
        shm_size=args.shm_size,
        storage_size=args.storage_opt,
        rlimits=[ulimit(text) for text in args.ulimit],
        sysctls=dict(args.sysctl),
        read_only=args.read_only,
        pid=args.pid,
        ipc=args.ipc,
        uts=args.uts,
        cgroupns=args.cgroupns,
        cgroup_parent=args.cgroup_parent,
        devices=args.device,
        cap_add=[_capability(text) for text in args.cap_add],
        cap_drop=[_capability(text) for text in args.cap_drop],
        privileged=args.privileged,
        userns=args.userns,
        seccomp=seccomp,
        no_new_privileges=no_new_privileges,
        init=args.init,
        labels={**_label_files(args.label_file), **dict(args.label)},
        stop_signal=args.stop_signal,
        stop_timeout=args.stop_timeout,
        restart=_restart(args),
        health=_health(args),
        health_on_failure=args.health_on_failure,
        auto_remove=getattr(args, "rm", False),
        pull=PULLS[args.pull],
        platform=args.platform,
        **_log(args),
    )


def level(args: Namespace, environ: Mapping[str, str]) -> LevelName:
    """Choose the isolation level: the option, TRIVET_ISOLATION, or container."""
    text = args.isolation or environ.get("TRIVET_ISOLATION") or "container"
    if text not in LEVELS:
        source = "--isolation" if args.isolation else "TRIVET_ISOLATION"
        raise Misuse(f"{source}: {text!r} is not an isolation level; choose from {', '.join(LEVELS)}")
    return LEVELS[text]


def environment(args: Namespace, environ: Mapping[str, str]) -> list[str]:
    """Gather variables: files first, then `-e`, so that a later one wins."""
    pairs = [item for name in args.env_file for item in _file_lines(name, "--env-file")]
    return [text for item in (*pairs, *args.env) if (text := _variable(item, environ)) is not None]


def _variable(item: str, environ: Mapping[str, str]) -> str | None:
    key, equals, _ = item.partition("=")
    if not key or "\0" in item:
        raise Misuse(f"--env: {item!r} is not KEY=VALUE")
    if equals:
        return item
    return f"{key}={environ[key]}" if key in environ else None


def _file_lines(name: str, option: str) -> Iterable[str]:
    try:
        text = Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UnreadableFile(f"{option}: cannot read {name}: {(reason or '').lower()}") from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        key = line.partition("=")[0]
        if not key or any(character.isspace() for character in key):
            raise UnreadableFile(f"{option}: {name}:{number}: {key!r} is not a name; write KEY=VALUE")
        yield line


def _label_files(names: list[str]) -> dict[str, str]:
    return dict(value.label(line) for name in names for line in _file_lines(name, "--label-file"))


def _health(args: Namespace) -> HealthCheck | None:
    if args.no_healthcheck and args.health_cmd:
        raise Misuse("--no-healthcheck and --health-cmd exclude each other")
    found = HealthCheck(
        test=["NONE"] if args.no_healthcheck else ["CMD-SHELL", args.health_cmd] if args.health_cmd else [],
        interval=args.health_interval,
        timeout=args.health_timeout,
        start_period=args.health_start_period,
        start_interval=args.health_start_interval,
        retries=args.health_retries,
    )
    return None if found == HealthCheck() else found


def _restart(args: Namespace) -> RestartPolicy:
    found = restart_policy(args.restart)
    if found.name != "no" and getattr(args, "rm", False):
        raise Misuse("--restart and --rm exclude each other")
    return found


def restart_policy(text: str) -> RestartPolicy:
    """Read a restart policy. Raises `Misuse`."""
    match = _RESTART.fullmatch(text)
    if match is None or (match[2] and match[1] != "on-failure"):
        raise Misuse(f"--restart: {text!r} is not a policy; choose no, always, unless-stopped or on-failure[:N]")
    names: dict[str, Literal["no", "always", "unless-stopped", "on-failure"]] = {
        "no": "no",
        "always": "always",
        "unless-stopped": "unless-stopped",
        "on-failure": "on-failure",
    }
    return RestartPolicy(name=names[match[1]], maximum=int(match[2] or 0))


def ulimit(text: str) -> RlimitRequest:
    """Read `--ulimit NAME=SOFT[:HARD]`."""
    match = _ULIMIT.fullmatch(text)
    if match is None:
        raise Misuse(f"--ulimit: {text!r} is not NAME=SOFT[:HARD]")
    soft, hard = int(match[2]), int(match[3] or match[2])
    if hard != -1 and (soft == -1 or soft > hard):
        raise Misuse(f"--ulimit: {text!r}: the soft limit is above the hard one")
    return RlimitRequest(match[1].upper(), soft, hard)


def security(options: list[str]) -> tuple[str, bool]:
    """Read `--security-opt`s: the name of the filter of system calls, and whether programs never gain privileges."""
    seccomp, no_new_privileges = "default", True
    for text in options:
        key, _, setting = text.replace(":", "=", 1).partition("=")
        if key == "seccomp" and setting in ("default", "unconfined"):
            seccomp = setting
        elif key == "no-new-privileges" and setting in ("", "true", "false"):
            no_new_privileges = setting != "false"
        elif (key, setting) not in (("apparmor", "unconfined"), ("label", "disable"), ("systempaths", "unconfined")):
            known = "seccomp=default, seccomp=unconfined, no-new-privileges, systempaths=unconfined"
            raise Misuse(f"--security-opt: {text!r} is not supported; known are {known}")
    return seccomp, no_new_privileges


def _log(args: Namespace) -> dict[str, Any]:
    try:
        return log_of(args.log_driver, dict(args.log_opt))
    except ArgumentTypeError as error:
        raise Misuse(f"--log-opt: {error}") from error


def log_of(driver: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Choose driver and bounds of a log; the engine checks what only the driver knows. Raises ArgumentTypeError."""
    found: dict[str, Any] = {"log": LogRequest(driver=driver, options=dict(options))}
    for key, text in options.items():
        match key.removeprefix("cache-"):
            case "max-size":
                found["log_size"] = value.size(text)
            case "max-file":
                found["log_files"] = max(value.natural(text) - 1, 0)
    return found


def _capability(text: str) -> str:
    return text.upper().removeprefix("CAP_")


def _host(text: str) -> str:
    name, colon, address = text.replace("=", ":", 1).partition(":")
    if not name or not colon or not address:
        raise Misuse(f"--add-host: {text!r} is not NAME:ADDRESS")
    return f"{name}:{address}"
