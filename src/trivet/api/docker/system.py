"""The engine itself: ping, version, info, usage, credentials."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from trivet.api.docker import container, image, version, view, volume
from trivet.api.docker.build import BUILDER
from trivet.api.docker.route import Route, answer, body
from trivet.base.clock import rfc3339
from trivet.base.error import InvalidArgument
from trivet.base.version import VERSION
from trivet.build.cache import CacheEntry
from trivet.client.schema_host import Info, LevelInfo
from trivet.client.schema_image import LoginRequest
from trivet.engine.engine import Engine
from trivet.shipper.option import DRIVERS

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Account(msgspec.Struct, frozen=True):
    """The body of /auth."""

    username: str = ""
    password: str = ""
    serveraddress: str = ""


async def ping(engine: Engine, request: web.Request) -> web.StreamResponse:
    headers = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}
    if request.method == "HEAD":
        return web.Response(text="", headers={**headers, "Content-Length": "0"})
    return web.Response(text="OK", headers=headers)


async def show_version(engine: Engine, request: web.Request) -> web.StreamResponse:
    facts = platform.uname()
    machine = ARCHITECTURES.get(facts.machine, facts.machine)
    details = {
        "ApiVersion": version.NEWEST,
        "MinAPIVersion": version.oldest(),
        "Os": "linux",
        "Arch": machine,
        "KernelVersion": facts.release,
        "GitCommit": "",
        "GoVersion": "",
        "BuildTime": "",
    }
    return answer(
        {
            "Platform": {"Name": f"trivet {VERSION}"},
            "Components": [
                {"Name": "Engine", "Version": version.ENGINE, "Details": {**details, "Experimental": "true"}},
                {"Name": "trivet", "Version": VERSION, "Details": {}},
            ],
            "Version": version.ENGINE,
            **details,
        }
    )


async def info(engine: Engine, request: web.Request) -> web.StreamResponse:
    return answer(_info(await engine.info()))


def _info(found: Info) -> dict[str, Any]:
    host, counts = found.host, found.instances
    running = counts.get("running", 0) + counts.get("restarting", 0)
    paused, total = counts.get("paused", 0), sum(counts.values())
    limits = ("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit")
    return {
        "ID": found.id,
        "Containers": total,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": total - running - paused,
        "Images": found.images,
        "Driver": "overlay2",
        "DriverStatus": [["Snapshotter", found.snapshotter]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": sorted(DRIVERS),
        },
        **dict.fromkeys(limits, True),
        "KernelMemoryTCP": False,
        "IPv4Forwarding": True,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": False,
        "NFd": 0,
        "OomKillDisable": False,
        "NGoroutines": 0,
        "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "1",
        "NEventsListener": 0,
        "KernelVersion": host["kernel"],
        "OperatingSystem": host["os"],
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": host["architecture"],
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": None,
            "AllowNondistributableArtifactsHostnames": None,
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "IndexConfigs": {},
            "Mirrors": None,
        },
        "NCPU": host["cpus"],
        "MemTotal": host["memory"],
        "GenericResources": None,
        "DockerRootDir": found.root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": host["hostname"],
        "Labels": [],
        "ExperimentalBuild": True,
        "ServerVersion": version.ENGINE,
        "Runtimes": {
            ("runc" if level.level == "container" else level.level): {"path": "trivet-runtime", "status": _level(level)}
            for level in found.levels
        },
        "DefaultRuntime": "runc",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "trivet-launch",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns"],
        "ProductLicense": "Apache-2.0",
        "Warnings": found.warnings or None,
        "CDISpecDirs": None,
    }


def _level(level: LevelInfo) -> dict[str, str]:
    """Say what a level can do here, where Docker keeps a runtime's own facts."""
    return {
        "trivet.level": level.level,
        "trivet.available": "yes" if level.available else "; ".join(level.missing),
        "trivet.acceleration": level.acceleration,
    }


EPOCH = "1970-01-01T00:00:00Z"  # what a step may be dated by request; clients take no empty text for a time
KINDS = ("container", "image", "volume", "build-cache")


async def usage(engine: Engine, request: web.Request) -> web.StreamResponse:
    wanted = set(request.query.getall("type", [])) or set(KINDS)
    for kind in sorted(wanted - set(KINDS)):
        raise InvalidArgument(f"unknown object type: {kind}")
    rows = {row.kind: row for row in await engine.usage()}
    shown: dict[str, Any] = {}
    if "image" in wanted:
        shown["LayersSize"] = rows["images"].size
        shown["Images"] = await image.rows(engine, {})
    if "container" in wanted:
        found = await engine.instances.select(every=True, filters={}, size=True)
        networks = await container.by_name(engine)
        shown["Containers"] = [view.row(each, networks) for each in found]
    if "volume" in wanted:
        shown["Volumes"] = [volume.shown(each) for each in await engine.list_volumes({}, size=True)]
    if "build-cache" in wanted:
        shown["BuildCache"] = [_cached(each) for each in request.app[BUILDER].tools.cache.entries()]
        shown["BuilderSize"] = sum(row.size for kind, row in rows.items() if kind.startswith("build"))
    return answer(shown)


def _cached(entry: CacheEntry) -> dict[str, Any]:
    """Show a step of a build that is remembered."""
    created, used = (rfc3339(int(each * 1e9)) or EPOCH for each in (entry.time, entry.used))
    return {
        "ID": entry.key[:25],
        "Type": "regular",
        "Description": "",
        "InUse": False,
        "Shared": False,
        "Size": entry.layer.size if entry.layer else 0,
        "CreatedAt": created,
        "LastUsedAt": used,
        "UsageCount": 1,
    }


async def auth(engine: Engine, request: web.Request) -> web.StreamResponse:
    """Try a name and password at a registry. As with the command, they are remembered if they are right."""
    wish = await body(request, Account)
    server = wish.serveraddress.removeprefix("https://").removeprefix("http://").partition("/")[0]
    registry = "" if server in ("", "index.docker.io", "registry-1.docker.io") else server
    await engine.login(LoginRequest(registry=registry, user=wish.username, password=wish.password))
    return answer({"Status": "Login Succeeded", "IdentityToken": ""})


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", show_version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", usage, ("type",)),
    Route("POST", "/auth", auth, body=Account),
)
