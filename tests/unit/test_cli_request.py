"""What the options of `run` become, and what is said about wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trivet.base.error import TrivetError
from trivet.cli.catalog import BY_WORDS
from trivet.cli.command import Misuse, Parser, build_parser
from trivet.cli.request import request_of
from trivet.client.schema import InstanceRequest, LogRequest, MountRequest, RestartPolicy, RlimitRequest
from trivet.client.schema_network import EndpointRequest, PortRequest

ENVIRON = {"HOME": "/root", "SECRET": "s3cret"}


def parse(line: list[str], environ: Mapping[str, str] = ENVIRON) -> InstanceRequest:
    entry = BY_WORDS["run"]
    parser = build_parser(Parser(prog="trivet run", add_help=False, allow_abbrev=False), entry.command(), entry.summary)
    return request_of(parser.parse_args(line), environ)


def volume(target: str, source: str = "", **fields: Any) -> MountRequest:
    return MountRequest(kind="volume", source=source, target=target, **fields)


def bind(source: str, target: str, **fields: Any) -> MountRequest:
    return MountRequest(kind="bind", source=source, target=target, **fields)


HERE = str(Path.cwd())

ACCEPTED: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--isolation", "vm"], {"isolation": "vm"}),
    (["-it"], {"terminal": True, "stdin": True}),
    (
        ["--name", "web", "-h", "host", "-u", "1:2", "-w", "/srv"],
        {"name": "web", "hostname": "host", "user": "1:2", "cwd": "/srv"},
    ),
    (["-e", "A=1", "-e", "SECRET", "-e", "ABSENT", "-eB=2=3"], {"env": ["A=1", "SECRET=s3cret", "B=2=3"]}),
    (["--entrypoint", "sh"], {"entrypoint": ["sh"]}),
    (["--entrypoint", ""], {"entrypoint": []}),
    (["-l", "a=1", "--label", "b"], {"labels": {"a": "1", "b": ""}}),
    (["-m", "512m", "--memory-swap", "-1", "--cpus", "1.5"], {"memory": 512 << 20, "memory_swap": -1, "cpus": 1.5}),
    (["-m=1g", "--shm-size", "64k", "-c", "512"], {"memory": 1 << 30, "shm_size": 64 << 10, "cpu_shares": 512}),
    (["--pids-limit", "-1"], {"pids_limit": -1}),
    (["--pids-limit", "100", "--cpuset-cpus", "0-1"], {"pids_limit": 100, "cpuset": "0-1"}),
    (["-v", "data:/data:ro"], {"mounts": [volume("/data", "data", read_only=True)]}),
    (["-v", "/data"], {"mounts": [volume("/data")]}),
    (
        ["-v", "/host:/x:ro,rslave"],
        {"mounts": [bind("/host", "/x", read_only=True, propagation="rslave", create_source=True)]},
    ),
    (["-v", "./site:/srv:z"], {"mounts": [bind(f"{HERE}/site", "/srv", create_source=True)]}),
    (["--mount", "type=bind,source=/a,target=/b,readonly"], {"mounts": [bind("/a", "/b", read_only=True)]}),
    (["-v", "/host:/x:mine"], {"mounts": [bind("/host", "/x", mine=True, create_source=True)]}),
    (["--mount", "type=bind,src=/a,dst=/b,bind-mine"], {"mounts": [bind("/a", "/b", mine=True)]}),
    (["--mount", "source=v,dst=/b,volume-nocopy"], {"mounts": [volume("/b", "v", no_copy=True)]}),
    (
        ["--mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700"],
        {"mounts": [MountRequest(kind="tmpfs", target="/t", size=1 << 20, mode=0o700)]},
    ),
    (["--mount", 'type=bind,"source=/a,b",target=/b'], {"mounts": [bind("/a,b", "/b")]}),
    (["--tmpfs", "/t:size=2m,noexec"], {"mounts": [MountRequest(kind="tmpfs", target="/t", size=2 << 20)]}),
    (["-p", "80"], {"ports": [PortRequest(container_port=80)]}),
    (["-p", "8080:80/udp"], {"ports": [PortRequest(container_port=80, host_port=8080, protocol="udp")]}),
    (["-p127.0.0.1:8080:80"], {"ports": [PortRequest(container_port=80, host_port=8080, host_address="127.0.0.1")]}),
    (["-p", "127.0.0.1::80"], {"ports": [PortRequest(container_port=80, host_address="127.0.0.1")]}),
    (["-p", "[::1]:81:80"], {"ports": [PortRequest(container_port=80, host_port=81, host_address="::1")]}),
    (
        ["-p", "8000-8001:80-81"],
        {"ports": [PortRequest(container_port=80, host_port=8000), PortRequest(container_port=81, host_port=8001)]},
    ),
    (
        ["-P", "--network", "back", "--network-alias", "db"],
        {"publish_all": True, "networks": [EndpointRequest(network="back", aliases=["db"])]},
    ),
    (
        ["--ip", "10.0.0.9", "--dns", "9.9.9.9", "--add-host", "a:1.2.3.4"],
        {
            "networks": [EndpointRequest(network="bridge", ip="10.0.0.9")],
            "dns": ["9.9.9.9"],
            "extra_hosts": ["a:1.2.3.4"],
        },
    ),
    (
        ["--network", "name=a,alias=x,ip6=fd00::9,gw-priority=-1", "--network", "b", "--ip", "10.0.0.9"],
        {
            "networks": [
                EndpointRequest(network="a", aliases=["x"], ip="10.0.0.9", ip6="fd00::9", priority=-1),
                EndpointRequest(network="b"),
            ]
        },
    ),
    (["--dns-search", "a.test", "--dns-opt", "ndots:2"], {"dns_search": ["a.test"], "dns_options": ["ndots:2"]}),
    (["--add-host", "a:::1"], {"extra_hosts": ["a:::1"]}),
    (["--ulimit", "nofile=64:128"], {"rlimits": [RlimitRequest("NOFILE", 64, 128)]}),
    (["--ulimit", "core=-1"], {"rlimits": [RlimitRequest("CORE", -1, -1)]}),
    (["--restart", "on-failure:3"], {"restart": RestartPolicy(name="on-failure", maximum=3)}),
    (["--rm"], {"auto_remove": True}),
    (["--cap-add", "net_admin", "--cap-drop", "CAP_CHOWN"], {"cap_add": ["NET_ADMIN"], "cap_drop": ["CHOWN"]}),
    (
        ["--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges=false"],
        {"seccomp": "unconfined", "no_new_privileges": False},
    ),
    (["--privileged", "--read-only", "--init"], {"privileged": True, "read_only": True, "init": True}),
    (["--stop-signal", "INT", "--stop-timeout", "1m"], {"stop_signal": "INT", "stop_timeout": 60}),
    (
        ["--sysctl", "net.core.somaxconn=9", "--group-add", "audio"],
        {"sysctls": {"net.core.somaxconn": "9"}, "groups": ["audio"]},
    ),
    (["--pull", "never", "--platform", "linux/arm64"], {"pull": "never", "platform": "linux/arm64"}),
    (
        ["--log-opt", "max-size=1m", "--log-opt", "max-file=3"],
        {"log": LogRequest(options={"max-size": "1m", "max-file": "3"}), "log_size": 1 << 20, "log_files": 2},
    ),
]


@pytest.mark.parametrize(
    ("options", "fields"), ACCEPTED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_options_become_a_request(options: list[str], fields: dict[str, Any]) -> None:
    """Every option sets its own field of the request and nothing else."""
    expected = msgspec.structs.replace(InstanceRequest(image="image"), **fields)
    actual = parse([*options, "image"])
    assert msgspec.structs.replace(actual, rows=0, columns=0) == expected


def test_what_follows_the_image_is_the_command() -> None:
    """Options after the image belong to the program."""
    request = parse(["--rm", "image", "ls", "-l", "--name", "-e", "--", "x"])
    assert request.command == ["ls", "-l", "--name", "-e", "--", "x"]
    assert request.name == ""


def test_isolation_comes_from_the_environment() -> None:
    """TRIVET_ISOLATION is the default of --isolation, which wins."""
    assert parse(["image"], {"TRIVET_ISOLATION": "process"}).isolation == "process"
    assert parse(["--isolation", "vm", "image"], {"TRIVET_ISOLATION": "process"}).isolation == "vm"


def test_files_of_variables(tmp_path: Path) -> None:
    """An --env-file comes before -e, skips comments and takes bare names from the environment."""
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\nSECRET\nABSENT\n  B=x y # no comment\n")
    request = parse(["-e", "A=2", "--env-file", str(file), "image"])
    assert request.env == ["A=1", "SECRET=s3cret", "B=x y # no comment", "A=2"]


def test_files_of_labels(tmp_path: Path) -> None:
    """A --label-file is read, and --label wins over it."""
    file = tmp_path / "labels"
    file.write_text("a=1\nb=2\n")
    assert parse(["--label-file", str(file), "-l", "b=3", "image"]).labels == {"a": "1", "b": "3"}


REFUSED: list[tuple[list[str], str]] = [
    (["-m", "12q"], "--memory: '12q' is not a size"),
    (["--cpus", "0"], "--cpus: '0' is not a number of CPUs"),
    (["--isolation", "jail"], "--isolation: 'jail' is not an isolation level"),
    (["-v", "a:b:c:d"], "--volume: 'a:b:c:d' is not [SOURCE:]TARGET[:ro]"),
    (["-v", "data:relative"], "the target 'relative' is not an absolute path"),
    (["-v", "a:/b:banana"], "unknown option 'banana'"),
    (["-v", "a/b:/c"], "write ./a/b"),
    (["--mount", "type=banana,target=/x"], "'banana' is not a type of mount"),
    (["--mount", "type=bind,target=/x"], "a bind mount needs source=PATH"),
    (["--mount", "target=/x,flavour=y"], "unknown key 'flavour'"),
    (["--mount", "type=tmpfs,target=/x,tmpfs-mode=9"], "'9' is not an octal mode"),
    (["-p", "99999"], "'99999' is not between 1 and 65535"),
    (["-p", "80:81:82:83"], "--publish: '80:81:82:83' is not"),
    (["-p", "8000-8002:80-81"], "3 ports of the host for 2 of the instance"),
    (["-p", "80/sctp"], "'sctp' is neither tcp nor udp"),
    (["-p", "300.0.0.1:80:80"], "'300.0.0.1' is not an IP address"),
    (["--ulimit", "nofile"], "--ulimit: 'nofile' is not NAME=SOFT[:HARD]"),
    (["--ulimit", "nofile=9:8"], "the soft limit is above the hard one"),
    (["--restart", "sometimes"], "--restart: 'sometimes' is not a policy"),
    (["--restart", "always", "--rm"], "--restart and --rm exclude each other"),
    (["--security-opt", "seccomp=/x.json"], "is not supported"),
    (["--stop-timeout", "soon"], "--stop-timeout: 'soon' is not a duration"),
    (["--sysctl", "a"], "--sysctl: 'a' is not KEY=VALUE"),
    (["--add-host", "name"], "--add-host: 'name' is not NAME:ADDRESS"),
    (["-e", "=x"], "--env: '=x' is not KEY=VALUE"),
    (["--detach-keys", "ctrl-"], "--detach-keys: 'ctrl-' is not a sequence of keys"),
    (["--name"], "--name: needs a value"),
    (["--nmae", "x"], "unknown: --nmae"),
]


@pytest.mark.parametrize(
    ("options", "sentence"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_values_are_named(options: list[str], sentence: str) -> None:
    """A wrong value gets one sentence with the option's long name and the value."""
    line = options if options == ["--name"] else [*options, "image"]
    with pytest.raises(Misuse) as caught:
        parse(line)
    assert sentence in caught.value.message


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    """A mistake in an --env-file is told with file and line, a missing file with its name."""
    file = tmp_path / "env"
    file.write_text("A=1\nnot a name=2\n")
    with pytest.raises(TrivetError, match=r"env:2: 'not a name' is not a name"):
        parse(["--env-file", str(file), "image"])
    with pytest.raises(TrivetError, match="cannot read /nonexistent: no such file"):
        parse(["--env-file", "/nonexistent", "image"])


def test_the_request_survives_the_wire() -> None:
    """A request encodes to JSON and decodes to itself."""
    request = parse(["-e", "A=ü", "-p", "80", "-v", "d:/d", "image", "sh"])
    assert msgspec.json.decode(msgspec.json.encode(request), type=InstanceRequest) == request
