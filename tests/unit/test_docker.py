"""Docker's words → ours, without an engine: creations, mounts, detach keys, durations, frames."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from trivet.api.docker import creation, filter, mount, raw
from trivet.api.docker.duration import human, nanoseconds, seconds
from trivet.base.error import InvalidArgument, Unsupported
from trivet.client.schema import InstanceRequest, MountRequest
from trivet.client.schema_network import EndpointRequest, PortRequest
from trivet.launch.frame import Type

DNS = PortRequest(container_port=53, host_port=5353, protocol="udp")


def translated(**body: Any) -> InstanceRequest:
    """Translate a creation's body."""
    return creation.request(msgspec.convert({"Image": "i", **body}, creation.Creation), "n", "", [])


@pytest.mark.parametrize(
    ("host", "field", "value"),
    [
        ({"NanoCpus": 1_500_000_000}, "cpus", 1.5),
        ({"CpuQuota": 50_000, "CpuPeriod": 100_000}, "cpus", 0.5),
        ({"Runtime": "vm"}, "isolation", "vm"),
        ({"Runtime": "io.containerd.runc.v2"}, "isolation", "container"),
        ({"PortBindings": {"53/udp": [{"HostPort": "5353"}]}}, "ports", [DNS]),
        ({"SecurityOpt": ["no-new-privileges"]}, "no_new_privileges", True),
        ({"LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}}, "log_size", 10 << 20),
        ({"Binds": ["v:/d:ro"]}, "mounts", [MountRequest(kind="volume", source="v", target="/d", read_only=True)]),
        (
            {"Binds": ["/s:/d:mine"]},
            "mounts",
            [MountRequest(kind="bind", source="/s", target="/d", mine=True, create_source=True)],
        ),
        ({"StorageOpt": {"size": "1G"}}, "storage_size", 1 << 30),
        ({"NetworkMode": "default"}, "networks", []),
        ({"NetworkMode": "container:x"}, "networks", [EndpointRequest(network="container:x")]),
    ],
)  # fmt: skip
def test_creation(host: dict[str, Any], field: str, value: object) -> None:
    """Each field of HostConfig means one of ours."""
    assert getattr(translated(HostConfig=host), field) == value


def test_commands() -> None:
    """No entry point leaves the image's, an empty one takes it away."""
    assert translated().entrypoint is None
    assert translated(Entrypoint=[""]).entrypoint == []
    assert translated(Cmd="one").command == ["one"]


@pytest.mark.parametrize("host", [{"DeviceRequests": [{}]}, {"VolumeDriver": "nfs"}])
def test_refusals(host: dict[str, Any]) -> None:
    """What can't be done is refused, not ignored."""
    with pytest.raises(Unsupported):
        translated(HostConfig=host)


@pytest.mark.parametrize("text", ["", "a:b:c:d", "v:relative", "v:/d:nonsense", ":/d"])
def test_malformed_binds(text: str) -> None:
    """A bind that makes no sense is refused."""
    with pytest.raises(InvalidArgument):
        mount.requests([text], [], {}, {}, [])


@pytest.mark.parametrize(
    ("passed", "words"),
    [
        *((0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute")),
        *((3600, "About an hour"), (7200, "2 hours"), (3 * 86400, "3 days"), (21 * 86400, "3 weeks")),
        *((90 * 86400, "3 months"), (800 * 86400, "2 years")),
    ],
)  # fmt: skip
def test_durations(passed: float, words: str) -> None:
    """Docker's rough durations."""
    assert human(passed) == words


def test_times() -> None:
    """Nanoseconds are exact, and a time is what it says in either spelling."""
    assert nanoseconds("1700000000.123456789") == 1_700_000_000_123_456_789
    assert seconds("2023-11-14T22:13:20.999999999Z") == 1_700_000_000
    assert seconds("") == 0


def test_detach_keys() -> None:
    """Keys are spelled as Docker spells them; others are refused."""
    assert raw.parse_keys("") == b"\x10\x11"
    assert raw.parse_keys("ctrl-a,d,ctrl-\\") == b"\x01d\x1c"
    with pytest.raises(InvalidArgument):
        raw.parse_keys("ctrl-1")


def test_frames() -> None:
    """Output has a header that tells the stream and the length, but from a terminal."""
    assert raw.frame(Type.STDERR, b"abc", terminal=False) == b"\x02\0\0\0\0\0\0\x03abc"
    assert raw.frame(Type.STDOUT, b"abc", terminal=True) == b"abc"


@pytest.mark.parametrize("text", ["(a+)+$", "(a|a)*b", "a*a*a*a*b", "a{99999999999}", "[", "x" * 300])
def test_patterns_that_would_take_long(text: str) -> None:
    """A regular expression that could take for ever, or isn't one, is refused."""
    with pytest.raises(InvalidArgument):
        filter.pattern(text)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("web", "web:1", True),
        ("web:1", "web:1", True),
        ("we", "web:1", False),
        ("w*", "web:1", True),
        ("*:1", "web:1", True),
        ("*", "team/web:1", False),
        ("*/web", "team/web:1", True),
        ("127.0.0.1:5000/web", "127.0.0.1:5000/web:1", True),
    ],
)
def test_references(pattern: str, name: str, fits: bool) -> None:
    """A filter for images is a pattern of the whole name, with or without its tag."""
    assert filter.referenced([pattern], [name]) == fits


def test_names() -> None:
    """A filter for names is a regular expression; without one everything fits."""
    assert filter.named({"name": ["^web$"]}, "name", "web")
    assert not filter.named({"name": ["^web$"]}, "name", "web2")
    assert filter.named({"name": ["nothing", "eb"]}, "name", "web")
    assert filter.named({}, "name", "web")
