"""etcd, as far as engines need it to share what they know: keys below a prefix, leases, transactions, a watch.

Spoken to by its JSON gateway (etcd 3.4 and up): keys and values are base64 there, 64-bit numbers are strings.
Calls block; may be made from any thread, each on a connection of its own.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from trivet.base.error import InvalidArgument, TrivetError, Unavailable
from trivet.store.credential import Credentials, explain

TIMEOUT = 5.0
_PORT = 2379
_MOST = 100  # operations of one transaction; etcd refuses more than 128
_LONGEST_LINE = 1 << 24
_FAILURES = (OSError, http.client.HTTPException, ValueError)

_NO_MAJORITY = ("etcdserver: no leader", "etcdserver: request timed out")
# A member that lost the others says so at once instead of after seven seconds, and ends its watches.
_HEADERS = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}

JSON = dict[str, Any]
Member = tuple[str, int]


class StoreAway(Unavailable):
    """The store of the fleet can't be reached."""

    def __init__(self, place: str, cause: str, hint: str = "") -> None:
        super().__init__(f"the fleet's store {place} does not answer: {cause}", hint=hint or None)


class NoMajority(StoreAway):
    """Members of the store answer, but too few of them to decide anything."""

    def __init__(self, place: str, cause: str) -> None:
        super(StoreAway, self).__init__(
            f"the fleet's store {place} has no majority: {cause}", hint="start more of its members"
        )


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
    """A cluster: the member that answered last is asked first. Who doesn't answer isn't listened to either."""

    def __init__(self, members: Sequence[Member], prefix: str, credentials: Credentials | None = None) -> None:
        self.members = tuple(members)
        self._order = self.members
        self._prefix = prefix
        self._credentials = credentials
        self._watching: tuple[Member, http.client.HTTPConnection] | None = None

    @property
    def place(self) -> str:
        """Name it for people."""
        return ",".join(_place(member) for member in self.members)

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
        if "error" in answer:
            raise StoreAway(self.place, _cause(answer))
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def watch(self, below: str, revision: int) -> Iterator[list[Change]]:
        """Tell what changes below a prefix from a revision on; an empty list once the watch is set up.

        Ends by raising `StoreAway`, also when another thread calls `hang_up`, or `Compacted`.
        """
        wish = {"create_request": {**self._range(below), "start_revision": str(revision)}}
        member, connection, answer = self._open("/v3/watch", wish, timeout=None)
        self._watching = member, connection
        try:
            if member != self._order[0]:  # meanwhile another call found that it doesn't answer
                raise StoreAway(self.place, f"{_place(member)} fell silent")
            while line := answer.readline(_LONGEST_LINE):
                said = json.loads(line)
                if "error" in said:
                    raise StoreAway(self.place, _cause(said) or "the watch ended")
                result = said.get("result", {})
                if result.get("canceled"):
                    if reason := result.get("cancel_reason"):
                        raise StoreAway(self.place, str(reason))
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
        if self._watching and (item := self._watching[1].sock):
            with suppress(OSError):
                socket.socket.shutdown(item, socket.SHUT_RDWR)  # not TLS's: the other thread reads from it

    # inside

    def _call(self, path: str, body: JSON) -> JSON:
        _, connection, answer = self._open(path, body, TIMEOUT)
        try:
            found: JSON = json.loads(answer.read())
        except _FAILURES as error:
            raise StoreAway(self.place, str(error)) from error
        finally:
            connection.close()
        return found

    def _open(
        self, path: str, body: JSON, timeout: float | None
    ) -> tuple[Member, http.client.HTTPConnection, http.client.HTTPResponse]:
        causes: dict[Member, str] = {}
        cause, hint, lone = "", "", False
        for member in self._order:
            connection = self._connection(*member)
            try:
                connection.request("POST", path, json.dumps(body), _HEADERS)
                answer = connection.getresponse()
                if connection.sock and timeout is None:
                    connection.sock.settimeout(None)
                if answer.status == 200:
                    return member, connection, answer
                cause = _cause(_parsed(answer.read()))
                connection.close()
                if answer.status < 500:
                    raise StoreRefused(f"the fleet's store {self.place} refuses: {cause}")
                lone = lone or cause in _NO_MAJORITY
                cause = cause.removeprefix("etcdserver: ")
            except _FAILURES as error:
                connection.close()
                cause, more = explain(error)
                hint = hint or more
            causes[member] = cause
            self._leave(member)
        if len(set(causes.values())) == 1:
            told = cause
        else:
            told = "; ".join(f"{_place(member)}: {causes[member]}" for member in self.members)
        if lone:
            raise NoMajority(self.place, told)
        raise StoreAway(self.place, told, hint)

    def _leave(self, member: Member) -> None:
        """Begin the next call with another member, and end the watch at this one."""
        self._order = (*(each for each in self._order if each != member), member)
        if self._watching and self._watching[0] == member:
            self.hang_up()

    def _connection(self, host: str, port: int) -> http.client.HTTPConnection:
        if self._credentials:
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=self._credentials.context())
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
    if scheme == "etcd" and (authority or certificate or key):
        raise InvalidArgument(
            f"cannot use certificates for store {address!r}: it is asked without TLS", hint="etcds://"
        )
    credentials = Credentials(authority, certificate, key) if scheme == "etcds" else None
    return Etcd(members, f"{prefix.strip('/') or 'trivet'}/v1/", credentials)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _revision(answer: JSON) -> int:
    return int(answer.get("header", {}).get("revision", 0))


def _place(member: Member) -> str:
    host, port = member
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parsed(body: bytes) -> JSON:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"message": body[:100].decode(errors="replace").strip()}


def _cause(said: JSON) -> str:
    """Say what a member complains of: streams tell it in another shape than single answers."""
    error = said.get("error")
    return str((error if isinstance(error, dict) else said).get("message", ""))
