"""What services want done around their starts: pre_start in instances of its own, post_start and pre_stop inside."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from trivet.base.error import Conflict
from trivet.cli.compose import plan, store
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.merge import merge, pairs
from trivet.cli.compose.project import Project
from trivet.cli.compose.secret import File
from trivet.cli.compose.service import words
from trivet.cli.compose.shape import CONTAINER
from trivet.client.client import Client
from trivet.client.schema import ExecRequest, InstanceRequest, RestartPolicy
from trivet.client.stream import Exit, Output

if TYPE_CHECKING:
    from trivet.cli.compose.apply import Application


class HookFailed(Conflict):
    """A hook ended with another exit code than 0."""


def run(client: Client, project: Project, name: str, kind: str, ref: str) -> None:
    """Run the hooks of a kind in an instance, one after another. Raises `HookFailed`."""
    for hook in project.service(name).get(kind) or ():
        request = program(hook, f"services.{name}.{kind}")
        code, said = 0, b""
        with client.instances.exec(ref, request) as stream:
            for event in stream:
                if isinstance(event, Exit):
                    code = event.code
                elif isinstance(event, Output):
                    said = (said + event.data)[-400:]
        if code:
            words = said.decode(errors="replace").strip()
            raise HookFailed(f"{kind} of {name} ended with exit code {code}{f': {words}' if words else ''}")


class Step(NamedTuple):
    """One step of `pre_start`, as an instance of its own; `each` runs once for every instance of the service."""

    request: InstanceRequest
    files: tuple[File, ...]
    each: bool


def steps(project: Project, name: str) -> list[Step]:
    """Read `pre_start`: instances like the service's first, with what the step says. Raises `ComposeError`."""
    own = project.service(name)
    kept = {key: found for key, found in own.items() if key in CONTAINER}
    found = []
    for step in own.get("pre_start") or ():
        merged = merge(kept, {key: found for key, found in step.items() if key != "per_replica"})
        if "entrypoint" not in step:
            # A command of its own is the program itself; an image of its own has its own.
            merged |= {"entrypoint": None if "image" in step else []}
        if not any(step.get(key) for key in ("command", "entrypoint", "image")):
            raise ComposeError(f"services.{name}.pre_start", "has no command")
        if "image" in step and "command" not in step:
            merged.pop("command", None)
        request, files = plan.desired(project, name, 1, own=merged)
        request = msgspec.structs.replace(
            request,
            ports=[],
            health=None,
            restart=RestartPolicy(),
            networks=[msgspec.structs.replace(one, ip="", ip6="", mac="", aliases=[]) for one in request.networks],
            labels={**request.labels, plan.ONE_OFF: "True"},
        )
        found.append(Step(request, files, store.truth(step.get("per_replica"), f"services.{name}.pre_start")))
    return found


def before(application: Application, name: str, replicas: Sequence[str]) -> None:
    """Run pre_start for new instances of a service, the steps in their order. Raises `HookFailed`."""
    for step in steps(application.project, name):
        for replica in replicas if step.each else replicas[:1]:
            _step(application, name, step, replica)
        application.tell(name, "pre_start done")


def _step(application: Application, name: str, step: Step, replica: str) -> None:
    client = application.client
    label = f"{replica}-pre-{secrets.token_hex(4)}"
    key = application.create(msgspec.structs.replace(step.request, name=label), step.files, pull="missing")
    try:
        client.instances.start(key)
        code = client.instances.wait(key).code
        said = b"".join(output.data for output in client.instances.logs(key, tail=5)).decode(errors="replace")
    finally:
        client.instances.remove(key, force=True, volumes=True)
    if code:
        raise HookFailed(f"pre_start of {name} ended with exit code {code}: {said.strip()[-400:]}")


def program(hook: dict[str, Any], place: str) -> ExecRequest:
    """Read what is to be run inside. Raises `ComposeError`."""
    if not hook.get("command"):
        raise ComposeError(place, "has no command")
    variables = pairs(hook.get("environment") or {}, f"{place}.environment")
    return ExecRequest(
        command=words(hook["command"]),
        user=str(hook.get("user") or ""),
        cwd=str(hook.get("working_dir") or ""),
        privileged=store.truth(hook.get("privileged"), f"{place}.privileged"),
        env=[f"{key}={value}" for key, value in variables.items() if value is not None],
    )
