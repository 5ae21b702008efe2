"""Every key of the Compose Specification is in the table of docs/compose-keys.md, and what that says of it is true."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from trivet.base.error import TrivetError
from trivet.cli.compose import hook, image, plan, service, store, update, watch
from trivet.cli.compose.document import parse
from trivet.cli.compose.project import Project, Wish, load, needed

HERE = Path(__file__).parent / "compose"
KEYS = [line for line in (HERE / "keys.txt").read_text().splitlines() if not line.startswith("#")]
DOCUMENT: dict[str, Any] = parse((HERE / "all.yaml").read_bytes(), "all.yaml")
ENVIRON = {"TOKEN": "t"}
FILES = {
    "below/part.yaml": "services: {part: {image: 'part:${V:-none}', volumes: ['./d:/d']}}",
    "below/part.env": "V=7",
    "below/base.yaml": "services: {base: {image: base, hostname: b}, other: {image: o}}\n"
    "jobs: {chore: {image: chore, user: '9'}, other: {image: o}}",
    "web.env": "RAW='kept'\n",
    "web.labels": "two=2\n",
    "password": "secret",
    "long": "long",
}


def _table() -> dict[str, str]:
    section, found = "", {}
    for line in (Path(__file__).parents[2] / "docs/compose-keys.md").read_text().splitlines():
        if heading := re.match(r"## `(\w+)`", line):
            section = heading[1]
        if not line.startswith("| `"):
            continue
        names, word, _ = (one.strip() for one in line.strip("|").split("|"))
        for name in re.findall(r"`([^`]+)`", names):
            whole = f"{section}.{name.removesuffix(' …')}"
            below = [one for one in KEYS if one.startswith(f"{whole}.")] if name.endswith("…") else []
            assert whole in KEYS, f"{whole} is no key of the specification"
            for key in (whole, *below):
                assert key not in found, f"{key} is there twice"
                found[key] = word
    return found


TABLE = _table()
SECTIONS: dict[str, tuple[str, ...]] = {
    "services": ("service", "workload", "container"),
    "jobs": ("job", "workload", "container"),
}
SECTIONS |= {kind: (kind[:-1],) for kind in ("networks", "volumes", "secrets", "configs", "models")}


def test_every_key_is_in_the_table() -> None:
    """The table of the documentation has every key of the specification, and no other."""
    assert sorted(TABLE) == sorted(KEYS)
    assert set(TABLE.values()) == {"done", "differs", "no effect", "refused"}


def _found(value: Any, parent: tuple[str, ...], path: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Walk a document: every key of the specification in it, and the path to it."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _found(one, parent, (*path, number))
    if not isinstance(value, dict):
        return
    for name, one in value.items():
        key = next((f"{above}.{name}" for above in parent if f"{above}.{name}" in KEYS), "")
        if key:
            yield key, (*path, name)
        if key == "service.pre_start":
            yield from _found(one, ("step", "container"), (*path, name))
        elif key == "file.include":
            yield from _found(one, ("include",), (*path, name))
        elif key.startswith("file.") and isinstance(one, dict):
            for item, inner in one.items():
                yield from _found(inner, SECTIONS[name], (*path, name, item))
        else:
            yield from _found(one, (key,) if key else tuple(f"{above}.*" for above in parent), (*path, name))


PLACES: dict[str, list[tuple[Any, ...]]] = {}
for _key, _path in _found(DOCUMENT, ("file",), ()):
    PLACES.setdefault(_key, []).append(_path)


def _part(path: tuple[Any, ...]) -> dict[str, Any]:
    """Give what a key of a service can concern: that service and the one others need; all of it for other keys."""
    document = copy.deepcopy(DOCUMENT)
    if path[0] != "services" or len(path) < 2:
        return document
    document["services"] = {name: own for name, own in document["services"].items() if name in (path[1], "db")}
    return {key: found for key, found in document.items() if key not in ("include", "jobs")}


def _without(path: tuple[Any, ...]) -> dict[str, Any]:
    document = _part(path)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    return document


def _load(directory: Path, document: dict[str, Any]) -> Project:
    for name, text in FILES.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(text)
    (directory / "compose.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    wish = Wish(directory=str(directory), profiles=["*"], socket="/run/docker.sock")
    return load(wish, ENVIRON)


def _service(directory: Path, project: Project, name: str) -> Iterator[Any]:
    own = project.service(name)
    if own.get("image") or own.get("build"):
        yield plan.desired(project, name, 1), service.scale(name, own), image.own_policy(own)
    yield needed(own), own.get("attach"), name in project.services and own.get("profiles")
    yield [update.policy(name, own, key) for key in ("update_config", "rollback_config")]
    yield [(rule._replace(ignore=None), rule.ignore.excludes("x.tmp")) for rule in watch.rules(name, own)]  # type: ignore[arg-type]
    yield [hook.program(one, kind) for kind in ("post_start", "pre_stop") for one in own.get(kind) or ()]
    yield hook.steps(project, name)
    if own.get("build"):
        yield list(image.build_words(project, name, own, directory)), own["build"]["context"]
        yield (directory / "Dockerfile").read_text() if (directory / "Dockerfile").exists() else ""


def _meaning(directory: Path, document: dict[str, Any]) -> str:
    """Write down all that follows from a document, or why nothing does."""
    try:
        project = _load(directory, document)
        said: list[Any] = [project.name]
        for name in (*project.services, *project.jobs):
            said.append([name, *_service(directory, project, name)])
        said.append([own["triggers"].get("manual") for own in project.jobs.values()])
        said.append(
            [(store.network(project, key), store.is_external(found)) for key, found in project.networks.items()]
        )
        said.append([(store.volume(project, key), store.is_external(found)) for key, found in project.volumes.items()])
        if "jobs" in document:
            said.append([_given(directory, document, key) for key in GIVEN])
    except TrivetError as error:
        return f"{error}"
    finally:
        (directory / "Dockerfile").unlink(missing_ok=True)
    # What only says that a file has changed is no meaning of its own.
    return re.sub(r"'com.docker.compose.config-hash': '\w+'", "", "\n".join(map(repr, said)))


MISSING = ("missing required field `path`", "missing required field `weight`", "missing required field `cron`")
GIVEN = [(kind, name) for kind in ("secrets", "configs") for name in DOCUMENT[kind]]


def _given(directory: Path, document: dict[str, Any], key: tuple[str, str]) -> str:
    """Tell what a service gets that is given a secret or config."""
    kind, name = key
    own = {"services": {"one": {"image": "i", kind: [name]}}, kind: document.get(kind) or {}}
    try:
        request, files = plan.desired(_load(directory, {"name": "n", **own}), "one", 1)
        return f"{request.mounts} {request.secrets} {files}"
    except TrivetError as error:
        return str(error)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the documents are read."""
    return tmp_path_factory.mktemp("compose")


@pytest.fixture(scope="module")
def undisturbed(directory: Path) -> Callable[[tuple[Any, ...]], str]:
    """Tell what the part of the document means that a key is in, reading each once."""
    known: dict[str, str] = {}

    def meaning(path: tuple[Any, ...]) -> str:
        name = str(path[1]) if path[0] == "services" and len(path) > 1 else ""
        if name not in known:
            known[name] = _meaning(directory, _part(path))
            assert known[name].startswith("'shop'"), known[name]
        return known[name]

    return meaning


@pytest.mark.parametrize("key", [key for key, word in TABLE.items() if word != "refused"])
def test_a_key_means_something(key: str, directory: Path, undisturbed: Callable[[tuple[Any, ...]], str]) -> None:
    """Without a key that is done something else comes of the document, without one that has no effect the same."""
    assert key in PLACES, f"all.yaml has no {key}"
    others = [(_meaning(directory, _without(path)), undisturbed(path)) for path in PLACES[key]]
    if TABLE[key] == "no effect":
        # Where a part of what has no effect must be there, its absence is told.
        assert [other for other, meaning in others if other != meaning and not other.endswith(MISSING)] == []
    else:
        assert [other for other, meaning in others if other != meaning]


REFUSED = {
    "file.models": "models: {llm: {model: m}}",
    "model.name": "models: {llm: {model: m, name: n}}",
    "model.model": "models: {llm: {model: m}}",
    "model.context_size": "models: {llm: {model: m, context_size: 1}}",
    "model.runtime_flags": "models: {llm: {model: m, runtime_flags: [a]}}",
    "container.cpu_rt_period": "cpu_rt_period: 1",
    "container.cpu_rt_runtime": "cpu_rt_runtime: 1",
    "container.credential_spec": "credential_spec: {file: f}",
    "container.credential_spec.config": "credential_spec: {config: c}",
    "container.credential_spec.file": "credential_spec: {file: f}",
    "container.credential_spec.registry": "credential_spec: {registry: r}",
    "container.gpus": "gpus: all",
    "container.gpus.capabilities": "gpus: [{capabilities: [gpu]}]",
    "container.gpus.count": "gpus: [{count: 1}]",
    "container.gpus.device_ids": "gpus: [{device_ids: ['0']}]",
    "container.gpus.driver": "gpus: [{driver: nvidia}]",
    "container.gpus.options": "gpus: [{options: {a: b}}]",
    "container.models": "models: [m]",
    "container.models.*.endpoint_var": "models: {m: {endpoint_var: V}}",
    "container.models.*.model_var": "models: {m: {model_var: V}}",
    "container.networks.*.interface_name": "networks: {default: {interface_name: net0}}",
    "container.networks.*.link_local_ips": "networks: {default: {link_local_ips: [169.254.1.1]}}",
    "workload.build.privileged": "build: {privileged: true}",
    "service.deploy.resources.reservations.devices": "deploy: {resources: {reservations: {devices: [{count: 1}]}}}",
    "service.provider": "provider: {type: x}",
    "service.provider.type": "provider: {type: x}",
    "service.provider.options": "provider: {type: x, options: {a: b}}",
    "network.ipam.driver": "networks: {default: {ipam: {driver: far}}}",
    "network.ipam.options": "networks: {default: {ipam: {options: {a: b}}}}",
    "secret.driver": "secrets: {s: {driver: d}}",
    "secret.driver_opts": "secrets: {s: {driver_opts: {a: b}}}",
    "secret.template_driver": "secrets: {s: {template_driver: d}}",
    "config.template_driver": "configs: {c: {template_driver: d}}",
    "service.deploy.resources.reservations.devices.capabilities": "capabilities: [gpu]",
    "service.deploy.resources.reservations.devices.count": "count: all",
    "service.deploy.resources.reservations.devices.device_ids": "device_ids: ['0']",
    "service.deploy.resources.reservations.devices.driver": "driver: nvidia",
    "service.deploy.resources.reservations.devices.options": "options: {a: b}",
}


def test_every_refusal_is_tried() -> None:
    """Nothing is said to be refused that isn't tried."""
    assert sorted(REFUSED) == sorted(key for key, word in TABLE.items() if word == "refused")


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_is_refused(key: str, tmp_path: Path) -> None:
    """What can't be had is refused with its path, also in a file that says nothing else of it."""
    section, *names = key.split(".")
    own = {"image": "i", "secrets": ["s"], "configs": ["c"]}
    document: dict[str, Any] = {
        "services": {"web": own},
        "secrets": {"s": {"file": "long"}},
        "configs": {"c": {"file": "long"}},
    }
    text = REFUSED[key]
    if ".devices." in key:
        text = f"deploy: {{resources: {{reservations: {{devices: [{{{text}}}]}}}}}}"
    (own if section in ("container", "workload", "service") else document).update(yaml.safe_load(text))
    said = _meaning(tmp_path, {"name": "n", **document})
    place = {"model": "models", "network": "networks.default"}.get(section, names[0])
    assert place in said.partition(": ")[0] or place in said.partition(": ")[0].split("."), said
    assert [name for name in names if name in said.partition(": ")[0]] or section == "model", said
