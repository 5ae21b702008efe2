"""References: how people name images. The grammar is distribution/reference's.

reference := name [ ":" tag ] [ "@" digest ]        name := [ domain "/" ] path
debian                          → docker.io/library/debian
trivet/web:1.2                  → docker.io/trivet/web:1.2
registry.example:5000/a/b@sha256:…
"""

from __future__ import annotations

import re

import msgspec

from trivet.base.error import InvalidArgument
from trivet.oci.digest import PATTERN as DIGEST

DEFAULT_DOMAIN = "docker.io"
DEFAULT_NAMESPACE = "library/"
DEFAULT_TAG = "latest"
MAXIMUM_NAME = 255
MAXIMUM_TEXT = 1000

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]{{2,45}}\])"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"

DOMAIN = re.compile(rf"{_HOST}(?::[0-9]{{1,5}})?")
PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class MalformedReference(InvalidArgument):
    """A text that is no image reference."""

    def __init__(self, text: str, problem: str, *, hint: str | None = None, upper: str = "") -> None:
        """`upper` is a repository's name that isn't in lower case."""
        self.upper = upper
        shown = text if len(text) <= 120 else text[:117] + "..."
        super().__init__(f"malformed image reference {shown!r}: {problem}", hint=hint)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed reference; `tag` and `digest` are "" when the text had none."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: the repository, in full."""
        return f"{self.domain}/{self.path}"

    @property
    def identifier(self) -> str:
        """What the registry is asked for: the digest if there is one, else the tag, else `latest`."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def familiar(self) -> str:
        """Spell it as people do: without the default domain and name space."""
        if self.domain != DEFAULT_DOMAIN:
            return str(self)
        bare = self.path.removeprefix(DEFAULT_NAMESPACE)
        path = self.path if "/" in bare else bare
        # A first part that looks like a host name must not stand at the front.
        return str(self) if "/" in path and _is_domain(path.partition("/")[0]) else path + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def tagged(self) -> Reference:
        """Fill in the tag `latest` where there is neither tag nor digest."""
        return self if self.tag or self.digest else msgspec.structs.replace(self, tag=DEFAULT_TAG)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Parse a reference as people write it. Raises `MalformedReference` saying which part is wrong."""
    if len(text) > MAXIMUM_TEXT:
        raise MalformedReference(text, f"it is longer than {MAXIMUM_TEXT} characters")
    rest, at, digest = text.partition("@")
    if at and not re.fullmatch(DIGEST, digest):
        raise MalformedReference(text, "what follows @ is not a digest", hint="write NAME@sha256:<64 digits>")
    name, tag = _split_tag(rest)
    if tag is not None and not TAG.fullmatch(tag):
        raise MalformedReference(text, f"{tag[:40]!r} is not a tag: at most 128 letters, digits, and ._-")
    domain, path = _split_domain(name)
    _check_name(text, domain, path)
    return Reference(domain=domain, path=path, tag=tag or "", digest=digest)


def _split_tag(text: str) -> tuple[str, str | None]:
    """Cut the tag off: the part after a colon that no slash follows (a port has one)."""
    head, colon, tail = text.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (text, None)


def _split_domain(name: str) -> tuple[str, str]:
    """Tell domain and path apart: the first part is a domain if it looks like one."""
    first, slash, rest = name.partition("/")
    if slash and _is_domain(first):
        return (DEFAULT_DOMAIN if first == "index.docker.io" else first), _namespaced(first, rest)
    return DEFAULT_DOMAIN, _namespaced(DEFAULT_DOMAIN, name)


def _is_domain(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _namespaced(domain: str, path: str) -> str:
    bare = domain in (DEFAULT_DOMAIN, "index.docker.io") and "/" not in path
    return DEFAULT_NAMESPACE + path if bare and path else path


def _check_name(text: str, domain: str, path: str) -> None:
    if not path:
        raise MalformedReference(text, "the name is empty")
    if not DOMAIN.fullmatch(domain):
        raise MalformedReference(text, f"{domain[:40]!r} is not a registry's host name")
    if not PATH.fullmatch(path):
        if PATH.fullmatch(path.lower()):
            raise MalformedReference(text, "the name must be lower case", hint=f"try {text.lower()[:100]}", upper=path)
        raise MalformedReference(
            text, "the name may hold only lower-case letters, digits and single . _ - / between them"
        )
    if len(path) > MAXIMUM_NAME:
        raise MalformedReference(text, f"the name is longer than {MAXIMUM_NAME} characters")
    if re.fullmatch(r"library/[0-9a-f]{64}", path) and domain == DEFAULT_DOMAIN:
        raise MalformedReference(text, "64 hexadecimal digits are an image's id, not a name")
