"""Which images may be used: a file as containers-policy.json(5) describes it, and what it asks of an image.

    {"default": [{"type": "reject"}],
     "transports": {"docker": {"registry.example/app": [{"type": "sigstoreSigned", "keyPath": "/etc/trivet/app.pub",
                                                         "signedIdentity": {"type": "matchRepository"}}]}}}

What isn't understood is refused: a requirement that is skipped would be a door left open.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from trivet.base.error import Denied, InvalidArgument, Unsupported
from trivet.oci.reference import Reference

LIMIT = 1 << 20


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which name a signature must have been made for."""

    type: str = "matchRepoDigestOrExact"
    docker_reference: str = ""
    docker_repository: str = ""
    prefix: str = ""
    signed_prefix: str = ""


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """One thing that must be so; `key_data` is a PEM file in base64."""

    type: str
    key_path: str = ""
    key_paths: tuple[str, ...] = ()
    key_data: str = ""
    signed_identity: Identity = Identity()


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file: requirements by transport and scope, all of which must be met."""

    default: tuple[Requirement, ...]
    transports: dict[str, dict[str, tuple[Requirement, ...]]] = {}

    def requirements(self, transport: str, reference: Reference | None = None) -> tuple[Requirement, ...]:
        """Find what applies: the most particular scope that has an entry."""
        scopes = self.transports.get(transport, {})
        for scope in _scopes(reference) if reference else ():
            if scope in scopes:
                return scopes[scope]
        return scopes.get("", self.default)


class BrokenPolicy(InvalidArgument):
    """A policy file that can't be followed."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"policy {path} cannot be followed: {problem}", hint="no image is used until it is mended")


class ImageRefused(Denied):
    """An image that the policy doesn't allow."""

    def __init__(self, image: str, path: Path, reason: str) -> None:
        super().__init__(f"image {image} is refused by policy {path}: {reason}")


TYPES = ("insecureAcceptAnything", "reject", "sigstoreSigned")
IDENTITIES = (
    "matchExact",
    "matchRepoDigestOrExact",
    "matchRepository",
    "exactReference",
    "exactRepository",
    "remapIdentity",
)


def read(path: Path) -> Policy:
    """Read a policy file. Raises `BrokenPolicy`, also when there is none."""
    try:
        raw = path.read_bytes()[: LIMIT + 1]
        policy = msgspec.json.decode(raw, type=Policy)
    except OSError as error:
        raise BrokenPolicy(path, (error.strerror or str(error)).lower()) from error
    except msgspec.DecodeError as error:
        what = "" if isinstance(error, msgspec.ValidationError) else "it is not JSON: "
        raise BrokenPolicy(path, f"{what}{str(error)[:1].lower()}{str(error)[1:]}") from error
    places = {"default": policy.default}
    for transport, scopes in policy.transports.items():
        places |= {f"{transport} {scope}".rstrip(): each for scope, each in scopes.items()}
    for place, requirements in places.items():
        if not requirements:
            raise BrokenPolicy(path, f"{place} has an empty list of requirements")
        for requirement in requirements:
            if problem := _problem(requirement):
                raise BrokenPolicy(path, f"{place}: {problem}")
    return policy


def _problem(requirement: Requirement) -> str:
    if requirement.type not in TYPES:
        return f"requirement {requirement.type} is not supported, only {', '.join(TYPES)}"
    keys = [requirement.key_path, requirement.key_data, *requirement.key_paths]
    if requirement.type == "sigstoreSigned" and not any(keys):
        return "sigstoreSigned needs a keyPath, keyPaths or keyData"
    if requirement.signed_identity.type not in IDENTITIES:
        return f"signedIdentity {requirement.signed_identity.type} is not supported"
    return ""


def _scopes(reference: Reference) -> list[str]:
    """List the scopes an image lies in, the most particular first."""
    found = [f"{reference.name}@{reference.digest}"] if reference.digest else []
    found += [f"{reference.name}:{reference.tag}"] if reference.tag else []
    place = reference.name
    while place:
        found.append(place)
        place = place.rpartition("/")[0]
    labels = reference.name.partition("/")[0].split(".")
    return found + ["*." + ".".join(labels[number:]) for number in range(1, len(labels))]


class UnusableKey(Unsupported):
    """A key of the policy that can't be read; no image is trusted because of it."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"cannot use the policy's key {name}: {problem}")
