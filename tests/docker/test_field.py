"""Bodies with every field there is: what has an effect has it, what has none does no harm, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.docker.conftest import IMAGE, Tool
from tests.docker.request import ask, value
from tests.docker.test_limit import drop_groups, group_of

pytestmark = pytest.mark.needs("root", "docker")

WITHOUT_EFFECT: dict[str, Any] = {
    "BlkioWeight": 300,
    "BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 300}],
    "Cgroup": "x",
    "CpuRealtimePeriod": 1000,
    "CpuRealtimeRuntime": 100,
    "KernelMemory": 1 << 26,
    "KernelMemoryTCP": 1 << 26,
    "CpuCount": 1,
    "CpuPercent": 50,
    "IOMaximumIOps": 100,
    "IOMaximumBandwidth": 100,
}


@pytest.fixture
def network(trivet: Tool) -> Iterator[str]:
    """A network of both families."""
    wish = {
        "Name": "field-net",
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Scope": "local",
        "Internal": False,
        "Attachable": True,
        "Ingress": False,
        "ConfigOnly": False,
        "ConfigFrom": {"Network": ""},
        "EnableIPv4": True,
        "EnableIPv6": True,
        "IPAM": {
            "Driver": "default",
            "Options": {"a": "b"},
            "Config": [
                {
                    "Subnet": "10.214.7.0/24",
                    "IPRange": "10.214.7.128/25",
                    "Gateway": "10.214.7.1",
                    "AuxiliaryAddresses": {"a": "10.214.7.2"},
                },
                {"Subnet": "fd00:214:7::/64"},
            ],
        },
        "Options": {"com.docker.network.driver.mtu": "1400"},
        "Labels": {"a": "b"},
    }
    value(trivet, "POST", "/networks/create", wish, 201)
    yield "field-net"
    ask(trivet, "DELETE", "/networks/field-net", None, 204)


def test_a_creation_with_everything(trivet: Tool, network: str) -> None:
    """Every field of a creation; inside it is as the fields say."""
    trivet.ok("run", "-d", "--name", "field-other", "--network", network, "-v", "field-v:/other", IMAGE, "sleep", "600")
    host = {
        **WITHOUT_EFFECT,
        "Binds": ["field-b:/bound:ro"],
        "Tmpfs": {"/fast": "size=1m"},
        "VolumesFrom": ["field-other:ro"],
        "Mounts": [
            {
                "Type": "bind",
                "Source": "/tmp",
                "Target": "/host",
                "ReadOnly": True,
                "Consistency": "cached",
                "BindOptions": {
                    "Propagation": "rprivate",
                    "CreateMountpoint": True,
                    "NonRecursive": False,
                    "ReadOnlyNonRecursive": False,
                    "ReadOnlyForceRecursive": True,
                },
            },
            {
                "Type": "volume",
                "Source": "field-m",
                "Target": "/vol",
                "VolumeOptions": {
                    "NoCopy": True,
                    "Labels": {"a": "b"},
                    "DriverConfig": {"Name": "local", "Options": {}},
                    "Subpath": "",
                },
            },
            {
                "Type": "tmpfs",
                "Target": "/mem",
                "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700, "Options": [["noexec"]]},
                "ImageOptions": {"Subpath": ""},
            },
        ],
        "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]},
        "PublishAllPorts": True,
        "NetworkMode": network,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2},
        "AutoRemove": False,
        "Init": True,
        "ReadonlyRootfs": True,
        "Privileged": False,
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["CHOWN"],
        "Ulimits": [{"Name": "nofile", "Soft": 99, "Hard": 99}],
        "Sysctls": {"net.ipv4.ip_forward": "1"},
        "ShmSize": 1 << 20,
        "Dns": ["192.0.2.53"],
        "DnsOptions": ["ndots:3"],
        "DnsSearch": ["example.test"],
        "ExtraHosts": ["there:192.0.2.9"],
        "GroupAdd": ["77"],
        "ConsoleSize": [31, 91],
        "StorageOpt": {},
        "Memory": 64 << 20,
        "MemorySwap": 96 << 20,
        "MemoryReservation": 32 << 20,
        "NanoCpus": 0,
        "CpuQuota": 50_000,
        "CpuPeriod": 100_000,
        "CpuShares": 512,
        "CpusetCpus": "0",
        "PidsLimit": 50,
        "SecurityOpt": ["no-new-privileges"],
        "Runtime": "runc",
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "UsernsMode": "private",
        "PidMode": "private",
        "IpcMode": "private",
        "UTSMode": "private",
        "CgroupnsMode": "private",
        "CgroupParent": "/trivet-field",
        "Links": ["field-other:db"],
        "Devices": [{"PathOnHost": "/dev/zero", "PathInContainer": "/dev/other", "CgroupPermissions": "r"}],
        "DeviceRequests": [],
        "VolumeDriver": "local",
        "ContainerIDFile": "/x",
        "Annotations": {"a": "b"},
        "Isolation": "default",
    }
    endpoint = {
        "Aliases": ["one"],
        "IPAMConfig": {"IPv4Address": "10.214.7.130", "IPv6Address": "fd00:214:7::82", "LinkLocalIPs": []},
        "MacAddress": "02:00:00:00:00:99",
        "DriverOpts": {},
        "GwPriority": 5,
        "Links": ["field-other:db2"],
    }
    body = {
        "Image": IMAGE,
        "Cmd": ["sleep 600"],
        "Entrypoint": ["sh", "-c"],
        "Env": ["A=b"],
        "WorkingDir": "/mem",
        "User": "0:0",
        "Hostname": "here",
        "Domainname": "example.test",
        "Tty": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "ArgsEscaped": False,
        "NetworkDisabled": False,
        "Labels": {"a": "b"},
        "StopSignal": "KILL",
        "StopTimeout": 3,
        "ExposedPorts": {"81/tcp": {}},
        "Volumes": {"/anonymous": {}},
        "MacAddress": "",
        "Shell": ["sh"],
        "OnBuild": None,
        "Healthcheck": {
            "Test": ["CMD", "true"],
            "Interval": 10**9,
            "Timeout": 10**9,
            "Retries": 2,
            "StartPeriod": 10**9,
            "StartInterval": 10**9,
        },
        "HostConfig": host,
        "NetworkingConfig": {"EndpointsConfig": {network: endpoint}},
    }
    body["OnBuild"] = ["x"]
    made = value(trivet, "POST", "/containers/create", body, 201, name="field")
    told = [
        words.partition(" ")[0] for words in made["Warnings"] if words.endswith("has no effect here. It was discarded.")
    ]
    assert sorted(told) == sorted(WITHOUT_EFFECT)
    ask(trivet, "POST", "/containers/field/start", None, 204)
    script = """
        hostname; ulimit -n; cat /proc/sys/net/ipv4/ip_forward; df -k /dev/shm | tail -1 | awk '{print $2}'
        stat -c %a /mem; id -G; pwd; echo $A; cat /proc/1/comm
        touch /x || echo ro; touch /other/x || echo ro; ls -d /vol /bound /host >/dev/null
    """
    seen = trivet.ok("exec", "field", "sh", "-c", script).splitlines()
    assert seen == ["here", "99", "1", "1024", "700", "0 77", "/mem", "b", seen[8], "ro", "ro"]
    assert "nameserver" in trivet.ok("exec", "field", "cat", "/etc/resolv.conf")
    hosts = trivet.ok("exec", "field", "cat", "/etc/hosts")
    assert all(f"\t{name}\n" in f"{hosts}\n" for name in ("there", "db", "db2"))
    shown = value(trivet, "GET", "/containers/field/json")
    address = shown["NetworkSettings"]["Networks"][network]
    assert (address["IPAddress"], address["GlobalIPv6Address"]) == ("10.214.7.130", "fd00:214:7::82")
    assert address["MacAddress"] == "02:00:00:00:00:99"
    assert set(shown["NetworkSettings"]["Ports"]) == {"80/tcp", "81/tcp"}
    assert shown["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert shown["HostConfig"]["ConsoleSize"] == [31, 91]
    assert trivet.ok("exec", "field", "head", "-c1", "/dev/other") == "\0"
    trivet.ok("rm", "-f", "-v", "field", "field-other")
    trivet.ok("volume", "rm", "field-v", "field-b", "field-m")
    drop_groups("trivet-field")


DRIVER = {"DriverConfig": {"Name": "nfs"}}


def test_what_is_refused(trivet: Tool) -> None:
    """Fields that can't be had are refused, and say so."""
    for host in (
        {"DeviceRequests": [{"Count": 1}]},
        {"VolumeDriver": "nfs"},
        {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": DRIVER}]},
    ):
        value(trivet, "POST", "/containers/create", {"Image": IMAGE, "HostConfig": host}, 501)
    for options in ({"a": "b"}, {"trivet.rate_in": "fast"}):
        unknown = {"EndpointsConfig": {"bridge": {"DriverOpts": options}}}
        value(trivet, "POST", "/containers/create", {"Image": IMAGE, "NetworkingConfig": unknown}, 400)
    key = value(trivet, "POST", "/containers/create", {"Image": IMAGE, "NetworkDisabled": True}, 201)["Id"]
    assert value(trivet, "GET", f"/containers/{key}/json")["HostConfig"]["NetworkMode"] == "none"
    ask(trivet, "DELETE", f"/containers/{key}", None, 204)


def test_the_other_bodies(trivet: Tool, network: str) -> None:
    """Every field of updates, execs, connections, volumes and logins."""
    trivet.ok("run", "-d", "--name", "field", "--network", "bridge", IMAGE, "sleep", "600")
    trivet.ok("run", "-d", "--name", "field-other", "--network", network, IMAGE, "sleep", "600")
    limits = {
        "Memory": 64 << 20,
        "MemorySwap": 96 << 20,
        "MemoryReservation": 32 << 20,
        "NanoCpus": 0,
        "CpuQuota": 50_000,
        "CpuPeriod": 100_000,
        "CpuShares": 512,
        "CpusetCpus": "0",
        "PidsLimit": 50,
        "BlkioWeight": 300,
        "CpusetMems": "0",
        "KernelMemory": 0,
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    }
    value(trivet, "POST", "/containers/field/update", limits)
    assert trivet.ok("inspect", "-f", "{{.HostConfig.CpusetMems}}", "field") == "0"
    group, _ = group_of(trivet, "field", "cpuset")
    assert (group / "cpuset.mems").read_text() == "0\n"
    shown = value(trivet, "GET", "/containers/field/json")["HostConfig"]
    assert (shown["Memory"], shown["CpuShares"], shown["PidsLimit"]) == (64 << 20, 512, 50)
    assert shown["RestartPolicy"] == limits["RestartPolicy"]
    wish = {
        "Cmd": ["sh", "-c", "echo $A $(pwd) $(id -u)"],
        "Env": ["A=b"],
        "WorkingDir": "/tmp",
        "User": "7",
        "Tty": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Privileged": False,
        "DetachKeys": "ctrl-a",
        "ConsoleSize": [30, 90],
    }
    made = value(trivet, "POST", "/containers/field/exec", wish, 201)["Id"]
    start = {"Detach": False, "Tty": True, "ConsoleSize": [30, 90]}
    assert b"b /tmp 7" in ask(trivet, "POST", f"/exec/{made}/start", start)[0]
    endpoint = {
        "Aliases": ["one"],
        "IPAMConfig": {"IPv4Address": "10.214.7.140", "IPv6Address": "fd00:214:7::8c"},
        "MacAddress": "02:00:00:00:00:98",
        "DriverOpts": {"trivet.rate_in": "10mbit", "trivet.rate_out": "0"},
        "GwPriority": 5,
        "Links": ["field-other:db"],
    }
    ask(trivet, "POST", f"/networks/{network}/connect", {"Container": "field", "EndpointConfig": endpoint})
    place = value(trivet, "GET", "/containers/field/json")["NetworkSettings"]["Networks"][network]
    assert place["DriverOpts"] == {"trivet.rate_in": "10000000"}
    assert value(trivet, "GET", f"/networks/{network}", verbose="1", scope="local")["Containers"]
    value(trivet, "GET", f"/networks/{network}", None, 404, scope="swarm")
    ask(trivet, "POST", f"/networks/{network}/disconnect", {"Container": "field", "Force": True})
    unknown = {"Container": "field", "EndpointConfig": {"DriverOpts": {"a": "b"}}}
    ask(trivet, "POST", f"/networks/{network}/connect", unknown, 400)
    volume = {"Name": "field-w", "Driver": "local", "DriverOpts": {}, "Labels": {"a": "b"}, "ClusterVolumeSpec": {}}
    value(trivet, "POST", "/volumes/create", volume, 201)
    trivet.ok("volume", "rm", "field-w")
    login = {"username": "u", "password": "p", "email": "e", "identitytoken": "", "serveraddress": "127.0.0.1:1"}
    ask(trivet, "POST", "/auth", login, 503)
    trivet.ok("rm", "-f", "field", "field-other")


def test_parameters_without_effect(trivet: Tool) -> None:
    """Parameters that newer clients send are taken, also where there is nothing to choose from."""
    trivet.ok("tag", IMAGE, "field-image:1")
    trivet.ok("run", "-d", "--name", "field", "--network", "none", IMAGE, "sleep", "600")
    rows = value(trivet, "GET", "/images/json", **{"all": "1", "digests": "1", "shared-size": "1", "manifests": "1"})
    assert rows
    one = "/images/field-image:1"
    assert value(trivet, "GET", f"{one}/json", manifests="1", platform="linux/amd64")["Id"]
    assert value(trivet, "GET", f"{one}/history", platform="linux/amd64")
    saved = ask(trivet, "GET", f"{one}/get", platform="linux/amd64")[0]
    assert ask(trivet, "GET", "/images/get", names="field-image:1", platform="linux/amd64")[0]
    ask(trivet, "POST", "/images/load", saved, quiet="1", platform="linux/amd64")
    ask(trivet, "POST", "/images/127.0.0.1:1/field-image/push", None, 404, tag="1", platform="linux/amd64")
    ask(trivet, "DELETE", one, force="1", noprune="1", platforms="[]")
    ask(trivet, "PUT", "/containers/field/archive", b"", (200, 400), path="/tmp", copyUIDGID="1")
    ask(trivet, "POST", "/containers/field/start", None, 304, detachKeys="ctrl-a")
    kept = {"keep-storage": "1", "reserved-space": "1", "max-used-space": "1", "min-free-space": "1"}
    value(trivet, "POST", "/build/prune", all="0", filters='{"until":["1h"]}', **kept)
    ask(trivet, "PUT", "/volumes/x", {}, 503)
    trivet.ok("rm", "-f", "field")
