"""What a path means. Nothing of it is used before the specification's own grammar has accepted it."""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import unquote

import msgspec

from trivet.oci import digest as digests
from trivet.oci import reference as references
from trivet.registry.server.error import Code, Refusal

LONGEST = 4096  # of a path


class Resource(StrEnum):
    """What is asked for."""

    API = "api"
    CATALOG = "catalog"
    BLOB = "blob"
    UPLOADS = "uploads"
    UPLOAD = "upload"
    MANIFEST = "manifest"
    TAGS = "tags"
    REFERRERS = "referrers"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A path taken apart. `value` is a digest, a tag or an upload's id."""

    resource: Resource
    name: str = ""
    value: str = ""


_PATTERNS = (
    (Resource.API, re.compile(r"/v2/?")),
    (Resource.CATALOG, re.compile(r"/v2/_catalog")),
    (Resource.UPLOADS, re.compile(r"/v2/(?P<name>.+)/blobs/uploads/?")),
    (Resource.UPLOAD, re.compile(r"/v2/(?P<name>.+)/blobs/uploads/(?P<value>[^/]+)")),
    (Resource.BLOB, re.compile(r"/v2/(?P<name>.+)/blobs/(?P<value>[^/]+)")),
    (Resource.MANIFEST, re.compile(r"/v2/(?P<name>.+)/manifests/(?P<value>[^/]+)")),
    (Resource.TAGS, re.compile(r"/v2/(?P<name>.+)/tags/list")),
    (Resource.REFERRERS, re.compile(r"/v2/(?P<name>.+)/referrers/(?P<value>[^/]+)")),
)
_UPLOAD_ID = re.compile(r"[0-9a-f]{32}")


def parse(raw_path: str) -> Target:
    """Take a request's path apart. Raises `Refusal` with the code for the part that is wrong."""
    if len(raw_path) > LONGEST:
        raise Refusal(Code.NAME_INVALID, f"the path is longer than {LONGEST} characters")
    path = unquote(raw_path, errors="replace")
    for resource, pattern in _PATTERNS:
        if match := pattern.fullmatch(path):
            parts = match.groupdict()
            target = Target(resource=resource, name=parts.get("name") or "", value=parts.get("value") or "")
            _check(target)
            return target
    raise Refusal(Code.NAME_UNKNOWN, "there is nothing at this path")


def check_name(name: str) -> str:
    """Return a repository's name if it is one. Raises `Refusal`."""
    if len(name) > references.MAXIMUM_NAME or not references.PATH.fullmatch(name):
        raise Refusal(Code.NAME_INVALID, f"invalid repository name {name[:100]!r}")
    return name


def check_digest(text: str) -> str:
    """Return a digest if it is one. Raises `Refusal`."""
    try:
        return digests.check(text)
    except digests.MalformedDigest as error:
        raise Refusal(Code.DIGEST_INVALID, error.message) from error


def check_tag(text: str) -> str:
    """Return a tag if it is one. Raises `Refusal`."""
    if not references.TAG.fullmatch(text):
        raise Refusal(Code.MANIFEST_INVALID, f"invalid tag {text[:140]!r}")
    return text


def _check(target: Target) -> None:
    if target.resource not in (Resource.API, Resource.CATALOG):
        check_name(target.name)
    if target.resource in (Resource.BLOB, Resource.REFERRERS) or ":" in target.value:
        check_digest(target.value)
    elif target.resource is Resource.MANIFEST:
        check_tag(target.value)
    elif target.resource is Resource.UPLOAD and not _UPLOAD_ID.fullmatch(target.value):
        raise Refusal(Code.BLOB_UPLOAD_UNKNOWN, f"no such upload in {target.name}")
