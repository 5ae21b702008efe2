"""Compose files: YAML, interpolation, merging, profiles, and services as requests for instances."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.base.error import InvalidArgument, NotFound, TrivetError
from trivet.cli.compose import interpolation, plan, shape
from trivet.cli.compose import service as reading
from trivet.cli.compose.document import ComposeError, parse
from trivet.cli.compose.project import Project, Wish, load
from trivet.client.schema import InstanceRequest, MountRequest, RestartPolicy, RlimitRequest
from trivet.client.schema_network import EndpointRequest, PortRequest


def _project(directory: Path, *documents: str, environ: dict[str, str] | None = None, **wish: Any) -> Project:
    paths = [directory / f"{number}.yaml" for number in range(len(documents))]
    for path, text in zip(paths, documents, strict=True):
        path.write_text(text)
    return load(Wish(files=[str(path) for path in paths], **{"name": "app", **wish}), environ or {})


def _request(directory: Path, service: str, *more: str) -> InstanceRequest:
    project = _project(directory, f"services: {{web: {{image: i, {service}}}}}", *more)
    return plan.desired(project, "web", 1)[0]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("$A-${A}", "1-1"),
        ("$$A", "$A"),
        ("${B:-x}${E:-y}${E-z}", "xy"),
        ("${E:+set}${A:+set}${E+set}", "setset"),
        ("${B:-${C:-$A}}", "1"),
        ("a}${A}", "a}1"),
        ("${A:?never}", "1"),
    ],
)
def test_interpolation(template: str, expected: str) -> None:
    """Names are replaced as the specification says: A is 1, E is empty, B isn't set."""
    assert interpolation.text(template, {"A": "1", "E": ""}, "x") == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [("${B:?say it}", "B is not set: say it"), ("${A", "without its }"), ("$-", "without a name"), ("${A!}", "'!'")],
)
def test_bad_interpolation(template: str, words: str) -> None:
    """What can't be replaced is told with the place."""
    with pytest.raises(ComposeError, match=r"^services\.web\.image: ") as caught:
        interpolation.everywhere({"services": {"web": {"image": template}}}, {"A": "1"})
    assert words in str(caught.value)


def test_environment_files(tmp_path: Path) -> None:
    """A .env file has comments, quotes, several lines, and values made of others."""
    (tmp_path / "e").write_text('# c\nexport A=1 # one\nB=\'$A\'\nC="$A\\n2"\nD="x\ny"\nE\nF=\nG=a#b\n')
    found = interpolation.read_file(tmp_path / "e", {})
    assert found == {"A": "1", "B": "$A", "C": "1\n2", "D": "x\ny", "E": None, "F": "", "G": "a#b"}


def test_yaml_as_people_mean_it() -> None:
    """Ports, versions, modes, dates, yes and no are what was typed; aliases and merge keys work."""
    found = parse(
        b"a: &a {p: 22:22, v: 1.10, m: 0440, d: 2026-01-01, y: yes, n: ~, t: true, i: 7}\nb: {<<: *a, p: x}", "f"
    )
    assert found["b"] == {
        "p": "x",
        "v": "1.10",
        "m": "0440",
        "d": "2026-01-01",
        "y": "yes",
        "n": None,
        "t": True,
        "i": 7,
    }
    assert found["a"]["p"] == "22:22"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: 1\na: 2", "a is there twice on line 2"),
        (b"- 1", "no mapping"),
        (b"a: [", "line 1"),
        (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        (b"\xff\xfe\x00", "no YAML"),
        (b"? [a]\n: 1", "not a word"),
        (
            "\n".join(
                ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
            ).encode(),
            "aliases",
        ),
    ],
    ids=["twice", "list", "open", "object", "bytes", "key", "laughs"],
)
def test_hostile_yaml(text: bytes, words: str) -> None:
    """Code, bombs and nonsense are refused in a sentence."""
    with pytest.raises(ComposeError) as caught:
        parse(text, "f")
    assert words in str(caught.value)


def test_merge(tmp_path: Path) -> None:
    """Mappings are joined, lists appended, commands replaced, volumes joined by target; !reset, !override."""
    first = """
services:
  web:
    image: one
    command: [a]
    environment: [A=1, B=2]
    volumes: [/x:/data, extra:/more]
    ports: ["80"]
    dns: 1.1.1.1
    labels: {keep: "1"}
volumes: {extra: {}, other: {}}
"""
    second = """
services:
  web:
    image: two
    command: [b]
    environment: {B: "3", C: "4"}
    volumes: [other:/data]
    ports: !override ["81"]
    dns: [2.2.2.2]
    labels: !reset null
"""
    web = _project(tmp_path, first, second).services["web"]
    assert (web["image"], web["command"], web["ports"]) == ("two", ["b"], ["81"])
    assert web["environment"] == {"A": "1", "B": "3", "C": "4"}
    assert [(one["source"], one["target"]) for one in web["volumes"]] == [("other", "/data"), ("extra", "/more")]
    assert web["dns"] == ["1.1.1.1", "2.2.2.2"]
    assert "labels" not in web


def test_extends_and_include(tmp_path: Path) -> None:
    """A service extends one of another file, whose paths are relative to that file; a project includes another."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base/base.yaml").write_text("services: {base: {image: b, volumes: [./d:/d], environment: {A: '1'}}}")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/compose.yaml").write_text("services: {db: {image: 'db:${V}'}}\nvolumes: {data: {}}")
    (tmp_path / "sub/.env").write_text("V=7")
    text = """
include: [sub/compose.yaml]
services:
  web:
    extends: {file: base/base.yaml, service: base}
    environment: {B: "2"}
  again: {extends: web, image: c}
"""
    project = _project(tmp_path, text)
    assert project.services["web"]["volumes"][0]["source"] == str(tmp_path / "base/d")
    assert project.services["again"]["environment"] == {"A": "1", "B": "2"}
    assert (project.services["again"]["image"], project.services["db"]["image"]) == ("c", "db:7")
    assert "data" in project.volumes
    with pytest.raises(ComposeError, match="in a circle"):
        _project(tmp_path, "services: {a: {extends: b}, b: {extends: a}}")
    with pytest.raises(ComposeError, match="defined again"):
        _project(tmp_path, "include: [sub/compose.yaml, {path: other.yaml}]\nservices: {}", _other(tmp_path))


def _other(directory: Path) -> str:
    (directory / "other.yaml").write_text("services: {db: {image: x}}")
    return "services: {}"


def test_profiles_and_order(tmp_path: Path) -> None:
    """Services of other profiles are dormant until they are named; those that are needed come first."""
    text = """
services:
  web: {image: i, depends_on: {db: {condition: service_healthy}, cache: {condition: service_started, required: false}}}
  db: {image: i}
  debug: {image: i, profiles: [dev], depends_on: [web]}
"""
    project = _project(tmp_path, text)
    assert project.wanted(()) == ["db", "web"]
    assert project.wanted(["debug"]) == ["db", "web", "debug"]
    assert project.wanted(["web"], alone=True) == ["web"]
    assert set(_project(tmp_path, text, profiles=["dev"]).services) == {"web", "db", "debug"}
    assert set(_project(tmp_path, text, environ={"COMPOSE_PROFILES": "dev"}).services) == {"web", "db", "debug"}
    with pytest.raises(InvalidArgument, match="there is no service nope"):
        project.wanted(["nope"])
    with pytest.raises(InvalidArgument, match="wait for one another"):
        _project(tmp_path, "services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [a]}}").wanted(())


def test_where_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """compose.yaml is looked for here and above, with its override; the directory gives the name."""
    (tmp_path / "My App/below").mkdir(parents=True)
    (tmp_path / "My App/compose.yaml").write_text("services: {web: {image: '${I}'}}")
    (tmp_path / "My App/compose.override.yml").write_text("services: {web: {tty: true}}")
    (tmp_path / "My App/.env").write_text("I=from-file")
    monkeypatch.chdir(tmp_path / "My App/below")
    project = load(Wish(), {})
    assert (project.name, project.services["web"]) == ("myapp", {"image": "from-file", "tty": True})
    assert load(Wish(), {"I": "env", "COMPOSE_PROJECT_NAME": "n"}).services["web"]["image"] == "env"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="no compose file"):
        load(Wish(), {})


@pytest.mark.parametrize(
    ("service", "field", "expected"),
    [
        ("isolation: vm", "isolation", "vm"),
        ("runtime: process", "isolation", "process"),
        ("command: sh -c 'a b'", "command", ["sh", "-c", "a b"]),
        ("entrypoint: []", "entrypoint", []),
        ("environment: {A: true, B: 1, C: }", "env", ["A=true", "B=1"]),
        (
            "ports: ['127.0.0.1:80:81/udp']",
            "ports",
            [PortRequest(container_port=81, host_port=80, host_address="127.0.0.1", protocol="udp")],
        ),
        (
            "ports: [{target: 80, published: '8080', host_ip: '::1'}]",
            "ports",
            [PortRequest(container_port=80, host_port=8080, host_address="::1")],
        ),
        (
            "ports: [{target: 80, published: 9000-9005}]",
            "ports",
            [PortRequest(container_port=80, host_port=9000, last=9005)],
        ),
        ("tmpfs: /t", "mounts", [MountRequest(kind="tmpfs", target="/t")]),
        (
            "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]",
            "mounts",
            [MountRequest(kind="tmpfs", target="/t", size=1 << 20, mode=0o700)],
        ),
        (
            "volumes: ['/h:/t:ro']",
            "mounts",
            [MountRequest(kind="bind", source="/h", target="/t", read_only=True, create_source=True)],
        ),
        ("network_mode: none", "networks", [EndpointRequest(network="none")]),
        ("tty: true", "networks", [EndpointRequest(network="app_default", aliases=["web"])]),
        (
            "networks: {default: {driver_opts: {trivet.rate_in: 10mbit, trivet.rate_out: 512kbit}}}",
            "networks",
            [EndpointRequest(network="app_default", aliases=["web"], rate_in=10_000_000, rate_out=512_000)],
        ),
        ("extra_hosts: ['a:1.1.1.1', 'b=::1']", "extra_hosts", ["a:1.1.1.1", "b:::1"]),
        ("mem_limit: 64m", "memory", 64 << 20),
        ("deploy: {resources: {limits: {cpus: '0.5', memory: 32M, pids: 9}}}", "cpus", 0.5),
        ("cpu_quota: 50000", "cpus", 0.5),
        (
            "ulimits: {nofile: {soft: 1, hard: 2}, nproc: 3}",
            "rlimits",
            [RlimitRequest("NOFILE", 1, 2), RlimitRequest("NPROC", 3, 3)],
        ),
        ("cap_add: [CAP_NET_ADMIN]", "cap_add", ["NET_ADMIN"]),
        ("security_opt: ['no-new-privileges:true']", "no_new_privileges", True),
        ("restart: 'on-failure:3'", "restart", RestartPolicy(name="on-failure", maximum=3)),
        ("deploy: {restart_policy: {condition: any}}", "restart", RestartPolicy(name="always")),
        ("stop_grace_period: 1m30s", "stop_timeout", 90),
        ("logging: {driver: json-file, options: {max-size: 1m, max-file: 3}}", "log_files", 2),
        ("container_name: mine", "name", "mine"),
        (
            "volumes_from: ['db:ro']}, db: {image: i, volumes: ['/h:/t']",
            "mounts",
            [MountRequest(kind="bind", source="/h", target="/t", read_only=True, create_source=True)],
        ),
    ],
)
def test_services_as_requests(tmp_path: Path, service: str, field: str, expected: object) -> None:
    """What a service says is what `trivet run` would be told."""
    assert getattr(_request(tmp_path, service), field) == expected


def _understand(directory: Path, text: str) -> None:
    project = _project(directory, text)
    if "web" not in project.services:
        return  # of a profile that isn't asked for
    reading.scale("web", project.services["web"])
    plan.desired(project, "web", 1)
    project.wanted(())


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("isolation: hyperv", "services.web.isolation: 'hyperv' is none of"),
        ("ports: [x]", "services.web.ports: 'x'"),
        ("gpus: all", "services.web.gpus: is not supported"),
        ("volumes: [nowhere:/x]", "volumes: there is no 'nowhere'"),
        ("volumes: [{type: cluster, source: i, target: /x}]", "type 'cluster' is not supported"),
        ("networks: [nowhere]", "networks: there is no 'nowhere'"),
        ("networks: {default: {driver_opts: {trivet.rate_in: fast}}}", "'fast' is not a rate"),
        ("networks: {default: {driver_opts: {speed: 10mbit}}}", "endpoint option speed is not known"),
        ("secrets: [nothing]", "there is no 'nothing'"),
        ("mem_limit: much", "services.web.mem_limit: 'much' is not a size"),
        ("container_name: x, scale: 2", "one name for several"),
        ("scale: -1", "is not a number"),
        ("depends_on: [ghost]", "needs ghost, which is no service"),
        ("volumes_from: ['container:x']", "'container:x' is not SERVICE"),
        ("develop: {watch: [{path: ., action: sync, target: /x, first_sync: true}]}", "`first_sync`"),
    ],
)
def test_refused(tmp_path: Path, service: str, words: str) -> None:
    """What can't be had is refused with its path, before anything is made."""
    with pytest.raises(TrivetError) as caught:
        _understand(tmp_path, f"services: {{web: {{image: i, {service}}}}}")
    assert words in str(caught.value)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "a", "a:b", "$A", "/x", "1", "x=y"]),
    lambda one: (
        st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(["source", "target", "test", "a"]), one, max_size=3)
    ),
    max_leaves=6,
)
_KEYS = sorted(shape.SERVICE)


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=3))
def test_nothing_crashes(tmp_path_factory: pytest.TempPathFactory, service: dict[str, Any]) -> None:
    """Whatever a service holds, it is understood or refused in a sentence."""
    directory = tmp_path_factory.mktemp("c")
    try:
        _understand(directory, yaml.safe_dump({"services": {"web": {"image": "i", **service}}}))
    except TrivetError:
        pass
