"""One service of a compose file, as the request for an instance: pure, but for env_file and label_file."""

from __future__ import annotations

import shlex
from argparse import ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from trivet.cli import port, value
from trivet.cli.compose import interpolation
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.limit import limits, rlimits
from trivet.cli.compose.merge import Value, pairs
from trivet.cli.compose.project import Project
from trivet.cli.compose.reader import Reader
from trivet.cli.compose.refusal import refuse
from trivet.cli.compose.store import network_name, volume_name
from trivet.cli.device import device
from trivet.cli.link import link
from trivet.cli.mount import tmpfs
from trivet.cli.request import PULLS, log_of, restart_policy, security
from trivet.client import rate
from trivet.client.schema import DeviceRequest, InstanceRequest, LevelName, MountRequest, RestartPolicy
from trivet.client.schema_health import HealthCheck
from trivet.client.schema_network import EndpointRequest, PortRequest

API_SOCKET = "/var/run/docker.sock"
_NO_GAIN = ("no-new-privileges", "no-new-privileges=true")
_HEALTH = ("interval", "timeout", "start_period", "start_interval")
LEVELS: dict[str, LevelName] = {
    "": "container",
    "default": "container",
    "process": "process",
    "container": "container",
    "vm": "vm",
    "runc": "container",
    "crun": "container",
}


def words(value: Any) -> list[str]:
    """Read a command: a list, or a line as a shell would split it."""
    return [str(one) for one in value] if isinstance(value, list) else shlex.split(str(value))


def request(name: str, service: Value, project: Project, number: int) -> InstanceRequest:
    """Translate a service into the request for its `number`th instance. Raises `ComposeError`."""
    read = Reader(name, service, project)
    refuse(read)
    seccomp, _ = read.get("security_opt", lambda _: security(read.each("security_opt")), ("default", True))
    shared = str(service.get("network_mode") or "")
    return InstanceRequest(
        image=image_name(name, service, project),
        isolation=level(read),
        name=instance_name(name, service, project, number),
        command=words(service["command"]) if service.get("command") is not None else [],
        entrypoint=None if service.get("entrypoint") is None else words(service["entrypoint"]),
        env=environment(read),
        cwd=read.get("working_dir", str, ""),
        user=read.get("user", str, ""),
        groups=read.each("group_add"),
        hostname=read.get("hostname", str, ""),
        terminal=read.get("tty", value.boolean, False),
        stdin=read.get("stdin_open", value.boolean, False),
        umask=read.get("umask", value.mask, -1),
        mounts=[*_mounts(read), *read.each("tmpfs", tmpfs), *_api_socket(read)],
        ports=_ports(read),
        exposed=[one for text in read.each("expose") for one in _exposed(read, text)],
        links=read.each("external_links", link),
        networks=[EndpointRequest(network=_other(read, shared))] if shared else _endpoints(read),
        dns=read.each("dns"),
        dns_search=read.each("dns_search"),
        dns_options=read.each("dns_opt"),
        extra_hosts=[
            f"{host}:{one}" for host, text in (service.get("extra_hosts") or {}).items() for one in str(text).split(",")
        ],
        **limits(read),
        shm_size=read.get("shm_size", value.size, 64 << 20),
        rlimits=rlimits(read),
        sysctls={key: str(one) for key, one in (service.get("sysctls") or {}).items()},
        read_only=read.get("read_only", value.boolean, False),
        devices=[_device(read, one) for one in service.get("devices") or ()],
        cap_add=[one.upper().removeprefix("CAP_") for one in read.each("cap_add")],
        cap_drop=[one.upper().removeprefix("CAP_") for one in read.each("cap_drop")],
        privileged=read.get("privileged", value.boolean, False),
        userns=cast(Any, read.get("userns_mode", str, "")),
        pid=_other(read, read.get("pid", str, "")),
        ipc=_other(read, read.get("ipc", str, "")),
        uts=read.get("uts", str, ""),
        cgroupns=read.get("cgroup", str, ""),
        cgroup_parent=read.get("cgroup_parent", str, ""),
        seccomp=seccomp,
        # Not as `run` has it: compose files are written for engines where programs may be set-user-id.
        no_new_privileges=any(one.replace(":", "=") in _NO_GAIN for one in read.each("security_opt")),
        init=read.get("init", value.boolean, False),
        labels=labels(read),
        stop_signal=read.get("stop_signal", str, ""),
        stop_timeout=read.get("stop_grace_period", value.seconds, 10),
        restart=_restart(read),
        health=_health(read),
        pull=PULLS.get(read.get("pull_policy", str, ""), "missing"),
        platform=read.get("platform", str, ""),
        **_log(read),
    )


def image_name(name: str, service: Value, project: Project) -> str:
    """Name the image of a service, also one that is built. Raises `ComposeError`."""
    if service.get("image"):
        return str(service["image"])
    if service.get("build") is None:
        raise ComposeError(f"services.{name}", "has neither image nor build")
    return f"{project.name}-{name}"


def instance_name(name: str, service: Value, project: Project, number: int) -> str:
    """Name the `number`th instance of a service."""
    return str(service.get("container_name") or f"{project.name}-{name}-{number}")


def scale(name: str, service: Value) -> int:
    """Tell how many instances there shall be. Raises `ComposeError`."""
    deploy = service.get("deploy") or {}
    count = service.get("scale", 1 if deploy.get("mode") == "global" else deploy.get("replicas", 1))
    if not str(count).isdecimal():
        raise ComposeError(f"services.{name}.scale", f"{count!r} is not a number")
    if service.get("container_name") and int(count) > 1:
        raise ComposeError(f"services.{name}.container_name", "is one name for several instances")
    return int(count)


def level(read: Reader) -> LevelName:
    """Tell the isolation level: `isolation`, or `runtime` as Docker's users say it. Raises `ComposeError`."""
    for key in ("isolation", "runtime"):
        if (found := read.get(key, str, "")) not in LEVELS:
            raise ComposeError(f"{read.place}.{key}", f"{found!r} is none of process, container, vm")
        if found:
            return LEVELS[found]
    return "container"


def environment(read: Reader) -> list[str]:
    """Gather variables; what has no value comes from the caller's environment, or isn't set."""
    found: dict[str, str | None] = {}
    for entry in read.service.get("env_file") or ():
        path = Path(entry["path"])
        if path.exists() or read.flag("required", True, entry):
            found |= (
                _raw(path) if entry.get("format") == "raw" else interpolation.read_file(path, read.project.variables)
            )
    for key, text in (read.service.get("environment") or {}).items():
        found[key] = None if text is None else str(text).lower() if isinstance(text, bool) else str(text)
    known = read.project.variables
    return [
        f"{key}={known[key] if text is None else text}"
        for key, text in found.items()
        if text is not None or key in known
    ]


def _raw(path: Path) -> dict[str, str | None]:
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {line.partition("=")[0]: line.partition("=")[2] for line in lines}


def labels(read: Reader) -> dict[str, str]:
    """Gather labels, of files first."""
    found: dict[str, str | None] = {}
    for path in read.each("label_file"):
        found |= interpolation.read_file(Path(path), {})
    found |= {key: "" if text is None else str(text) for key, text in (read.service.get("labels") or {}).items()}
    return {key: text or "" for key, text in found.items()}


def _other(read: Reader, text: str) -> str:
    """Turn `service:NAME` into the first instance of that service."""
    if not text.startswith("service:"):
        return text
    name = text.removeprefix("service:")
    service = read.project.services.get(name) or read.project.dormant.get(name)
    if service is None:
        raise ComposeError(read.place, f"shares with {name}, which is no service")
    return f"container:{instance_name(name, service, read.project, 1)}"


def _endpoints(read: Reader) -> list[EndpointRequest]:
    wishes = read.service.get("networks") or ({} if level(read) == "process" else {"default": None})
    linked = _linked(read)
    found: list[EndpointRequest] = []
    for name, how in sorted(wishes.items(), key=lambda one: -int((one[1] or {}).get("priority", 0))):
        how = how or {}
        own = [read.name] if read.flag("use_service_name_alias", True, how) else []
        try:
            rates = rate.options(how.get("driver_opts") or {})
        except ValueError as error:
            raise ComposeError(f"{read.place}.networks.{name}.driver_opts", str(error)) from error
        found.append(
            EndpointRequest(
                network=network_name(read.project, name),
                aliases=[*dict.fromkeys([*own, *(str(one) for one in how.get("aliases") or ()), *linked])],
                ip=str(how.get("ipv4_address") or ""),
                ip6=str(how.get("ipv6_address") or ""),
                mac=str(how.get("mac_address") or (read.get("mac_address", str, "") if not found else "")),
                priority=int(how.get("gw_priority") or 0),
                **rates,
            )
        )
    return found


def _linked(read: Reader) -> list[str]:
    """List the names by which other services link to this one."""
    found = []
    for service in read.project.services.values():
        for text in service.get("links") or ():
            other, _, alias = str(text).partition(":")
            if other == read.name and alias:
                found.append(alias)
    return found


def _ports(read: Reader) -> list[PortRequest]:
    found: list[PortRequest] = []
    for one in read.service.get("ports") or ():
        if isinstance(one, dict):
            published = str(one.get("published", ""))
            address = str(one.get("host_ip", ""))
            front = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
            text = (
                f"{front}{published}{':' if published or front else ''}{one.get('target')}/{one.get('protocol', 'tcp')}"
            )
        else:
            text = str(one)
        found.extend(read.get("ports", port.publish, within={"ports": text}))
    return found


def _exposed(read: Reader, text: str) -> list[str]:
    """Read PORT, FROM-TO, with /udp: what others may use. Raises `ComposeError`."""
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal() or protocol not in ("", "tcp", "udp"):
        raise ComposeError(f"{read.place}.expose", f"{text!r} is not PORT[-PORT][/udp]")
    return [f"{number}/{protocol or 'tcp'}" for number in range(int(first), int(last or first) + 1)]


def _api_socket(read: Reader) -> list[MountRequest]:
    if not read.flag("use_api_socket"):
        return []
    if not read.project.socket:
        raise ComposeError(f"{read.place}.use_api_socket", "the engine's socket for Docker's API isn't known")
    return [MountRequest(kind="bind", source=read.project.socket, target=API_SOCKET)]


def _mounts(read: Reader) -> list[MountRequest]:
    own = [_mount(read, one) for one in read.service.get("volumes") or ()]
    targets = {mount.target for mount in own}
    return [*own, *(mount for mount in _borrowed(read) if mount.target not in targets)]


def _borrowed(read: Reader) -> list[MountRequest]:
    """Read volumes_from: what another service mounts. Raises `ComposeError` for what has no name to be shared by."""
    found = []
    for text in read.each("volumes_from"):
        name, _, mode = text.partition(":")
        service = read.project.services.get(name) or read.project.dormant.get(name)
        if service is None or mode not in ("", "ro", "rw"):
            raise ComposeError(f"{read.place}.volumes_from", f"{text!r} is not SERVICE[:ro]")
        other = Reader(name, service, read.project)
        for mount in (_mount(other, one) for one in service.get("volumes") or ()):
            if mount.kind == "volume" and not mount.source:
                raise ComposeError(f"{read.place}.volumes_from", f"{mount.target} of {name} has no name")
            found.append(msgspec.structs.replace(mount, read_only=mount.read_only or mode == "ro"))
    return found


def _mount(read: Reader, one: Value) -> MountRequest:
    kind, source, target = str(one.get("type", "volume")), str(one.get("source") or ""), str(one.get("target", ""))
    if kind not in ("bind", "volume", "tmpfs", "image") or not target.startswith("/"):
        words = f"type {kind!r} is not supported" if target.startswith("/") else f"{target!r} is no absolute path"
        raise ComposeError(f"{read.place}.volumes", words)
    bind, volume, memory, image = (one.get(key) or {} for key in ("bind", "volume", "tmpfs", "image"))
    deep = str(bind.get("recursive", "enabled"))
    if deep not in ("enabled", "disabled", "writable", "readonly"):
        raise ComposeError(f"{read.place}.volumes", f"bind.recursive {deep!r} is not supported")
    return MountRequest(
        kind=cast(Any, kind),
        target=target,
        source=volume_name(read.project, source) if kind == "volume" and source else source,
        read_only=read.flag("read_only", within=one) or kind == "image",
        subpath=str(volume.get("subpath") or image.get("subpath") or ""),
        recursive=deep != "disabled",
        shallow=deep == "writable",
        propagation=str(bind.get("propagation", "rprivate")),
        create_source=kind == "bind" and read.flag("create_host_path", True, bind),
        no_copy=read.flag("nocopy", within=volume),
        mine=read.flag("x-mine", within=bind),
        labels={key: text or "" for key, text in pairs(volume.get("labels") or {}, f"{read.place}.volumes").items()},
        size=read.get("size", value.size, 0, within=memory),
        mode=read.get("mode", lambda text: int(text, 8), 0o1777, within=memory),
    )


def _device(read: Reader, one: Any) -> DeviceRequest:
    if isinstance(one, dict):
        access = str(one.get("permissions", "rwm"))
        return DeviceRequest(source=str(one["source"]), target=str(one.get("target", "")), access=access)
    return cast(DeviceRequest, read.get("devices", device, within={"devices": one}))


def _restart(read: Reader) -> RestartPolicy:
    policy = (read.service.get("deploy") or {}).get("restart_policy")
    if read.service.get("restart") is not None or not policy:
        found = read.service.get("restart")
        return restart_policy("no" if found is None or found is False else str(found))
    names: dict[str, Literal["no", "always", "on-failure"]] = {
        "none": "no",
        "any": "always",
        "on-failure": "on-failure",
    }
    condition, place = str(policy.get("condition", "any")), f"{read.place}.deploy.restart_policy.condition"
    if condition not in names:
        raise ComposeError(place, f"{condition!r} is none of {', '.join(names)}")
    return RestartPolicy(name=names[condition], maximum=int(policy.get("max_attempts", 0)))


def _health(read: Reader) -> HealthCheck | None:
    found: Mapping[str, Any] | None = read.service.get("healthcheck")
    if not found:
        return None
    if read.flag("disable", within=dict(found)):
        return HealthCheck(test=["NONE"])
    test = found.get("test", [])
    seconds = {key: read.get(key, value.duration, 0.0, within=dict(found)) for key in _HEALTH}
    return HealthCheck(
        test=[str(one) for one in test] if isinstance(test, list) else ["CMD-SHELL", str(test)],
        retries=read.get("retries", int, 0, within=dict(found)),
        **seconds,
    )


def _log(read: Reader) -> dict[str, Any]:
    logging = read.service.get("logging") or {}
    options = {str(key): str(one) for key, one in (logging.get("options") or {}).items() if one is not None}
    try:
        return log_of(str(logging.get("driver") or "json-file"), options)
    except ArgumentTypeError as error:
        raise ComposeError(f"{read.place}.logging.options", str(error)) from error
