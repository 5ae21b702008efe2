"""Errors in Docker's statuses and words: clients compare both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web

from trivet.api.problem import as_trivet_error
from trivet.base.error import AlreadyExists, Kind, NotFound, TrivetError, Unavailable
from trivet.engine.image.model import ImageInUse, ImageNotFound
from trivet.engine.instance.copy import PathMissing
from trivet.engine.instance.link import LinkedNotRunning
from trivet.engine.instance.log import NoLog
from trivet.engine.instance.plan import NoCommand, UnknownCapability
from trivet.engine.instance.session import NoSuchSession
from trivet.engine.instance.shared import NotRunning, NotShareable
from trivet.engine.instance.status import Word, WrongStatus
from trivet.engine.instance.stop import UnknownSignal
from trivet.engine.network.model import NetworkInUse, NoSuchNetwork, PortTaken
from trivet.engine.volume.model import NoSuchVolume, VolumeInUse
from trivet.oci import reference as references

E = TypeVar("E", bound=TrivetError)

STATUS = {
    Kind.NOT_FOUND: 404,
    Kind.ALREADY_EXISTS: 409,
    Kind.CONFLICT: 409,
    Kind.INVALID_ARGUMENT: 400,
    Kind.DENIED: 403,
    Kind.UNAUTHENTICATED: 401,
    Kind.UNAVAILABLE: 503,
    Kind.UNSUPPORTED: 501,
}
IN_SETTING_UP = (
    PortTaken,
    NotRunning,
    NotShareable,
    LinkedNotRunning,
)  # dockerd has one status for all that fails in a start
EXECUTION = {127: "executable file not found in $PATH", 126: "permission denied"}  # the words the CLI looks for


def response(error: BaseException) -> web.Response:
    """Make the answer for an exception."""
    known = as_trivet_error(error)
    return message(text(known), _status(known))


def message(words: str, status: int) -> web.Response:
    """Answer with an error in Docker's shape."""
    content = msgspec.json.encode({"message": words}) + b"\n"
    return web.Response(status=status, body=content, content_type="application/json")


def text(error: TrivetError) -> str:
    """Say an error as Docker does; where Docker has no words for it, in ours, with the hint."""
    if error.exit_code:
        return f"failed to create task for container: {error.message}: {EXECUTION[error.exit_code]}"
    for shape, words in WORDS:
        if isinstance(error, shape):
            return words(error)
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _status(error: TrivetError) -> int:
    if error.exit_code:
        return 400
    return 500 if isinstance(error, IN_SETTING_UP) else STATUS.get(error.kind, 500)


def _image(error: ImageNotFound) -> str:
    try:
        return f"No such image: {references.parse(error.reference).tagged().familiar}"
    except TrivetError:
        return f"No such image: {error.reference}"


def _status_words(error: WrongStatus) -> str:
    where = error.id or error.name
    match error.action, error.word:
        case "remove", _:
            state = "paused" if error.word is Word.PAUSED else "running" if error.word is Word.RUNNING else "restarting"
            advice = "stop the container before removing or force remove"
            return f'cannot remove container "/{error.name}": container is {state}: {advice}'
        case "signal", _:
            return f"cannot kill container: {error.name}: container {where} is not running"
        case "start", Word.PAUSED:
            return "cannot start a paused container, try unpause instead"
        case "resume", _:
            return f"Container {where} is not paused"
        case "pause", Word.PAUSED:
            return f"Container {where} is already paused"
        case _, Word.PAUSED:
            return f"Container {where} is paused, unpause the container before exec"
        case _, Word.RESTARTING:
            return f"Container {where} is restarting, wait until the container is running"
    return f"container {where} is not running"


def _row(shape: type[E], words: Callable[[E], str]) -> tuple[type[TrivetError], Callable[..., str]]:
    return shape, words


def _reference(error: references.MalformedReference) -> str:
    return "invalid reference format" + (f": repository name ({error.upper}) must be lowercase" if error.upper else "")


def _used(error: ImageInUse) -> str:
    return f'"{error.reference}" (must force) - container {error.users[0]} is using its referenced image'


def _joining(error: NotRunning) -> str:
    words = f"container {error.key} is not running"
    return f"can't join IPC of container {error.key}: {words}" if error.what == "ipc" else words


def _tail(error: TrivetError) -> str:
    return error.message.rpartition(": ")[2]


SHAREABLE = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
WORDS = (
    _row(ImageNotFound, _image),
    _row(NoCommand, lambda error: "no command specified"),
    _row(references.MalformedReference, _reference),
    _row(PathMissing, lambda error: f"Could not find the file {error.path} in container {error.name}"),
    _row(UnknownSignal, lambda error: f"invalid signal: {error.word}"),
    _row(UnknownCapability, lambda error: f'invalid capability: unknown capability: "{error.name}"'),
    _row(NoSuchNetwork, lambda error: f"network {_tail(error)} not found"),
    _row(NoSuchVolume, lambda error: f"get {_tail(error)}: no such volume"),
    _row(NoSuchSession, lambda error: f"No such exec instance: {_tail(error)}"),
    _row(WrongStatus, _status_words),
    _row(NotShareable, lambda error: f"can't join IPC of container {error.key}: {SHAREABLE}"),
    _row(NotRunning, _joining),
    _row(
        LinkedNotRunning, lambda error: "Cannot link to a non running container: /{1} AS /{0}/{2}".format(*error.words)
    ),
    _row(NoLog, lambda error: "configured logging driver does not support reading"),
    _row(VolumeInUse, lambda error: f"remove: {error.message}"),
    _row(NetworkInUse, lambda error: f"error while removing network: {error.message}: it has active endpoints"),
    _row(ImageInUse, lambda error: f"conflict: unable to remove repository reference {_used(error)}"),
    _row(PortTaken, lambda error: f"failed to set up container networking: {error.message}: port is already allocated"),
    _row(NotFound, lambda error: error.message.replace("no such instance: ", "No such container: ")),
)


class NameTaken(AlreadyExists):
    """A container's name that another one has."""

    def __init__(self, wanted: str, owner: str, before: str = "") -> None:
        super().__init__(
            f'{before}Conflict. The container name "/{wanted}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


class NotOffered(NotFound):
    """An image that its registry doesn't have."""

    def __init__(self) -> None:
        super().__init__("manifest unknown: manifest unknown")


class NoSwarm(Unavailable):
    """What every route of a swarm's managers says on an engine without swarm."""

    def __init__(self) -> None:
        super().__init__(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
            "to connect this node to swarm and try again."
        )


class NotInSwarm(Unavailable):
    """What leaving a swarm says there."""

    def __init__(self) -> None:
        super().__init__("This node is not part of a swarm")
