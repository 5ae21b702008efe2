"""What is said of mistakes: the same requests to trivet and to dockerd, the same statuses and words.

dockerd 20.10 answers some mistakes of clients with 500, which later versions mended, and begins some words in capitals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import ask

pytestmark = pytest.mark.needs("root", "docker")

# method, path, status, words; ID stands for the id of the container that isn't running
ASKED = """
GET /containers/json?filters={"bad":["x"]} 400 invalid filter 'bad'
GET /containers/json?filters={"status":["bad"]} 400 invalid filter 'status=bad'
GET /containers/json?filters={"is-task":["maybe"]} 400 invalid filter 'is-task=[maybe]'
GET /containers/json?filters={"exited":["bad"]} 400 strconv.Atoi: parsing "bad": invalid syntax
GET /containers/json?limit=x 400 strconv.Atoi: parsing "x": invalid syntax
POST /containers/prune?filters={"bad":["x"]} 400 invalid filter 'bad'
POST /containers/prune?filters={"until":["bad"]} 400 failed to parse value as time or duration: "bad"
POST /containers/prune?filters={"until":["1","2"]} 400 more than one until filter specified
GET /images/json?filters={"bad":["x"]} 400 invalid filter 'bad'
GET /images/json?filters={"dangling":["maybe"]} 400 invalid filter 'dangling=[maybe]'
POST /images/prune?filters={"bad":["x"]} 400 invalid filter 'bad'
POST /images/prune?filters={"dangling":["maybe"]} 400 invalid filter 'dangling=[maybe]'
GET /networks?filters={"bad":["x"]} 400 invalid filter 'bad'
POST /networks/prune?filters={"bad":["x"]} 400 invalid filter 'bad'
GET /volumes?filters={"bad":["x"]} 400 invalid filter 'bad'
GET /volumes?filters={"dangling":["maybe"]} 400 invalid filter 'dangling=[maybe]'
POST /volumes/prune?filters={"bad":["x"]} 400 invalid filter 'bad'
POST /build/prune?filters={"bad":["x"]} 400 invalid filter 'bad'
GET /events?since=5&until=1 400 `since` time (5) cannot be after `until` time (1)
GET /containers/nosuch/json 404 no such container: nosuch
POST /containers/nosuch/start 404 no such container: nosuch
POST /containers/nosuch/wait 404 no such container: nosuch
POST /containers/nosuch/resize?h=1&w=1 404 no such container: nosuch
DELETE /containers/nosuch 404 no such container: nosuch
POST /containers/words-up/resize?h=x&w=1 400 strconv.Atoi: parsing "x": invalid syntax
POST /containers/words-down/resize?h=1&w=1 409 container ID is not running
POST /containers/words-up/kill?signal=BAD 400 invalid signal: BAD
POST /containers/words-down/kill 409 cannot kill container: words-down: container ID is not running
POST /containers/words-down/pause 409 container ID is not running
GET /containers/words-down/top 409 container ID is not running
GET /containers/words-up/top?ps_args=-o%20user 400 couldn't find PID field in ps output
POST /containers/words-up/rename?name= 400 neither old nor new names may be empty
POST /containers/words-up/rename?name=words-up 400 renaming a container with the same name as its current name
POST /containers/words-up/rename?name=-bad 400 error when allocating new name: invalid container name (/-bad), only
POST /containers/words-up/rename?name=words-down 409 error when allocating new name: conflict. The container name
POST /containers/words-up/stop?t=x 400 strconv.Atoi: parsing "x": invalid syntax
GET /containers/words-up/logs 400 bad parameters: you must choose at least one stream
GET /containers/words-up/archive?path=/nosuch 404 could not find the file /nosuch in container words-up
PUT /containers/words-up/archive?path=/nosuch 404 could not find the file /nosuch in container words-up
GET /exec/nosuch/json 404 no such exec instance: nosuch
POST /exec/nosuch/start 404 no such exec instance: nosuch
POST /containers/words-down/exec {"Cmd":["x"]} 409 container ID is not running
POST /containers/words-up/exec {} 400 no exec command specified
POST /containers/words-up/update {"Memory":1000} 400 minimum memory limit allowed is 6MB
POST /containers/words-up/update {"RestartPolicy":{"Name":"bad"}} 400 invalid restart policy
DELETE /networks/nosuch 404 network nosuch not found
POST /networks/create {"Name":"bridge"} 403 operation is not permitted on predefined bridge network
GET /volumes/nosuch 404 get nosuch: no such volume
DELETE /volumes/nosuch 404 get nosuch: no such volume
GET /images/nosuch/json 404 no such image: nosuch:latest
DELETE /images/nosuch 404 no such image: nosuch:latest
GET /images/nosuch/history 404 no such image: nosuch:latest
POST /images/nosuch/tag?repo=x 404 no such image: nosuch:latest
POST /images/busybox:docker/tag?repo=UPPER 400 invalid reference format: repository name
POST /images/create?fromImage=UPPER 400 invalid reference format: repository name
POST /commit?container=nosuch 404 no such container: nosuch
POST /containers/create {"Image":"nosuch"} 404 no such image: nosuch:latest
POST /containers/nosuch/kill 404 cannot kill container: nosuch: no such container: nosuch
POST /images/busybox:docker/tag?repo=x&tag=b@d 400 invalid
DELETE /images/busybox:docker 409 (must force) - container
GET /containers/json?filters=bad 400 invalid
POST /containers/create?name=-bad {} 400 invalid container name (-bad), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed
POST /containers/create?name=words-up {} 409 conflict. The container name "/words-up" is already in use by container
"""

# what dockerd 20.10 did not look at, or said otherwise; these are the words of 28
LATER = """
GET /containers/json?filters={"health":["bad"]} 400 invalid filter 'health=bad': invalid value for health (bad): must
GET /system/df?type=bad 400 unknown object type: bad
POST /commit 400 invalid name or ID supplied: ""
POST /images/create?fromImage=x&tag=b@d 400 invalid tag format
POST /images/UPPER/tag?repo=x 400 invalid reference format: repository name (library/UPPER) must be lowercase
POST /build/prune?keep-storage=x 400 keep-storage is in bytes and expects an integer, got x: strconv.Atoi: parsing "x"
POST /build/cancel 400 build ID not provided
POST /containers/create?platform=linux/s390x {} 404 image with reference busybox:docker was found but its
"""

# likewise, in a creation
REFUSED_LATER: list[tuple[dict[str, Any], str]] = [
    ({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -3}}, "maximum retry count cannot be negative"),
    ({"CpuShares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
    ({"ExtraHosts": ["a:bad"]}, 'invalid IP address in add-host: "bad"'),
    ({"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}, 'invalid port specification: "99999"'),
    ({"PortBindings": {"80/tcp": [{"HostPort": "90-80"}]}}, 'invalid port specification: "90-80"'),
    ({"NetworkMode": "container:"}, "invalid network mode: invalid container format container:<name|id>"),
    ({"NetworkMode": "host", "Links": ["a:b"]}, "host type networking can't be used with links"),
    ({"CgroupnsMode": "bad"}, "invalid cgroup namespace mode: bad"),
    ({"Binds": ["/tmp:/a:ro,rw"]}, "invalid mode: ro,rw"),
    (
        {"Mounts": [{"Type": "bind", "Source": "rel", "Target": "/a"}]},
        "invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
    ),
    (
        {"Mounts": [{"Type": "volume", "Target": "/a", "BindOptions": {"Propagation": "rshared"}}]},
        'BindOptions must not be specified on mount type "volume"',
    ),
    (
        {"Mounts": [{"Type": "bind", "Source": "/tmp", "Target": "/a", "VolumeOptions": {"NoCopy": True}}]},
        'VolumeOptions must not be specified on mount type "bind"',
    ),
    (
        {"Mounts": [{"Type": "volume", "Target": "/a", "VolumeOptions": {"Subpath": "../x"}}]},
        'invalid mount config for type "volume": subpath must be a relative path within the volume',
    ),
    (
        {"Mounts": [{"Type": "bind", "Source": "/tmp", "Target": "/a", "BindOptions": {"Propagation": "bad"}}]},
        'invalid mount config for type "bind": invalid propagation mode: bad',
    ),
    ({".": {"MacAddress": "zz"}}, "invalid MAC address"),
]

# HostConfig, or with "." the body itself; words
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"Memory": 1000}, "minimum memory limit allowed is 6MB"),
    ({"MemorySwap": 5}, "you should always set the Memory limit when using Memoryswap limit, see usage"),
    ({"Memory": 20_000_000, "MemorySwap": 5}, "minimum memoryswap limit should be larger than memory limit, see usage"),
    (
        {"Memory": 20_000_000, "MemoryReservation": 30_000_000},
        "minimum memory limit can not be less than memory reservation limit, see usage",
    ),
    ({"NanoCpus": -1}, "range of CPUs is from 0.01 to"),
    ({"NanoCpus": 10**15}, "range of CPUs is from 0.01 to"),
    ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
    ({"CpuQuota": 1}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ({"NanoCpus": 10**9, "CpuQuota": 5000}, "conflicting options: Nano CPUs and CPU Quota cannot both be set"),
    ({"CpusetCpus": "999"}, "requested CPUs are not available - requested 999, available: 0"),
    ({"CpusetCpus": "bad"}, "invalid value bad for cpuset cpus: invalid format: bad"),
    ({"ShmSize": -1}, "SHM size can not be less than 0"),
    ({"OomScoreAdj": 5000}, "invalid value 5000, range for oom score adj is [-1000, 1000]"),
    ({"CapAdd": ["BAD"]}, 'unknown capability: "CAP_BAD"'),
    ({"SecurityOpt": ["bad"]}, "invalid --security-opt"),
    ({"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}, 'invalid port specification: "x"'),
    ({"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, "can't create 'AutoRemove' container with restart"),
    ({"ExtraHosts": ["bad"]}, 'bad format for add-host: "bad"'),
    ({"Binds": ["/tmp:/a:bad"]}, "invalid mode: bad"),
    ({"Binds": ["a:b:c:d"]}, "invalid volume specification: 'a:b:c:d'"),
    ({"Binds": ["/tmp:/a", "/tmp:/a"]}, "duplicate mount point: /a"),
    (
        {"Mounts": [{"Type": "bind", "Source": "/nosuch-x", "Target": "/a"}]},
        'invalid mount config for type "bind": bind source path does not exist: /nosuch-x',
    ),
    ({"Mounts": [{"Type": "bad", "Target": "/a"}]}, 'invalid mount config for type "bad": mount type unknown'),
    ({"Mounts": [{"Type": "volume", "Source": "v"}]}, 'mount config for type "volume": field Target must not be empty'),
    (
        {"Mounts": [{"Type": "tmpfs", "Source": "v", "Target": "/x"}]},
        'invalid mount config for type "tmpfs": field Source must not be specified',
    ),
    ({"LogConfig": {"Type": "syslog", "Config": {"bad": "x"}}}, "unknown log opt 'bad' for syslog log driver"),
    ({"LogConfig": {"Type": "syslog", "Config": {"syslog-facility": "zzz"}}}, "invalid syslog facility"),
    ({"LogConfig": {"Config": {"mode": "zz"}}}, "logger: logging mode not supported: zz"),
    ({".": {"WorkingDir": "rel"}}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
    ({".": {"Env": ["=x"]}}, "invalid environment variable: =x"),
    ({".": {"StopSignal": "BAD"}}, "invalid signal: BAD"),
    ({".": {"Healthcheck": {"Interval": 1}}}, "interval in Healthcheck cannot be less than 1ms"),
]


@pytest.fixture
def containers(docker: Tool) -> Iterator[str]:
    """A container that runs and one that doesn't, whose id is given."""
    docker.ok("run", "-d", "--name", "words-up", "--network", "none", IMAGE, "sleep", "600")
    yield docker.ok("create", "--name", "words-down", "--network", "none", IMAGE)
    docker.ok("rm", "-f", "words-up", "words-down")


def said(tool: Tool, method: str, path: str, body: Any, status: int) -> str:
    """Make a request that must fail; what is said."""
    statuses = (status, 500) if tool.name == "dockerd" and status == 400 else (status,)
    content, _ = ask(tool, method, path, body, statuses)
    return str(json.loads(content)["message"])


def test_requests(docker: Tool, containers: str) -> None:
    """Requests about what isn't there, isn't running, or makes no sense."""
    for line in (ASKED if docker.name == "dockerd" else ASKED + LATER.lstrip()).strip().splitlines():
        match = re.fullmatch(r"(\w+) (\S+)(?: (\{.*\}))? (\d{3}) (.*)", line)
        assert match, line
        method, path, body, status, words = match.groups()
        where, _, query = path.partition("?")
        wish: dict[str, Any] | None = json.loads(body) if body else {} if method == "POST" else None
        if where == "/containers/create":
            wish = {"Image": IMAGE, **(wish or {})}
        told = said(docker, method, f"{where}?{quote(query, safe='=&%')}", wish, int(status))
        assert words.replace("ID", containers if "container ID" in words else "ID").lower() in told.lower(), line


@pytest.mark.parametrize(("wish", "words"), REFUSED)
def test_creations(docker: Tool, wish: dict[str, Any], words: str) -> None:
    """Creations that make no sense are refused, and nothing is made."""
    body = {"Image": IMAGE, **wish["."]} if "." in wish else {"Image": IMAGE, "HostConfig": wish}
    assert words.lower() in said(docker, "POST", "/containers/create", body, 400).lower()


@pytest.mark.parametrize(("wish", "words"), REFUSED_LATER)
def test_creations_that_are_refused_since(trivet: Tool, wish: dict[str, Any], words: str) -> None:
    """What dockerd 20.10 let pass, or did not have, is refused as dockerd 28 does."""
    test_creations(trivet, wish, words)


def test_nothing_wanted(trivet: Tool) -> None:
    """An empty creation is refused; ports on the host's network, and no limit where nothing is killed, are told."""
    assert "config cannot be empty" in said(trivet, "POST", "/containers/create", {}, 400)
    wish = {"NetworkMode": "host", "PortBindings": {"80/tcp": [{}]}, "OomKillDisable": True}
    made = json.loads(ask(trivet, "POST", "/containers/create", {"Image": IMAGE, "HostConfig": wish}, 201)[0])
    assert [each.split(",")[0] for each in made["Warnings"]] == [
        "Published ports are discarded when using host network mode",
        "OOM killer is disabled for the container",
    ]
    ask(trivet, "DELETE", f"/containers/{made['Id']}", None, 204)
