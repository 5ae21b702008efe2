"""Secrets and configs: from their source to a file in the instance."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

from trivet.cli.compose import store
from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.merge import Value
from trivet.cli.compose.project import Project
from trivet.client.archive import tar_writer
from trivet.client.connection import Writer
from trivet.client.schema import MountRequest, SecretGrant


class File(NamedTuple):
    """A file that is written into the instance before it starts."""

    target: str
    content: bytes
    uid: int
    gid: int
    mode: int


class Granted(NamedTuple):
    """What a service is given: as mounts, as copies, and from the engine's store."""

    mounts: list[MountRequest]
    files: list[File]
    secrets: list[SecretGrant]


def granted(name: str, service: Value, project: Project) -> Granted:
    """Tell what a service is given: files of the host as mounts, everything else, or with an owner, as copies.

    What is external comes from the engine's secrets, configs too.

    Raises `ComposeError`.
    """
    made = Granted([], [], [])
    for kind, known in (("secrets", project.secrets), ("configs", project.configs)):
        for grant in service.get(kind) or ():
            place, source = f"services.{name}.{kind}", str(grant.get("source", ""))
            if source not in known:
                raise ComposeError(place, f"there is no {source!r}", f"add {source}: to {kind}:")
            found: Value = known[source] or {}
            for key in ("driver", "driver_opts", "template_driver"):
                if found.get(key):
                    raise ComposeError(
                        f"{kind}.{source}.{key}", "is not supported", "use file, environment or external"
                    )
            target = _target(kind, grant, source)
            own = {key: grant[key] for key in ("uid", "gid", "mode") if key in grant}
            if store.is_external(found):
                made.secrets.append(_external(f"{kind}.{source}", store.outside_name(found, source), target, own))
            elif found.get("file") and not own:
                path = Path(str(found["file"]))
                if not path.exists():
                    raise ComposeError(f"{kind}.{source}", f"there is no file {path}")
                made.mounts.append(MountRequest(kind="bind", source=str(path), target=target, read_only=True))
            else:
                made.files.append(_file(f"{kind}.{source}", found, target, own, project))
    return made


def _target(kind: str, grant: Value, source: str) -> str:
    target = str(grant.get("target", source))
    if target.startswith("/"):
        return target
    return f"/run/secrets/{target}" if kind == "secrets" else f"/{target}"


def _file(place: str, found: Value, target: str, own: dict[str, Any], project: Project) -> File:
    if found.get("file"):
        try:
            content = Path(str(found["file"])).read_bytes()
        except OSError as error:
            raise ComposeError(place, f"cannot read {found['file']}: {(error.strerror or '').lower()}") from error
    elif found.get("environment"):
        name = str(found["environment"])
        if name not in project.variables:
            raise ComposeError(place, f"{name} is not set")
        content = project.variables[name].encode()
    elif "content" in found:
        content = str(found["content"]).encode()
    else:
        raise ComposeError(place, "has no source", "use file, environment, content or external")
    return File(target, content, *_owner(place, own))


def _external(place: str, name: str, target: str, own: dict[str, Any]) -> SecretGrant:
    uid, gid, mode = _owner(place, own)
    return SecretGrant(source=name, target=target, uid=uid, gid=gid, mode=mode)


def _owner(place: str, own: dict[str, Any]) -> tuple[int, int, int]:
    try:
        return int(own.get("uid", 0)), int(own.get("gid", 0)), int(str(own.get("mode", "0444")), 8)
    except ValueError:
        raise ComposeError(place, "uid and gid are numbers, mode is octal: 0440") from None


def archive(files: list[File], writer: Writer) -> None:
    """Write files as a tar to unpack at the root."""
    with tar_writer(writer) as tar:
        for file in files:
            entry = tarfile.TarInfo(file.target.lstrip("/"))
            entry.size, entry.uid, entry.gid, entry.mode = len(file.content), file.uid, file.gid, file.mode
            tar.addfile(entry, io.BytesIO(file.content))
