"""What services want done around their starts: pre_start in instances of its own, post_start and pre_stop inside."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from trivet.base.error import Conflict
from trivet.cli.compose import plan
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.merge import pairs
from trivet.cli.compose.project import Project
from trivet.cli.compose.service import words
from trivet.client.client import Client
from trivet.client.schema import ExecRequest, InstanceRequest, RestartPolicy
from trivet.client.stream import Exit, Output


class HookFailed(Conflict):
    """A hook ended with another exit code than 0."""


def run(client: Client, project: Project, name: str, kind: str, ref: str) -> None:
    """Run the hooks of a kind in an instance, one after another. Raises `HookFailed`."""
    for hook in project.service(name).get(kind) or ():
        request = ExecRequest(
            command=_command(hook, f"services.{name}.{kind}"),
            user=str(hook.get("user", "")),
            cwd=str(hook.get("working_dir", "")),
            privileged=bool(hook.get("privileged", False)),
            env=_environment(hook, name, kind),
        )
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


def before(
    client: Client, project: Project, name: str, request: InstanceRequest | None, tell: Callable[[str, str], None]
) -> None:
    """Run pre_start: each step in an instance like the service's, but for what is published. Raises `HookFailed`."""
    for step in project.service(name).get("pre_start") or ():
        if request is None:
            return
        label = f"{request.name}-pre-{secrets.token_hex(4)}"
        own = msgspec.structs.replace(
            request,
            name=label,
            image=str(step.get("image", request.image)),
            command=_command(step, f"services.{name}.pre_start"),
            entrypoint=[] if step.get("image") is None else None,
            user=str(step.get("user", request.user)),
            cwd=str(step.get("working_dir", request.cwd)),
            env=[*request.env, *_environment(step, name, "pre_start")],
            ports=[],
            health=None,
            restart=RestartPolicy(),
            networks=[msgspec.structs.replace(one, ip="", ip6="", mac="", aliases=[]) for one in request.networks],
            labels={**request.labels, plan.ONE_OFF: "True"},
            pull="missing",
        )
        key = client.instances.create(own).id
        try:
            client.instances.start(key)
            code = client.instances.wait(key).code
            said = b"".join(output.data for output in client.instances.logs(key, tail=5)).decode(errors="replace")
        finally:
            client.instances.remove(key, force=True)
        if code:
            raise HookFailed(f"pre_start of {name} ended with exit code {code}: {said.strip()[-400:]}")
        tell(name, "pre_start done")


def _command(hook: dict[str, Any], place: str) -> list[str]:
    if not hook.get("command"):
        raise ComposeError(place, "has no command")
    return words(hook["command"])


def _environment(hook: dict[str, Any], name: str, kind: str) -> list[str]:
    found = pairs(hook.get("environment") or {}, f"services.{name}.{kind}.environment")
    return [f"{key}={value}" for key, value in found.items() if value is not None]
