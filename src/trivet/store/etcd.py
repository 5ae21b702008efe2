"""etcd, as far as engines need it to share what they know: keys below a prefix, leases, transactions, a watch.

Spoken to by its JSON gateway (etcd 3.4 and up): keys and values are base64 there, 64-bit numbers are strings.
Calls block; may be made from any thread, each on a connection of its own.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from trivet.base.error import InvalidArgument, TrivetError, Unavailable

TIMEOUT = 5.0
_PORT = 2379
_MOST = 100  # operations of one transaction; etcd refuses more than 128
_LONGEST_LINE = 1 << 24
_FAILURES = (OSError, http.client.HTTPException, ValueError)

JSON = dict[str, Any]


class StoreAway(Unavailable):
    """The store of the fleet can't be reached, or has no majority."""

    def __init__(self, place: str, cause: str) -> None:
        super().__init__(f"the fleet's store {place} does not answer: {cause}")


class StoreRefused(TrivetError):
    """The store answered, and said no."""


class Compacted(Unavailable):
    """The store has forgotten what happened since: everything has to be read anew."""


class Value(msgspec.Struct, frozen=True):
    """A key's value."""

    key: str
    value: bytes
    revision: int = 0


class Change(msgspec.Struct, frozen=True):
    """A key that was written, or with None removed."""

    key: str
    value: bytes | None
    revision: int = 0


class Unless(msgspec.Struct, frozen=True):
    """A condition of a transaction: `key` was last written at `revision`; 0: it isn't there.

    With a `key` that ends with a slash 0 means: no key below it is there.
    """

    key: str
    revision: int = 0


class Etcd:
    """A cluster: the first member that answers is asked."""

    def __init__(self, members: Sequence[tuple[str, int]], prefix: str, tls: ssl.SSLContext | None = None) -> None:
        self._members = list(members)
        self._prefix = prefix
        self._tls = tls
        self._watching: http.client.HTTPConnection | None = None

    @property
    def place(self) -> str:
        """Name it for people."""
        return ",".join(f"{host}:{port}" for host, port in self._members)

    @property
    def members(self) -> list[tuple[str, int]]:
        """List the members' addresses."""
        return list(self._members)

    def read(self, below: str) -> tuple[int, list[Value]]:
        """Read all keys below a prefix, as they were at one moment: its revision, and the values."""
        answer = self._call("/v3/kv/range", self._range(below))
        return _revision(answer), self._values(answer)

    def write(
        self,
        puts: Mapping[str, bytes] = {},
        deletes: Sequence[str] = (),
        *,
        lease: int = 0,
        conditions: Sequence[Unless] = (),
    ) -> bool:
        """Write and remove keys. With conditions all of it in one transaction, or False; else in portions."""
        steps: list[JSON] = [
            {
                "request_put": {
                    "key": self._key(key),
                    "value": _encode(value),
                    **({"lease": str(lease)} if lease else {}),
                }
            }
            for key, value in puts.items()
        ]
        steps += [{"request_delete_range": {"key": self._key(key)}} for key in deletes]
        compare = [
            {
                "key": self._key(each.key),
                **({"range_end": self._end(each.key)} if each.key.endswith("/") else {}),
                "target": "MOD" if each.revision else "CREATE",
                "mod_revision" if each.revision else "create_revision": str(each.revision),
            }
            for each in conditions
        ]
        portions = [steps] if compare else [steps[at : at + _MOST] for at in range(0, len(steps), _MOST)]
        done = [self._call("/v3/kv/txn", {"compare": compare, "success": part}) for part in portions]
        return all(answer.get("succeeded", False) for answer in done)

    def get(self, key: str) -> Value | None:
        """Read one key."""
        found = self._values(self._call("/v3/kv/range", {"key": self._key(key)}))
        return found[0] if found else None

    def grant(self, seconds: int) -> int:
        """Make a lease: keys written under it go when nobody kept it for that long."""
        return int(self._call("/v3/lease/grant", {"TTL": str(seconds)})["ID"])

    def keep(self, lease: int) -> bool:
        """Keep a lease; False when it is gone."""
        answer = self._call("/v3/lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def watch(self, below: str, revision: int) -> Iterator[list[Change]]:
        """Tell what changes below a prefix from a revision on; an empty list once the watch is set up.

        Ends by raising `StoreAway`, also when another thread calls `hang_up`, or `Compacted`.
        """
        wish = {"create_request": {**self._range(below), "start_revision": str(revision)}}
        connection, answer = self._open("/v3/watch", wish, timeout=None)
        self._watching = connection
        try:
            while line := answer.readline(_LONGEST_LINE):
                said = json.loads(line)
                if "error" in said:
                    raise StoreAway(self.place, str(said["error"].get("message", "the watch ended")))
                result = said.get("result", {})
                if result.get("canceled"):
                    raise Compacted(f"the fleet's store {self.place} does not know any more what happened")
                yield [self._change(event) for event in result.get("events", ())]
        except _FAILURES as error:
            raise StoreAway(self.place, str(error)) from error
        finally:
            self._watching = None
            connection.close()
        raise StoreAway(self.place, "the watch ended")

    def hang_up(self) -> None:
        """End the watch of another thread: it may hear nothing because nobody is there any more."""
        connection = self._watching
        if connection and connection.sock:
            with suppress(OSError):
                connection.sock.shutdown(2)

    # inside

    def _call(self, path: str, body: JSON) -> JSON:
        connection, answer = self._open(path, body, TIMEOUT)
        try:
            found: JSON = json.loads(answer.read())
        except _FAILURES as error:
            raise StoreAway(self.place, str(error)) from error
        finally:
            connection.close()
        return found

    def _open(
        self, path: str, body: JSON, timeout: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        cause = ""
        for member in list(self._members):
            connection = self._connection(*member)
            try:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                if connection.sock and timeout is None:
                    connection.sock.settimeout(None)
                if answer.status == 200:
                    return connection, answer
                cause = _cause(answer.read())
                connection.close()
                if answer.status < 500:
                    raise StoreRefused(f"the fleet's store {self.place} refuses: {cause}")
            except _FAILURES as error:
                connection.close()
                cause = str(error) or type(error).__name__
            self._members.remove(member)
            self._members.append(member)  # the next call begins with another
        raise StoreAway(self.place, cause)

    def _connection(self, host: str, port: int) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT)

    def _range(self, below: str) -> JSON:
        return {"key": self._key(below), "range_end": self._end(below)}

    def _key(self, key: str) -> str:
        return _encode(f"{self._prefix}{key}".encode())

    def _end(self, below: str) -> str:
        """The first key that doesn't begin so."""
        text = f"{self._prefix}{below}".encode()
        return _encode(text[:-1] + bytes([text[-1] + 1]))

    def _name(self, key: str) -> str:
        return base64.b64decode(key).decode(errors="replace").removeprefix(self._prefix)

    def _values(self, answer: JSON) -> list[Value]:
        return [
            Value(self._name(each["key"]), base64.b64decode(each.get("value", "")), int(each["mod_revision"]))
            for each in answer.get("kvs", ())
        ]

    def _change(self, event: JSON) -> Change:
        kv = event["kv"]
        gone = event.get("type") == "DELETE"
        value = None if gone else base64.b64decode(kv.get("value", ""))
        return Change(self._name(kv["key"]), value, int(kv["mod_revision"]))


def connect(address: str, *, authority: str = "", certificate: str = "", key: str = "") -> Etcd:
    """Read `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]`, `etcds://` for TLS. Connects to nobody yet.

    Raises `InvalidArgument`.
    """
    scheme, sign, rest = address.partition("://")
    places, _, prefix = rest.partition("/")
    if scheme not in ("etcd", "etcds") or not sign or not places:
        raise InvalidArgument(f"cannot use store {address!r}: it is not etcd://HOST:PORT or etcds://HOST:PORT")
    members = []
    for place in places.split(","):
        try:
            found = urlsplit(f"//{place}")
            members.append((found.hostname or "", found.port or _PORT))
        except ValueError as error:
            raise InvalidArgument(f"cannot use store {address!r}: {error}") from error
        if not found.hostname:
            raise InvalidArgument(f"cannot use store {address!r}: {place!r} names no host")
    tls = _context(authority, certificate, key) if scheme == "etcds" else None
    return Etcd(members, f"{prefix.strip('/') or 'trivet'}/v1/", tls)


def _context(authority: str, certificate: str, key: str) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=authority or None)
        if certificate:
            made.load_cert_chain(certificate, key or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidArgument(f"cannot use the certificates for the fleet's store: {error}") from error
    return made


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _revision(answer: JSON) -> int:
    return int(answer.get("header", {}).get("revision", 0))


def _cause(body: bytes) -> str:
    try:
        return str(json.loads(body).get("message", ""))
    except (ValueError, AttributeError):
        return body[:100].decode(errors="replace")
