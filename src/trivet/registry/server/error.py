"""What the registry answers when it refuses: the specification's codes, each with its status."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from trivet.base.error import TrivetError


class Code(StrEnum):
    """The specification's error codes (distribution-spec, "Error Codes")."""

    BLOB_UNKNOWN = "BLOB_UNKNOWN"
    BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
    BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
    DIGEST_INVALID = "DIGEST_INVALID"
    MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
    MANIFEST_INVALID = "MANIFEST_INVALID"
    MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
    NAME_INVALID = "NAME_INVALID"
    NAME_UNKNOWN = "NAME_UNKNOWN"
    SIZE_INVALID = "SIZE_INVALID"
    UNAUTHORIZED = "UNAUTHORIZED"
    DENIED = "DENIED"
    UNSUPPORTED = "UNSUPPORTED"
    TOOMANYREQUESTS = "TOOMANYREQUESTS"
    UNKNOWN = "UNKNOWN"  # not the specification's: what went wrong here, not there


STATUS = {
    Code.BLOB_UNKNOWN: 404,
    Code.BLOB_UPLOAD_INVALID: 400,
    Code.BLOB_UPLOAD_UNKNOWN: 404,
    Code.DIGEST_INVALID: 400,
    Code.MANIFEST_BLOB_UNKNOWN: 404,
    Code.MANIFEST_INVALID: 400,
    Code.MANIFEST_UNKNOWN: 404,
    Code.NAME_INVALID: 400,
    Code.NAME_UNKNOWN: 404,
    Code.SIZE_INVALID: 400,
    Code.UNAUTHORIZED: 401,
    Code.DENIED: 403,
    Code.UNSUPPORTED: 405,
    Code.TOOMANYREQUESTS: 429,
    Code.UNKNOWN: 500,
}


class Refusal(TrivetError):
    """A request the registry doesn't fulfil. `status` overrides the code's own; `headers` go with the answer."""

    def __init__(self, code: Code, message: str, *, status: int = 0, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or STATUS[code]
        self.headers = headers or {}

    def body(self) -> bytes:
        """Spell the answer's body."""
        return msgspec.json.encode({"errors": [{"code": self.code, "message": self.message, "detail": None}]})
