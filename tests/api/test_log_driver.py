"""Logs that are sent to others, by a process that outlives the engine; what is sent is also kept here."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.api.receiver import Receiver, forwarded, journal_fields
from tests.busybox import busybox_tar
from tests.conftest import Daemon

pytestmark = pytest.mark.needs("root")
IMAGE = "busybox:ship"
HERE = ("127.0.0.1", 0)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """An engine whose journal is the tests' own."""
    run = Path(tempfile.mkdtemp(prefix="tv", dir="/tmp"))
    made = Daemon(tmp_path_factory.mktemp("ship"), run, f"--journal={run}/journal")
    try:
        made.start()
        made.ok("image", "import", "-", IMAGE, input=busybox_tar())
        yield made
    finally:
        made.clean()
        shutil.rmtree(run, ignore_errors=True)


@pytest.fixture
def name() -> str:
    """A name of the test's own."""
    return f"ship-{os.urandom(3).hex()}"


def run(engine: Daemon, name: str, script: str, driver: str, *options: str, more: tuple[str, ...] = ()) -> None:
    """Run a script in an instance whose log is sent."""
    words = [word for option in options for word in ("--log-opt", option)]
    engine.ok("run", "-d", "--name", name, "--log-driver", driver, *words, *more, IMAGE, "sh", "-c", script)


def test_journald(engine: Daemon, name: str) -> None:
    """Each line is an entry of its own with what is known of its instance, however long it is."""
    journal = Receiver(f"{engine.run}/journal", socket.SOCK_DGRAM)
    more = ("-l", "site=here", "-l", "other=no", "-e", "WORD=two\nlines")
    script = (
        "echo out; echo err >&2; printf 'a'; sleep .05; echo b; head -c 300000 /dev/zero | tr '\\0' x; echo; echo end"
    )
    options = ("tag={{.Name}}/{{.ImageName}}", "labels=site", "env-regex=^WO")
    run(engine, name, script, "journald", *options, more=more)
    journal.await_text("MESSAGE=end\n")
    found = [journal_fields(message) for message in journal.got]
    key = engine.client.instances.get(name).id
    assert [each["MESSAGE"] for each in found if len(each["MESSAGE"]) < 99][:3] == ["out", "err", "ab"]
    assert [found[0]["PRIORITY"], found[1]["PRIORITY"]] == ["6", "3"]
    told = {
        "CONTAINER_ID": key[:12],
        "CONTAINER_ID_FULL": key,
        "CONTAINER_NAME": name,
        "CONTAINER_TAG": f"{name}/{IMAGE}",
        "SYSLOG_IDENTIFIER": f"{name}/{IMAGE}",
        "IMAGE_NAME": IMAGE,
        "SITE": "here",
        "WORD": "two\nlines",
    }
    assert {field: found[0][field] for field in told} == told
    assert "OTHER" not in found[0]
    long = [each for each in found if each["MESSAGE"].startswith("xx")]
    assert sum(len(each["MESSAGE"]) for each in long) == 300000
    assert all(each.get("CONTAINER_PARTIAL_MESSAGE") == "true" for each in long[:-1])
    assert "ab\n" in engine.ok("logs", name)  # it is kept, too
    journal.close()
    engine.ok("rm", "-f", name)


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", r"<30>\w{3} [ \d]\d \d\d:\d\d:\d\d HOST TAG\[\d+\]: out$"),
        ("rfc3164", r"<30>\w{3} [ \d]\d \d\d:\d\d:\d\d HOST TAG\[\d+\]: out$"),
        ("rfc5424", r"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ HOST TAG \d+ TAG - out$"),
        ("rfc5424micro", r"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z HOST TAG \d+ TAG - out$"),
    ],
)
def test_syslog_forms(engine: Daemon, name: str, form: str, pattern: str) -> None:
    """Over UDP a message is a datagram, in the form that was asked for; the tag is the short id unless it is said."""
    syslog = Receiver(HERE, socket.SOCK_DGRAM)
    options = (f"syslog-address=udp://127.0.0.1:{syslog.place[1]}", *([f"syslog-format={form}"] if form else []))
    run(engine, name, "echo out; sleep .1; echo err >&2", "syslog", *options)
    syslog.await_text("err")
    key = engine.client.instances.get(name).id
    wanted = pattern.replace("HOST", re.escape(socket.gethostname())).replace("TAG", key[:12])
    assert re.fullmatch(wanted, syslog.got[0].decode())
    assert syslog.got[1].startswith(b"<27>")
    syslog.close()
    engine.ok("rm", "-f", name)


def test_syslog_on_this_host(engine: Daemon, name: str) -> None:
    """Over a socket of this host no host is named; the facility is what was asked for."""
    place = f"{engine.run}/syslog"
    syslog = Receiver(place, socket.SOCK_STREAM)
    run(engine, name, "echo out", "syslog", f"syslog-address=unix://{place}", "syslog-facility=local3", "tag=my tag")
    assert re.fullmatch(r"<158>.{15} my_tag\[\d+\]: out\n", syslog.await_text("out\n"))
    syslog.close()
    engine.ok("rm", "-f", name)


@pytest.mark.needs("openssl")
def test_syslog_over_tls(engine: Daemon, name: str, tmp_path: Path) -> None:
    """Over TLS the new form is framed by lengths; a certificate nobody vouches for gets nothing."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command: list[str | Path] = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "rsa:2048",
        "-days",
        "2",
        "-keyout",
        key,
    ]
    subprocess.run([*command, "-out", certificate, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    syslog = Receiver(HERE, socket.SOCK_STREAM, context)
    options = (f"syslog-address=tcp+tls://localhost:{syslog.place[1]}", "syslog-format=rfc5424")
    run(engine, f"{name}-x", "echo untrusted", "syslog", *options)
    run(engine, name, "echo out; echo more", "syslog", *options, f"syslog-tls-ca-cert={certificate}")
    syslog.await_text("more")
    rest = b"".join(syslog.got)
    messages = []
    while rest:
        length, _, rest = rest.partition(b" ")
        messages.append(rest[: int(length)])
        rest = rest[int(length) :]
    assert [message.rpartition(b" ")[2] for message in messages] == [b"out", b"more"]
    await_trouble(engine, f"{name}-x: [SSL: CERTIFICATE_VERIFY_FAILED]")
    syslog.close()
    engine.ok("rm", "-f", name, f"{name}-x")


@pytest.mark.parametrize("acknowledged", [False, True])
def test_fluentd(engine: Daemon, name: str, acknowledged: bool) -> None:
    """Records are forwarded with their times; one that wants acknowledgements sends again what wasn't."""
    fluentd = Receiver(HERE, socket.SOCK_STREAM)
    refusals = iter([b"\x80"])

    def reply(data: bytes) -> bytes:
        chunk = msgspec.msgpack.decode(data)[2].get("chunk")
        return next(refusals, None) or msgspec.msgpack.encode({"ack": chunk}) if chunk else b""

    fluentd.reply = reply if acknowledged else None
    options = [
        f"fluentd-address=127.0.0.1:{fluentd.place[1]}",
        "tag=docker.{{.Name}}",
        "env=WORD",
        "fluentd-async=true",
    ]
    options += ["fluentd-request-ack=true"] if acknowledged else ["fluentd-sub-second-precision=true"]
    begun = time.time()
    run(
        engine, name, "echo out; sleep .1; echo err >&2; sleep .1; echo end", "fluentd", *options, more=("-e", "WORD=x")
    )
    fluentd.await_text("end")
    if acknowledged:
        deadline = time.monotonic() + 15
        while fluentd.text.count("out") < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
    found = forwarded(b"".join(fluentd.got))
    assert list(dict.fromkeys(record["log"] for _, _, record in found)) == ["out", "err", "end"]
    assert [record["log"] for _, _, record in found].count("out") == (2 if acknowledged else 1)
    tag, moment, record = found[-2]
    key = engine.client.instances.get(name).id
    facts = {"container_id": key, "container_name": f"/{name}", "source": "stderr", "log": "err", "WORD": "x"}
    assert (tag, record) == (f"docker.{name}", facts)
    seconds = moment if acknowledged else int.from_bytes(moment.data[:4], "big")
    assert int(begun) - 1 <= seconds <= time.time() + 1
    fluentd.close()
    engine.ok("rm", "-f", name)


def test_nothing_is_lost(engine: Daemon, name: str) -> None:
    """What is written while the receiver, the shipper or the engine is away arrives later, in order and once."""
    syslog = Receiver(HERE, socket.SOCK_STREAM)
    place = syslog.place
    script = "n=0; while read -t 60 go; do n=$((n+1)); echo line-$n; done </fifo"
    options = (f"syslog-address=tcp://127.0.0.1:{place[1]}", "max-buffer-size=1m", "mode=non-blocking")
    run(engine, name, f"mkfifo /fifo; exec 3<>/fifo; {script}", "syslog", *options)

    def say() -> None:
        engine.ok("exec", name, "sh", "-c", "echo >/fifo")

    say()
    syslog.await_text("line-1")
    syslog.close()
    say()
    time.sleep(0.5)
    again = Receiver(place, socket.SOCK_STREAM)
    again.await_text("line-2")
    os.kill(shipper(engine), signal.SIGKILL)
    say()
    again.await_text("line-3")
    pid = shipper(engine)
    engine.kill()
    monitor = next(iter(Path(engine.run, "i").glob("*/pid"))).read_text().split()[0]
    Path(f"/proc/{monitor}/root/fifo").write_text("\n")
    again.await_text("line-4")
    assert shipper(engine) == pid
    engine.start()
    say()
    again.await_text("line-5")
    assert shipper(engine) != pid
    engine.ok("rm", "-f", name)
    assert re.findall(r"line-\d", syslog.text + again.text) == [f"line-{number}" for number in range(1, 6)]
    again.close()


def await_trouble(engine: Daemon, words: str) -> None:
    """Wait until a log couldn't be sent."""
    deadline = time.monotonic() + 15
    while f"cannot send the log of {words}" not in (told := (engine.run / "ship.log").read_text()):
        assert time.monotonic() < deadline, told
        time.sleep(0.02)


def shipper(engine: Daemon) -> int:
    """The pid of the engine's shipper, which there is one of."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        found = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if f"{engine.run}/ship.json".encode() in _content(path)
        ]
        if len(found) == 1:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"there are {len(found)} shippers")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_end_is_sent(engine: Daemon, name: str) -> None:
    """An instance that is removed at its end has its last words sent first; then nobody is left to send anything."""
    syslog = Receiver(HERE, socket.SOCK_STREAM)
    options = ["--log-driver", "syslog", "--log-opt", f"syslog-address=tcp://127.0.0.1:{syslog.place[1]}"]
    engine.ok("run", "--rm", "--name", name, *options, IMAGE, "sh", "-c", "seq 2000")
    assert syslog.await_text(": 2000\n").count("\n") == 2000
    deadline = time.monotonic() + 10
    while name.encode() in _content(engine.run / "ship.json") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert name.encode() not in _content(engine.run / "ship.json")
    syslog.close()


def test_more_than_is_kept(engine: Daemon, name: str) -> None:
    """What is rotated away before it could be sent is gone, which is said; the rest arrives."""
    with socket.socket() as probe:
        probe.bind(HERE)
        place = probe.getsockname()
    options = (f"syslog-address=tcp://127.0.0.1:{place[1]}", "cache-max-size=64k", "cache-max-file=2")
    flood = 'read go </fifo; awk "BEGIN { for (i = 1; i <= 5000; i++) print \\"a line that is not short\\", i }"'
    run(engine, name, f"mkfifo /fifo; echo first; {flood}; echo last", "syslog", *options)
    await_trouble(engine, name)
    engine.ok("exec", name, "sh", "-c", "echo >/fifo")
    engine.ok("wait", name)
    syslog = Receiver(place, socket.SOCK_STREAM)
    text = syslog.await_text(": last\n")
    numbers = [int(number) for number in re.findall(r"short (\d+)\n", text)]
    assert numbers == list(range(numbers[0], 5001))
    assert numbers[0] > 1
    assert "some output was rotated away" in text
    syslog.close()
    engine.ok("rm", "-f", name)


@pytest.mark.parametrize(
    ("driver", "options", "says"),
    [
        ("nonsense", [], "no log driver named 'nonsense' is registered"),
        ("syslog", ["bad=x"], "unknown log opt 'bad' for syslog log driver"),
        ("syslog", ["syslog-address=x://y"], "syslog-address should be in form proto://address, got x://y"),
        ("syslog", ["syslog-facility=zzz"], "invalid syslog facility"),
        ("syslog", ["syslog-format=zzz"], "Invalid syslog format"),
        ("syslog", ["tag={{.Nope}}"], "has no field Nope"),
        ("syslog", ["tag={{json .}}"], "can hold only fields"),
        ("fluentd", ["fluentd-address=ftp://x"], "invalid fluentd-address ftp://x"),
        ("fluentd", ["fluentd-async=maybe"], 'parsing "maybe": invalid syntax'),
        ("json-file", ["mode=zz"], "logging mode not supported: zz"),
        ("json-file", ["max-buffer-size=1m"], "only supported with 'mode=non-blocking'"),
    ],
)
def test_what_cannot_be(engine: Daemon, driver: str, options: list[str], says: str) -> None:
    """Drivers, options and values that aren't known are refused before anything is made."""
    words = [word for option in options for word in ("--log-opt", option)]
    done = engine.trivet("run", "--log-driver", driver, *words, IMAGE, "true")
    assert (done.returncode, says in done.stderr.decode()) == (125, True), done.stderr


def test_none(engine: Daemon, name: str) -> None:
    """With none nothing is kept, and `logs` says so."""
    engine.ok("run", "-d", "--name", name, "--log-driver", "none", IMAGE, "sh", "-c", "echo lost; sleep 60")
    done = engine.trivet("logs", name)
    assert b"keeps no log" in done.stderr
    assert engine.ok("exec", name, "echo", "works") == "works"
    assert not list(engine.root.glob(f"instance/{engine.client.instances.get(name).id}/log*"))
    engine.ok("rm", "-f", name)
