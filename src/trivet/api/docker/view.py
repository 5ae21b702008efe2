"""An instance as Docker shows a container: a row of the list, and `inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trivet.api.docker import endpoint, health, link, mounted
from trivet.api.docker.duration import human, moment, seconds, since
from trivet.client.schema import Instance, MountUse
from trivet.client.schema_image import ImageDetail
from trivet.client.schema_network import Network
from trivet.engine.instance.surroundings import Surroundings

LEVEL = "trivet.isolation"  # the annotation that says the level


def row(
    instance: Instance, networks: dict[str, Network], aliases: Sequence[str] = (), image_size: int = 0
) -> dict[str, Any]:
    """Show an instance as one of many; `aliases` are what others know it by."""
    shown = {
        "Id": instance.id,
        "Names": [f"/{instance.name}", *aliases],
        "Image": instance.image,
        "ImageID": instance.image_id,
        "Command": " ".join(instance.command),
        "Created": seconds(instance.created),
        "Ports": _ports(instance),
        "Labels": instance.labels,
        "State": instance.status,
        "Status": status(instance),
        "HostConfig": {"NetworkMode": _mode(instance), "Annotations": {LEVEL: instance.isolation}},
        "NetworkSettings": {"Networks": endpoint.shown(instance, networks)},
        "Mounts": [_mount(mount) for mount in instance.mounts if mount.kind != "tmpfs"],
    }
    if instance.size >= 0:
        shown |= {"SizeRw": instance.size, "SizeRootFs": instance.size + image_size}
    return shown


def _ports(instance: Instance) -> list[dict[str, Any]]:
    """List published ports, then those that are only exposed, of what runs."""
    shown: list[dict[str, Any]] = [
        {
            "IP": port.host_address or "0.0.0.0",
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
        for port in instance.ports
    ]
    for text in _only_exposed(instance):
        number, _, protocol = text.partition("/")
        shown.append({"PrivatePort": int(number), "Type": protocol})
    return shown


def _only_exposed(instance: Instance) -> list[str]:
    if instance.status not in ("running", "paused"):
        return []
    published = {f"{port.container_port}/{port.protocol}" for port in instance.ports}
    return [text for text in instance.request.exposed if text not in published]


def status(instance: Instance) -> str:
    """Say what an instance is doing, and since when."""
    match instance.status:
        case "running":
            return f"Up {human(since(instance.started))}{health.suffix(instance)}"
        case "paused":
            return f"Up {human(since(instance.started))} (Paused)"
        case "restarting":
            return f"Restarting ({instance.exit_code}) {human(since(instance.finished))} ago"
        case "created":
            return "Created"
    return f"Exited ({instance.exit_code}) {human(since(instance.finished))} ago"


def inspect(
    instance: Instance,
    image: ImageDetail | None,
    networks: dict[str, Network],
    sessions: list[str],
    surroundings: Surroundings,
) -> dict[str, Any]:
    """Show everything about an instance."""
    shown = {
        "Id": instance.id,
        "Created": instance.created,
        "Path": instance.command[0],
        "Args": instance.command[1:],
        "State": _state(instance),
        "Image": instance.image_id,
        "ResolvConfPath": surroundings.files.get("/etc/resolv.conf", ""),
        "HostnamePath": surroundings.files.get("/etc/hostname", ""),
        "HostsPath": surroundings.files.get("/etc/hosts", ""),
        "LogPath": instance.log_path,
        "Name": f"/{instance.name}",
        "RestartCount": instance.restarts,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": sessions or None,
        "HostConfig": _host_config(instance),
        "GraphDriver": {"Data": _layers(instance, surroundings), "Name": "overlay2"},
        "Mounts": [_mount(mount) for mount in instance.mounts if mount.kind != "tmpfs"],
        "Config": _config(instance, (image.config.get("config") or {}) if image else {}),
        "NetworkSettings": _network_settings(instance, networks),
    }
    if instance.size >= 0:
        shown |= {"SizeRw": instance.size, "SizeRootFs": instance.size + (image.size if image else 0)}
    return shown


def _layers(instance: Instance, surroundings: Surroundings) -> dict[str, str] | None:
    """Tell where the host has the layers; merged they are seen by who runs there alone."""
    if not surroundings.upper:
        return None
    merged = {"MergedDir": f"/proc/{instance.pid}/root"} if instance.pid and instance.isolation == "container" else {}
    lowers = ":".join(surroundings.lowers)
    return {"LowerDir": lowers, "UpperDir": surroundings.upper, "WorkDir": surroundings.work, **merged}


def _state(instance: Instance) -> dict[str, Any]:
    word = instance.status
    return {
        "Status": word,
        "Running": word in ("running", "paused", "restarting"),
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "OOMKilled": instance.out_of_memory,
        "Dead": word == "dead",
        "Pid": instance.pid,
        "ExitCode": instance.exit_code,
        "Error": instance.error,
        "StartedAt": moment(instance.started),
        "FinishedAt": moment(instance.finished),
        **health.state(instance),
    }


def _config(instance: Instance, image: dict[str, Any]) -> dict[str, Any]:
    """Fold the image's configuration and the request, as Docker does when it creates."""
    request = instance.request
    keys = {item.partition("=")[0] for item in request.env}
    inherited = [item for item in image.get("Env") or () if item.partition("=")[0] not in keys]
    taken = request.entrypoint is not None
    published = (f"{port.container_port}/{port.protocol}" for port in request.ports)
    exposed: dict[str, Any] = {key: {} for key in (*request.exposed, *published)}
    return {
        "Hostname": request.hostname or instance.id[:12],
        "Domainname": "",
        "User": request.user or image.get("User", ""),
        "AttachStdin": request.stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "ExposedPorts": {**(image.get("ExposedPorts") or {}), **exposed} or None,
        "Tty": request.terminal,
        "OpenStdin": request.stdin,
        "StdinOnce": request.stdin,
        "Env": [*request.env, *inherited],
        "Cmd": request.command or (None if taken else image.get("Cmd")),
        "Image": instance.image,
        "Volumes": image.get("Volumes"),
        "WorkingDir": request.cwd or image.get("WorkingDir", ""),
        "Entrypoint": request.entrypoint if taken else image.get("Entrypoint"),
        "OnBuild": None,
        "Labels": {**(image.get("Labels") or {}), **instance.labels},
        "StopSignal": request.stop_signal or image.get("StopSignal") or "SIGTERM",
        "StopTimeout": request.stop_timeout,
        **({"Healthcheck": image["Healthcheck"]} if image.get("Healthcheck") else {}),
        **health.check(request.health),
    }


def _host_config(instance: Instance) -> dict[str, Any]:
    request = instance.request
    named: dict[str, list[dict[str, str]]] = {}
    for port in request.ports:
        number = f"{port.host_port}-{port.last}" if port.last else str(port.host_port or "")
        place = {"HostIp": port.host_address, "HostPort": number}
        named.setdefault(f"{port.container_port}/{port.protocol}", []).append(place)
    return {
        **mounted.host_config(request.mounts),
        "ContainerIDFile": "",
        "Devices": [
            {
                "PathOnHost": each.source,
                "PathInContainer": each.target or each.source,
                "CgroupPermissions": each.access,
            }
            for each in request.devices
        ],
        "LogConfig": {"Type": request.log.driver, "Config": request.log.options},
        "NetworkMode": _mode(instance),
        "PortBindings": named,
        "RestartPolicy": {"Name": request.restart.name, "MaximumRetryCount": request.restart.maximum},
        "AutoRemove": request.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": None,
        "ConsoleSize": [request.rows, request.columns],
        "CapAdd": request.cap_add or None,
        "CapDrop": request.cap_drop or None,
        "CgroupnsMode": request.cgroupns or "private",
        "Dns": request.dns,
        "DnsOptions": request.dns_options,
        "DnsSearch": request.dns_search,
        "ExtraHosts": request.extra_hosts or None,
        "GroupAdd": request.groups or None,
        "IpcMode": request.ipc or "private",
        "Cgroup": "",
        "Links": link.shown(instance.name, request.links),
        "OomScoreAdj": request.oom_score_adj,
        "PidMode": "host" if instance.isolation == "process" else request.pid,
        "Privileged": request.privileged,
        "PublishAllPorts": request.publish_all,
        "ReadonlyRootfs": request.read_only,
        "SecurityOpt": _security(instance),
        "UTSMode": request.uts,
        "UsernsMode": request.userns,
        "ShmSize": request.shm_size,
        "StorageOpt": {"size": str(request.storage_size)} if request.storage_size else None,
        "Sysctls": request.sysctls or None,
        "Runtime": "runc" if instance.isolation == "container" else instance.isolation,
        "Isolation": "",
        "CpuShares": request.cpu_shares,
        "Memory": request.memory,
        "NanoCpus": round(request.cpus * 1e9),
        "CgroupParent": request.cgroup_parent,
        "BlkioWeight": 0,
        "CpuPeriod": 0,
        "CpuQuota": 0,
        "CpusetCpus": request.cpuset,
        "CpusetMems": request.cpuset_mems,
        "MemoryReservation": request.memory_reservation,
        "MemorySwap": request.memory_swap,
        "OomKillDisable": request.oom_kill_disable or None,
        "MemorySwappiness": request.swappiness if request.swappiness >= 0 else None,
        **_throttles(instance),
        "DeviceCgroupRules": request.device_rules or None,
        **({"MaskedPaths": [], "ReadonlyPaths": []} if request.system_paths == "unconfined" else {}),
        "PidsLimit": request.pids_limit or None,
        "Ulimits": [{"Name": each.name, "Hard": each.hard, "Soft": each.soft} for each in request.rlimits] or None,
        "Init": request.init,
        "Annotations": {LEVEL: instance.isolation},
    }


def _throttles(instance: Instance) -> dict[str, list[dict[str, Any]] | None]:
    fields = {
        "BlkioDeviceReadBps": "read_bytes",
        "BlkioDeviceWriteBps": "write_bytes",
        "BlkioDeviceReadIOps": "read_operations",
        "BlkioDeviceWriteIOps": "write_operations",
    }
    limits = instance.request.block_limits
    return {
        key: [{"Path": each.device, "Rate": rate} for each in limits if (rate := getattr(each, name))] or None
        for key, name in fields.items()
    }


def _security(instance: Instance) -> list[str] | None:
    found = ["no-new-privileges"] if instance.request.no_new_privileges else []
    return found + (["seccomp=unconfined"] if instance.request.seccomp == "unconfined" else []) or None


def _mode(instance: Instance) -> str:
    if instance.isolation == "process":
        return "host"
    return instance.request.networks[0].network if instance.request.networks else "bridge"


def _mount(mount: MountUse) -> dict[str, Any]:
    shown = {
        "Type": mount.kind,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": "ro" if mount.read_only else "",
        "RW": not mount.read_only,
        "Propagation": "" if mount.name or mount.kind == "tmpfs" else mount.propagation,
    }
    if mount.kind == "image":
        return {**shown, "Source": mount.image, "Name": mount.image}
    return {**shown, "Name": mount.name, "Driver": "local"} if mount.name else shown


def _network_settings(instance: Instance, networks: dict[str, Network]) -> dict[str, Any]:
    ports: dict[str, list[dict[str, str]] | None] = dict.fromkeys(_only_exposed(instance))
    for port in instance.ports:
        key = f"{port.container_port}/{port.protocol}"
        place = {"HostIp": port.host_address or "0.0.0.0", "HostPort": str(port.host_port)}
        ports[key] = [*(ports.get(key) or ()), place]
    uses = endpoint.shown(instance, networks)
    first = uses.get("bridge") or {}
    return {
        "Bridge": "",
        "SandboxID": instance.id if instance.status in ("running", "paused") else "",
        "SandboxKey": "",
        "Ports": ports,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        **{key: first.get(key, "") for key in ("EndpointID", "Gateway", "IPAddress", "MacAddress")},
        **{key: first.get(key, "") for key in ("GlobalIPv6Address", "IPv6Gateway")},
        **{key: first.get(key, 0) for key in ("GlobalIPv6PrefixLen", "IPPrefixLen")},
        "Networks": uses,
    }
