"""Which files make an application, and what it is: names, profiles, `extends`, `include`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import msgspec

from trivet.base.error import InvalidArgument, NotFound
from trivet.cli.compose import interpolation, shape
from trivet.cli.compose.document import ComposeError, read
from trivet.cli.compose.merge import Value, absolute, as_list, clean, long_document, merge

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDES = (
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
)
TOP = ("version", "name", "include", "services", "jobs", "networks", "volumes", "configs", "secrets")
DEPTH = 20
STDIN = Path("-")


class NoComposeFile(NotFound):
    """There is nothing to compose."""

    def __init__(self, directory: Path) -> None:
        hint = f"write {NAMES[0]}, or name a file: trivet compose -f FILE"
        super().__init__(f"there is no compose file in {directory} or above", hint=hint)


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says about the project; what is empty comes from the environment, or is found."""

    files: Sequence[str] = ()
    name: str = ""
    directory: str = ""
    profiles: Sequence[str] = ()
    env_files: Sequence[str] = ()
    socket: str = ""


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """An application. `services` holds the enabled ones in long form, `dormant` those whose profile is off.

    `jobs` run when they are asked for; `socket` is where the engine speaks Docker's API, "" if that isn't known.
    """

    name: str
    directory: str
    files: tuple[str, ...]
    services: Value
    dormant: Value
    networks: Value
    volumes: Value
    configs: Value
    secrets: Value
    variables: dict[str, str]
    jobs: Value = {}
    socket: str = ""

    def wanted(self, names: Sequence[str], *, alone: bool = False) -> list[str]:
        """List services in the order of their start: `names` (none: all) and, unless `alone`, what they need.

        Naming a service enables it, whatever its profile. Raises `InvalidArgument` for an unknown one.
        """
        every = {**self.jobs, **self.dormant, **self.services}
        for name in names:
            if name not in every:
                known = ", ".join(every) or "none"
                raise InvalidArgument(f"there is no service {name} in {self.name}", hint=f"there are: {known}")
        found = list(names or self.services)
        graph: dict[str, set[str]] = {}
        while found:
            name = found.pop(0)
            if name not in graph:
                needs = {other for other, how in needed(every[name]).items() if self._there(name, other, how, every)}
                graph[name] = needs
                if not alone:
                    found.extend(needs)
        inside = {name: sorted(needs & set(graph)) for name, needs in graph.items()}
        try:
            return list(TopologicalSorter(inside).static_order())
        except CycleError as error:
            circle = " → ".join(error.args[1])
            raise InvalidArgument(f"services wait for one another: {circle}") from error

    def service(self, name: str) -> Value:
        """Give a service in long form."""
        return dict(self.services.get(name) or self.dormant.get(name) or self.jobs[name])

    def _there(self, name: str, other: str, how: Value, every: Value) -> bool:
        required = str(how.get("required", True)).lower() != "false"
        if other in self.services or (other in every and required):
            return True
        if not required:
            return False
        raise ComposeError(f"services.{name}", f"needs {other}, which is no service")


def needed(service: Value) -> Value:
    """Tell which services a service needs, by depends_on or by sharing something: name → how."""
    found = {
        str(text).removeprefix("service:"): {"condition": "service_started"}
        for text in (service.get("network_mode"), service.get("pid"), service.get("ipc"))
        if str(text).startswith("service:")
    }
    for text in (*(service.get("links") or ()), *(service.get("volumes_from") or ())):
        if not str(text).startswith("container:"):
            found[str(text).partition(":")[0]] = {"condition": "service_started"}
    return {**found, **(service.get("depends_on") or {})}


def load(wish: Wish, environ: Mapping[str, str]) -> Project:
    """Read the files of a project. Raises `NoComposeFile`, `ComposeError`."""
    files = _files(wish, environ)
    first = Path.cwd() if files[0] == STDIN else files[0].parent
    directory = Path(wish.directory).resolve() if wish.directory else first
    variables = _variables(wish, directory, environ)
    document: Value = {}
    for path in files:
        document = merge(document, _document(path, directory, variables, ()))
    document = clean(document)
    if document.get("models"):
        words, hint = "is not supported: trivet runs no language models", "run the model server as a service"
        raise ComposeError("models", words, hint)
    name = wish.name or variables.get("COMPOSE_PROJECT_NAME") or document.get("name") or normal(directory.name)
    if normal(str(name)) != str(name):
        raise ComposeError("name", f"{name!r} may hold a-z, 0-9, - and _ and begins with one of the first two")
    variables["COMPOSE_PROJECT_NAME"] = str(name)
    chosen = set(wish.profiles) | {one for one in variables.get("COMPOSE_PROFILES", "").split(",") if one}
    enabled: Value = {}
    dormant: Value = {}
    for key, service in document.get("services", {}).items():
        profiles = set(map(str, service.get("profiles") or ()))
        place = enabled if not profiles or profiles & chosen or "*" in chosen else dormant
        place[key] = service
    return Project(
        name=str(name),
        directory=str(directory),
        files=tuple(map(str, files)),
        services=enabled,
        dormant=dormant,
        jobs=_jobs(document),
        socket=wish.socket,
        variables=variables,
        **{kind: document.get(kind) or {} for kind in ("networks", "volumes", "configs", "secrets")},
    )


def _jobs(document: Value) -> Value:
    found: Value = document.get("jobs") or {}
    for name, job in found.items():
        if name in document["services"]:
            raise ComposeError(f"jobs.{name}", "is a service, too")
        if not job.get("triggers"):
            raise ComposeError(f"jobs.{name}.triggers", "is missing", "write triggers: {manual: true}")
    return found


def normal(text: str) -> str:
    """Make a project's name of a directory's."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def _files(wish: Wish, environ: Mapping[str, str]) -> list[Path]:
    start = Path(wish.directory).resolve() if wish.directory else Path.cwd()
    known = environ if wish.files or "COMPOSE_FILE" in environ else _variables(wish, start, environ)
    separator = known.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    named = list(wish.files) or [one for one in known.get("COMPOSE_FILE", "").split(separator) if one]
    if named:
        return [STDIN if one == "-" else Path(one).absolute() for one in named]
    for directory in (start, *start.parents):
        if found := next((directory / name for name in NAMES if (directory / name).is_file()), None):
            more = next((directory / name for name in OVERRIDES if (directory / name).is_file()), None)
            return [found, more] if more else [found]
    raise NoComposeFile(start)


def _variables(wish: Wish, directory: Path, environ: Mapping[str, str]) -> dict[str, str]:
    named = wish.env_files or [one for one in environ.get("COMPOSE_ENV_FILES", "").split(",") if one]
    own = () if environ.get("COMPOSE_DISABLE_ENV_FILE") in ("1", "true") else (directory / ".env",)
    paths = [Path(one) for one in named] or [path for path in own if path.is_file()]
    found: dict[str, str] = {}
    for path in paths:
        found |= {key: text for key, text in interpolation.read_file(path, environ).items() if text is not None}
    return {**found, **environ}


def _document(path: Path, directory: Path, variables: Mapping[str, str], above: tuple[Path, ...]) -> Value:
    """Read one file with all it includes and extends."""
    if path in above or len(above) > DEPTH:
        raise ComposeError(str(path), "includes itself")
    made = _read(path, directory, variables)
    for kind in ("services", "jobs"):
        for name, service in made[kind].items():
            if isinstance(service, dict) and "extends" in service:
                made[kind][name] = _extended(kind, name, path, directory, made, variables, ())
    included: Value = {}
    for entry in as_list(made.pop("include", None) or []):
        _include(included, entry, directory, variables, (*above, path))
    return included | {
        key: {**included.get(key, {}), **value} if isinstance(value, dict) else value for key, value in made.items()
    }


def _read(path: Path, directory: Path, variables: Mapping[str, str]) -> Value:
    document = interpolation.everywhere(read(path), variables)
    shape.check(clean(document), str(path))
    return long_document(document, directory)


def _include(made: Value, entry: Any, directory: Path, variables: Mapping[str, str], above: tuple[Path, ...]) -> None:
    """Add an included project; what is there already is refused, so that nothing is changed unseen."""
    entry = entry if isinstance(entry, dict) else {"path": entry}
    paths = [Path(absolute(str(one), directory)) for one in as_list(entry.get("path"))]
    base = (
        Path(absolute(str(entry["project_directory"]), directory)) if "project_directory" in entry else paths[0].parent
    )
    own = dict(variables)
    files = [Path(absolute(str(one), directory)) for one in as_list(entry.get("env_file") or [])]
    for file in files or [one for one in (base / ".env",) if one.is_file()]:
        own = {key: text for key, text in interpolation.read_file(file, own).items() if text is not None} | own
    document: Value = {}
    for path in paths:
        document = merge(document, _document(path, base, own, above))
    for kind in TOP[3:]:
        for name, value in (document.get(kind) or {}).items():
            known = made.setdefault(kind, {})
            if name in known and known[name] != value:
                raise ComposeError(f"{kind}.{name}", f"is defined again by {paths[0]}")
            known[name] = value


def _extended(
    kind: str,
    name: str,
    path: Path,
    directory: Path,
    document: Value,
    variables: Mapping[str, str],
    above: tuple[str, ...],
) -> Value:
    """Merge a service, or a job, with the one it extends."""
    service = dict(document[kind][name])
    how = service.pop("extends", None)
    if how is None:
        return service
    how = how if isinstance(how, dict) else {"service": str(how)}
    other, file = str(how.get("service", "")), how.get("file")
    key = f"{path}:{name}"
    if key in above:
        raise ComposeError(f"{kind}.{name}.extends", "goes in a circle")
    if file:
        path = Path(absolute(str(file), directory))
        directory = path.parent
        document = _read(path, directory, variables)
    if other not in document[kind]:
        raise ComposeError(f"{kind}.{name}.extends", f"there is no {kind[:-1]} {other!r} in {path}")
    base = _extended(kind, other, path, directory, document, variables, (*above, key))
    return dict(merge(base, service))


def profiles(project: Project) -> Iterator[str]:
    """List all profiles."""
    yield from sorted({str(one) for service in project.dormant.values() for one in service.get("profiles", ())})
