"""Tables, sizes, ages, and control characters."""

from __future__ import annotations

import io
import time
from argparse import ArgumentTypeError, Namespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.cli import value
from trivet.cli.control import Neutraliser, visible
from trivet.cli.instance import level, port_text, status
from trivet.cli.output import Column, age, binary_size, human_size, short, span, table
from trivet.cli.patience import patience
from trivet.cli.progress import Live, Meter, Plain
from trivet.client.schema import Instance, InstanceRequest, Progress
from trivet.client.schema_network import Port

NOW = 1_800_000_000.0


def instance(**fields: object) -> Instance:
    base = Instance(
        id="0123456789abcdef",
        name="web",
        image="image",
        image_id="sha256:1",
        isolation="container",
        acceleration="native",
        status="running",
        pid=1,
        exit_code=0,
        exit_signal=0,
        out_of_memory=False,
        error="",
        created="2027-01-15T08:00:00Z",
        started="2027-01-15T07:57:00Z",
        finished="",
        restarts=0,
        command=["sh"],
        ports=[],
        networks=[],
        mounts=[],
        labels={},
        request=InstanceRequest(image="image"),
        log_path="",
    )
    return msgspec.structs.replace(base, **fields)


def test_tables_are_aligned() -> None:
    """Columns are as wide as their widest cell; lines don't end in spaces; control characters show."""
    columns = [Column[tuple[str, str]]("NAME", lambda row: row[0]), Column[tuple[str, str]]("X", lambda row: row[1])]
    assert table([("a", ""), ("longer", "\x1b[2J")], columns) == "NAME     X\na\nlonger   ␛[2J\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (-1, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (187_400_000, "187 MB"),
        (1_020_000_000, "1.02 GB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    """Sizes have three digits and a decimal unit."""
    assert human_size(count) == text


def test_memory_sizes() -> None:
    """Memory has binary units."""
    assert [binary_size(count) for count in (0, 1023, 25_690_112, 1 << 40)] == ["0 B", "0.999 KiB", "24.5 MiB", "1 TiB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (-5, "0 seconds"),
        (1, "1 second"),
        (119, "119 seconds"),
        (125, "2 minutes"),
        (7300, "2 hours"),
        (90 * 3600, "3 days"),
        (1e8, "3 years"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    """A duration has one unit, never a negative number."""
    assert span(seconds) == text


def test_ages() -> None:
    """An age is told for a time, a dash for none."""
    assert age("2027-01-15T07:57:00Z", NOW) == "3 minutes ago"
    assert age("") == age("0001-01-01T00:00:00Z") == age("nonsense") == "-"


def test_status_words() -> None:
    """The status column tells age, exit code and lack of memory; the level column tells emulation."""
    assert status(instance(), NOW) == "running 3 minutes"
    assert (
        status(instance(status="exited", exit_code=3, finished="2027-01-15T07:59:00Z"), NOW)
        == "exited (3) 60 seconds ago"
    )
    gone = instance(status="exited", exit_code=137, out_of_memory=True, finished="2027-01-15T07:59:59Z")
    assert status(gone, NOW) == "exited (out of memory) 1 second ago"
    assert status(instance(status="created"), NOW) == "created"
    assert level(instance(isolation="vm", acceleration="emulation")) == "vm (emulated)"
    assert level(instance(isolation="vm", acceleration="kvm", origin="forked")) == "vm (forked)"
    assert level(instance(isolation="vm", acceleration="emulation", origin="booted why")) == "vm (emulated, booted)"


def test_ports_and_ids() -> None:
    """Ports show every address as 0.0.0.0; ids are short unless asked otherwise."""
    port = Port(container_port=80, protocol="tcp", host_address="", host_port=8080)
    assert port_text(port) == "0.0.0.0:8080->80/tcp"
    assert port_text(msgspec.structs.replace(port, host_address="::1")) == "[::1]:8080->80/tcp"
    assert short("sha256:0123456789abcdef") == "0123456789ab"
    assert short("sha512:0123456789abcdef") == "sha512:0123456789ab"
    assert short("0123456789abcdef", Namespace(no_trunc=True)) == "0123456789abcdef"
    assert short("nftables table trivet") == "nftables table trivet"  # a repair's event, or a volume's


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain\tline\n", b"plain\tline\n"),
        (b"\x1b[1;31mred\x1b[0m\x1b[m", b"\x1b[1;31mred\x1b[0m\x1b[m"),
        (b"\x1b[8mhidden", "␛[8mhidden".encode()),
        (b"\x1b[1;8mhidden", "␛[1;8mhidden".encode()),
        (b"\x1b[2J\x1b]0;title\x07", "␛[2J␛]0;title␇".encode()),
        (b"a\r\nb\rc", "a\r\nb␍c".encode()),
        (b"\xc2\x9b2J", "�2J".encode()),
        ("ü€😀".encode(), "ü€😀".encode()),
        (b"\xff\xfe", b"\xff\xfe"),
    ],
)
def test_control_characters(data: bytes, shown: bytes) -> None:
    """Colours stay, everything that could move, hide, retitle or answer is shown as a symbol."""
    neutral = Neutraliser()
    assert neutral.feed(data) + neutral.finish() == shown


@given(st.lists(st.sampled_from([b"\x1b", b"[", b"2", b"8", b";", b"m", b"J", b"\r", b"\n", b"\xc2", b"\x9b", b"x"])))
def test_control_characters_in_pieces(pieces: list[bytes]) -> None:
    """However output is cut into pieces, the result is the same, and holds no escape but a whole colour."""
    whole, split = Neutraliser(), Neutraliser()
    expected = whole.feed(b"".join(pieces)) + whole.finish()
    assert b"".join(split.feed(piece) for piece in pieces) + split.finish() == expected
    assert b"\xc2\x9b" not in expected
    assert all(part[:1] == b"[" and b"m" in part for part in expected.split(b"\x1b")[1:])


def test_names_in_tables() -> None:
    """C1 controls and DEL in a name are replaced too."""
    assert visible("a\x9b\x7fb") == "a�␡b"


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("1.5", 1.5), ("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200)]
)
def test_durations(text: str, seconds: float) -> None:
    """Durations are seconds, or numbers with units."""
    assert value.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "10x", "-1s", "1 0s", "nan", "inf", "1e3"])
def test_nonsense_durations(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ArgumentTypeError):
        value.duration(text)


def test_moments() -> None:
    """A time is RFC 3339, a date, Unix seconds, or a duration ago."""
    assert value.moment("2026-01-31") == "2026-01-31T00:00:00Z"
    assert value.moment("2026-01-31T12:00:00+02:00") == "2026-01-31T12:00:00+02:00"
    assert value.moment("1800000000.25") == "2027-01-15T08:00:00.250000Z"
    assert value.moment("10m") < value.moment("1m")


def test_plain_progress() -> None:
    """Without a terminal a part's line is printed once per status; raw output passes, made safe."""
    output = io.StringIO()
    plain = Plain(output)
    for current in range(0, 100, 10):
        plain.show(Progress(id="abc", status="fetching", current=current * 1000, total=100_000))
    plain.show(Progress(id="abc", status="done"))
    plain.show(Progress(stream="step\x1b[2J\n"))
    plain.close()
    assert output.getvalue() == "abc fetching 0 B of 100 kB\nabc done\nstep␛[2J\n"


def test_live_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each part keeps its line; the block is drawn over itself and output scrolls above it."""
    monkeypatch.setattr("trivet.cli.progress.REDRAW", 0)
    output = io.StringIO()
    live = Live(output)
    live.show(Progress(id="one", status="fetching", current=50, total=100))
    live.show(Progress(id="two", status="waiting"))
    live.show(Progress(stream="hello\n"))
    live.close()
    screen = output.getvalue()
    assert screen.startswith("one fetching ━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 50 B of 100 B\n\x1b[1F\x1b[Jone fetching")
    assert "two waiting\n\x1b[2F\x1b[Jhello\none fetching" in screen
    assert screen.endswith("two waiting\n")


def test_a_parts_numbers() -> None:
    """A part's line tells bytes, speed and time left; another status begins to measure anew."""
    meter = Meter(Progress(id="abc", status="downloading", current=0, total=100_000_000), 10.0)
    assert meter.text(10.1) == "abc downloading 0 B of 100 MB"
    meter.update(Progress(id="abc", status="downloading", current=20_000_000, total=100_000_000), 12.0)
    assert meter.text(12.0) == "abc downloading 20 MB of 100 MB 10 MB/s 0:08 left"
    meter.update(Progress(id="abc", status="downloading", current=100_000_000, total=100_000_000), 20.0)
    assert meter.text(20.0) == "abc downloading 100 MB of 100 MB"
    meter.update(Progress(id="abc", status="unpacking", current=1_000_000, total=100_000_000), 20.1)
    assert meter.text(20.2) == "abc unpacking 1 MB of 100 MB"


class Screen(io.StringIO):
    """A terminal that only remembers."""

    def isatty(self) -> bool:
        return True


def test_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is told on a terminal, and the line is gone afterwards; what is quick, or elsewhere, is not."""
    monkeypatch.setattr("trivet.cli.patience.PATIENCE", 0.05)
    monkeypatch.setattr("trivet.cli.patience.BEAT", 0.01)
    for stderr, pause, expected in ((Screen(), 0.3, True), (Screen(), 0.0, False), (io.StringIO(), 0.3, False)):
        monkeypatch.setattr("sys.stderr", stderr)
        with patience("stopping \x1bweb"):
            time.sleep(pause)
        shown = stderr.getvalue()
        assert bool(shown) is expected
        assert not shown or (shown.startswith("\rstopping ␛web · 0 s") and shown.endswith("\r\x1b[K"))
