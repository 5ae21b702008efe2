"""The DNS server of user-made networks, asked from inside instances by a resolver that isn't ours."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.reversename
import dns.rrset
import pytest
from tests.busybox import busybox_tar
from tests.conftest import Daemon

from trivet.kernel.namespace import inside

pytestmark = pytest.mark.needs("root", "nft")

SERVER = "127.0.0.11"


class Net:
    """A network of one test and instances on it, removed after it."""

    def __init__(self, daemon: Daemon, image: str, stack: ExitStack) -> None:
        self.daemon, self.image, self._stack = daemon, image, stack
        self.name = f"dns-{os.urandom(3).hex()}"

    def network(self, *options: str, name: str = "") -> str:
        """Create a network; its gateway."""
        name = name or self.name
        self.daemon.ok("network", "create", *options, name)
        self._stack.callback(self.daemon.trivet, "network", "rm", name)
        return self.daemon.client.networks.get(name).gateway

    def run(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "300")) -> str:
        """Start an instance on the network; its id."""
        self._stack.callback(self.daemon.trivet, "rm", "-f", f"{self.name}-{name}")
        networks = () if "--network" in options else ("--network", self.name)
        full = f"{self.name}-{name}"
        return self.daemon.ok("run", "-d", "--name", full, *networks, *options, self.image, *command)

    def socket(self, key: str, kind: socket.SocketKind = socket.SOCK_DGRAM) -> socket.socket:
        """Make a socket in an instance's namespace."""
        file = os.open(self.daemon.run / "netns" / key, os.O_RDONLY)
        with inside(file):
            made = socket.socket(socket.AF_INET, kind)
        os.close(file)
        self._stack.callback(made.close)
        return made

    def ask(
        self, key: str, name: str, kind: str = "A", *, tcp: bool = False, timeout: float = 6
    ) -> dns.message.Message:
        """Ask the server from inside an instance."""
        query = dns.message.make_query(name, kind)
        item = self.socket(key, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        if not tcp:
            return dns.query.udp(query, SERVER, timeout=timeout, sock=_nonblocking(item))
        item.settimeout(timeout)
        item.connect((SERVER, 53))
        return dns.query.tcp(query, SERVER, timeout=timeout, sock=_nonblocking(item))

    def texts(self, key: str, name: str, kind: str = "A") -> list[str]:
        """Ask, and list the records of the answer."""
        return sorted(str(record) for rows in self.ask(key, name, kind).answer for record in rows)

    def address(self, name: str, version: int = 4) -> str:
        """An instance's address on its first network."""
        found = self.daemon.client.instances.get(f"{self.name}-{name}").networks[0].addresses
        return next(each.partition("/")[0] for each in found if (":" in each) == (version == 6))

    @property
    def pid(self) -> int:
        """The DNS server's process."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
            link.connect(str(self.daemon.run / "dns.sock"))
            return int.from_bytes(link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def _nonblocking(item: socket.socket) -> socket.socket:
    item.setblocking(False)
    return item


@pytest.fixture
def net(daemon: Daemon, busybox: str) -> Iterator[Net]:
    """A network of the test's own, not made yet."""
    with ExitStack() as stack:
        yield Net(daemon, busybox, stack)


class Upstream:
    """A server elsewhere: knows outside.example and refuses the rest, over UDP and TCP. `asked` holds the questions."""

    def __init__(self, address: str, stack: ExitStack) -> None:
        self.asked: list[str] = []
        self._datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._connections = stack.enter_context(socket.socket())
        self._connections.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for item in (self._datagrams, self._connections):
            item.bind((address, 53))
            item.settimeout(0.1)  # a thread that waits would hold the socket open
        self._connections.listen()
        self._ended = False
        for work in (self._serve_datagrams, self._serve_connections):
            thread = threading.Thread(target=self._serve, args=(work,))
            stack.callback(thread.join)
            thread.start()
        stack.callback(setattr, self, "_ended", True)

    def _serve(self, work: Callable[[], None]) -> None:
        while not self._ended:
            with suppress(TimeoutError):
                work()

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        name = query.question[0].name
        self.asked.append(str(name))
        reply = dns.message.make_response(query)
        if str(name) == "outside.example.":
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
        elif str(name) == "big.example.":
            reply.answer.append(dns.rrset.from_text(name, 60, "IN", "TXT", *(f"{n:0200}" for n in range(20))))
        else:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()

    def _serve_datagrams(self) -> None:
        data, client = self._datagrams.recvfrom(4096)
        reply = self._answer(data)
        if len(reply) > 512:
            short = dns.message.make_response(dns.message.from_wire(data))
            short.flags |= dns.flags.TC
            reply = short.to_wire()
        self._datagrams.sendto(reply, client)

    def _serve_connections(self) -> None:
        item, _ = self._connections.accept()
        with item:
            reply = self._answer(item.recv(4096)[2:])
            item.sendall(len(reply).to_bytes(2, "big") + reply)


def test_names_of_a_network(net: Net) -> None:
    """Members are found by name, NAME.NETWORK, alias and short id, in any case, and at both of their addresses."""
    net.network("--ipv6")
    one = net.run("a")
    two = net.run("b", "--network-alias", "Db")
    addresses = {kind: [net.address("b", version)] for kind, version in (("A", 4), ("AAAA", 6))}
    for name in (f"{net.name}-b", f"{net.name}-B.{net.name}", "db", two[:12]):
        for kind, expected in addresses.items():
            assert net.texts(one, f"{name}.", kind) == expected, (name, kind)
    assert net.texts(one, "db.", "MX") == []
    assert net.ask(one, "db.", tcp=True).answer == net.ask(one, "db.").answer


def test_several_behind_one_name(net: Net) -> None:
    """An alias that several members have leads to all of them."""
    net.network()
    one = net.run("a", "--network-alias", "web")
    net.run("b", "--network-alias", "web")
    assert net.texts(one, "web.") == sorted([net.address("a"), net.address("b")])


def test_the_way_back(net: Net) -> None:
    """An address of a member leads to its name, for both IP versions."""
    net.network("--ipv6")
    one = net.run("a")
    net.run("b")
    for version in (4, 6):
        name = str(dns.reversename.from_address(net.address("b", version)))
        assert net.texts(one, name, "PTR") == [f"{net.name}-b.{net.name}."]


def test_published_services(net: Net) -> None:
    """SRV tells the port of what a member publishes, by number or by service name, and nothing else's."""
    net.network()
    one = net.run("a")
    net.run("b", "-p", "127.0.0.1::80")
    for service in ("_80._tcp", "_http._tcp"):
        assert net.texts(one, f"{service}.{net.name}-b.", "SRV") == [f"0 0 80 {net.name}-b."]
    assert net.ask(one, f"_81._tcp.{net.name}-b.", "SRV").rcode() == dns.rcode.NXDOMAIN
    assert net.ask(one, f"_80._udp.{net.name}-b.", "SRV").rcode() == dns.rcode.NXDOMAIN


def test_names_follow_the_instances(net: Net) -> None:
    """Who starts, stops, is renamed, connected or disconnected is found accordingly, at once."""
    net.network()
    net.network(name=f"{net.name}2")
    one = net.run("a")
    net.run("b")
    assert net.texts(one, f"{net.name}-b.") == [net.address("b")]
    net.daemon.ok("rename", f"{net.name}-b", f"{net.name}-c")
    net._stack.callback(net.daemon.trivet, "rm", "-f", f"{net.name}-c")
    assert net.texts(one, f"{net.name}-c.") == [net.address("c")]
    net.daemon.ok("stop", "-t", "0", f"{net.name}-c")
    assert not net.texts(one, f"{net.name}-c.")
    net.daemon.ok("start", f"{net.name}-c")
    assert net.texts(one, f"{net.name}-c.") == [net.address("c")]
    net.daemon.ok("network", "connect", "--alias", "there", f"{net.name}2", f"{net.name}-c")
    assert not net.texts(one, "there.")
    net.daemon.ok("network", "connect", f"{net.name}2", f"{net.name}-a")
    assert len(net.texts(one, "there.")) == 1
    net.daemon.ok("network", "disconnect", f"{net.name}2", f"{net.name}-c")
    assert not net.texts(one, "there.")


def test_many_at_once(net: Net) -> None:
    """Instances that start at the same moment all have the DNS server from the beginning."""
    net.network()
    ask = ("nslookup", f"{net.name}-0")
    net.run("0")
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda number: net.run(str(number), command=ask), range(1, 17)))
    address = net.address("0")
    for key in keys:
        net.daemon.ok("wait", key)
        assert address in net.daemon.ok("logs", key)


def test_a_network_gained_later(net: Net) -> None:
    """An instance of the default network has the host's resolvers until it is connected to a network with names."""
    net.network()
    one = net.run("a", "--network", "bridge")
    net.run("b")
    assert SERVER not in net.daemon.ok("exec", one, "cat", "/etc/resolv.conf")
    net.daemon.ok("network", "connect", net.name, one)
    assert SERVER in net.daemon.ok("exec", one, "cat", "/etc/resolv.conf")
    assert net.address("b") in net.daemon.ok("exec", one, "nslookup", f"{net.name}-b")


def test_unknown_names_are_asked_elsewhere(net: Net) -> None:
    """What no member is called is asked at the instance's --dns servers, over UDP and TCP, until one of them knows."""
    gateway = net.network()
    elsewhere = Upstream(gateway, net._stack)
    one = net.run("a", "--dns", "127.0.0.1", "--dns", gateway)
    assert net.texts(one, "outside.example.") == ["192.0.2.7"]
    assert net.ask(one, "nowhere.example.").rcode() == dns.rcode.NXDOMAIN
    assert net.ask(one, "big.example.", "TXT").flags & dns.flags.TC
    assert len(net.ask(one, "big.example.", "TXT", tcp=True).answer[0]) == 20
    net.texts(one, f"{net.name}-a.")
    assert f"{net.name}-a." not in elsewhere.asked


def test_nothing_leaves_an_internal_network(net: Net) -> None:
    """On an internal network unknown names are refused, and no server outside hears of them (CVE-2024-29018)."""
    gateway = net.network("--internal")
    elsewhere = Upstream(gateway, net._stack)
    one = net.run("a", "--dns", gateway)
    two = net.run("b")
    for key in (one, two):
        assert net.ask(key, "outside.example.").rcode() == dns.rcode.REFUSED
        assert net.ask(key, "outside.example.", tcp=True).rcode() == dns.rcode.REFUSED
    assert net.texts(one, f"{net.name}-b.") == [net.address("b")]
    assert elsewhere.asked == []


def test_port_53_is_the_instances(net: Net) -> None:
    """A program may listen on port 53 of all addresses, and still finds names."""
    net.network()
    one = net.run("a", command=("httpd", "-f", "-p", "0.0.0.0:53"))
    assert "0.0.0.0:53 " in net.daemon.ok("exec", one, "netstat", "-lnt")
    assert net.texts(one, f"{net.name}-a.") == [net.address("a")]


def test_strange_messages(net: Net) -> None:
    """Bytes that are no question are refused or ignored, an answer is never answered, and everybody else is served."""
    net.network()
    one = net.run("a")
    dice = random.Random(5)
    pid = net.pid
    question = dns.message.make_query(f"{net.name}-a.", "A").to_wire()
    item = net.socket(one)
    item.connect((SERVER, 53))
    looping = question[:12] + b"\xc0\x0c" + question[-4:]
    long = question[:12] + b"\x3f" + b"a" * 63 + b"\x3f" * 400
    for message in (b"", b"x", question[:20], looping, long, question * 100, question[:4] + b"\xff\xff" + question[6:]):
        item.send(message)
    for _ in range(500):
        item.send(dice.randbytes(dice.randrange(80)))
    item.close()
    quiet = net.socket(one)
    quiet.connect((SERVER, 53))
    quiet.settimeout(0.3)
    quiet.send(question[:2] + b"\x80\x00" + question[4:])
    with pytest.raises(TimeoutError):
        quiet.recv(512)
    stream = net.socket(one, socket.SOCK_STREAM)
    stream.connect((SERVER, 53))
    stream.sendall((len(question).to_bytes(2, "big") + question) * 300)
    stream.settimeout(5)
    received = 0
    while received < 300 * (len(question) + 2 + 16):
        received += len(stream.recv(65536))
    assert net.texts(one, f"{net.name}-a.") == [net.address("a")]
    assert net.pid == pid


def test_many_connections_of_one_instance(net: Net) -> None:
    """An instance that holds connections open without asking keeps only itself from asking over TCP."""
    net.network()
    one, two = net.run("a"), net.run("b")
    held = [net.socket(one, socket.SOCK_STREAM) for _ in range(60)]
    for item in held:
        item.connect((SERVER, 53))
    assert net.ask(two, f"{net.name}-a.", tcp=True).answer
    assert net.ask(one, f"{net.name}-b.").answer


def test_nobody_answers_elsewhere(net: Net) -> None:
    """A thousand questions for a server that says nothing are bounded, and names of members are found meanwhile."""
    gateway = net.network()
    silent = net._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    silent.bind((gateway, 53))
    one = net.run("a", "--dns", gateway)
    item = net.socket(one)
    item.connect((SERVER, 53))
    for number in range(1000):
        item.send(dns.message.make_query(f"n{number}.example.", "A").to_wire())
    assert net.texts(one, f"{net.name}-a.") == [net.address("a")]
    assert len(list(Path(f"/proc/{net.pid}/fd").iterdir())) < 250
    item.settimeout(6)
    assert dns.message.from_wire(item.recv(512)).rcode() == dns.rcode.SERVFAIL


@pytest.fixture
def own(short_path: Path, tmp_path: Path) -> Iterator[Net]:
    """An engine of the test's own, with a network and two instances."""
    daemon = Daemon(tmp_path / "engine", short_path)
    with ExitStack() as stack:
        stack.callback(daemon.clean)
        daemon.start()
        daemon.ok("import", "-q", "-c", 'CMD ["sh"]', "-", "bb", input=busybox_tar())
        net = Net(daemon, "bb", ExitStack())
        net.network()
        yield net


def _wait(found: object, action: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if action() == found:  # type: ignore[operator]
                return
        except (OSError, dns.exception.Timeout):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_killed_server(own: Net) -> None:
    """A DNS server that was killed is replaced by the engine, with the same names."""
    one = own.run("a")
    pid = own.pid
    os.kill(pid, signal.SIGKILL)
    _wait([own.address("a")], lambda: sorted(str(row[0]) for row in own.ask(one, f"{own.name}-a.", timeout=1).answer))
    assert own.pid != pid
    assert own.daemon.ok("system", "check") == "nothing wrong"


def test_killed_engine(own: Net) -> None:
    """Names are found while the engine is away, after it came back, and even if both were killed."""
    one, two = own.run("a"), own.run("b")
    pid, address = own.pid, own.address("b")
    own.daemon.kill()
    assert own.texts(one, f"{own.name}-b.") == [address]
    own.daemon.start()
    assert own.pid == pid
    own.daemon.ok("rm", "-f", two)
    assert not own.texts(one, f"{own.name}-b.")
    own.daemon.kill()
    os.kill(pid, signal.SIGKILL)
    own.daemon.start()
    assert own.texts(one, f"{own.name}-a.") == [own.address("a")]


def _doors(pid: int) -> list[str]:
    """List the network namespaces that the server holds; it goes on opening and closing other things meanwhile."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [each for each in found if "net:" in each]


def test_nothing_stays(own: Net) -> None:
    """A stopped instance's namespace goes, and a removed engine's server."""
    one = own.run("a")
    own.daemon.ok("rm", "-f", one)
    _wait(True, lambda: not _doors(own.pid))
    pid = own.pid
    own.daemon.clean()
    _wait(False, Path(f"/proc/{pid}").exists)


def test_a_machine_asks_its_gateway(own: Net) -> None:
    """A machine finds members at its network's gateway; who isn't on that network gets no answer there."""
    own.run("b")
    gateway = own.daemon.client.networks.get(own.name).gateway
    machine = own.run("m", "--isolation", "vm", command=("sh", "-c", f"nslookup {own.name}-b; sleep 60"))
    _wait(True, lambda: own.address("b") in own.daemon.ok("logs", machine), seconds=60)
    assert f"{gateway}:53" in own.daemon.ok("logs", machine)
    own.network(name=f"{own.name}2")
    stranger = own.socket(own.run("s", "--network", f"{own.name}2"))
    stranger.connect((gateway, 53))
    stranger.settimeout(0.5)
    stranger.send(dns.message.make_query(f"{own.name}-b.", "A").to_wire())
    with pytest.raises(TimeoutError):
        stranger.recv(512)


@pytest.mark.needs("dig", "nsenter")
def test_dig(net: Net) -> None:
    """A resolver's own tool finds nothing to complain of: flags, versions, signatures, kinds, both protocols."""
    net.network("--ipv6")
    one = net.run("a", "-p", "127.0.0.1::80")
    name, four, six = f"{net.name}-a", net.address("a"), net.address("a", 6)
    service = f"_http._tcp.{name}"
    for words, parts in (
        ((name,), ("status: NOERROR", "flags: qr aa rd ra;", f"IN\tA\t{four}")),
        (("+tcp", name), (f"IN\tA\t{four}",)),
        (("+noedns", name.upper()), (f"IN\tA\t{four}", "ADDITIONAL: 0")),
        (("+dnssec", name, "AAAA"), (f"IN\tAAAA\t{six}", "EDNS: version: 0, flags: do;")),
        ((name, "ANY", "+notcp"), (f"IN\tA\t{four}", f"IN\tAAAA\t{six}")),
        ((name, "MX"), ("status: NOERROR", "flags: qr aa rd ra;", "ANSWER: 0")),
        (("+edns=1", "+noednsnegotiation", name), ("status: BADVERS", "ANSWER: 0")),
        (("+opcode=NOTIFY", name), ("status: NOTIMP",)),
        ((service, "SRV"), (f"0 0 80 {name}.",)),
        ((f"_gopher._tcp.{name}", "SRV"), ("status: NXDOMAIN", "flags: qr aa rd ra;")),
        (("-x", four), (f"PTR\t{name}.{net.name}.",)),
        (("-x", six), (f"PTR {name}.{net.name}.",)),
    ):
        inside_ = ["nsenter", f"--net={net.daemon.run / 'netns' / one}", "dig", f"@{SERVER}", "+time=5", "+tries=1"]
        said = subprocess.run([*inside_, *words], capture_output=True, text=True, check=True, timeout=30).stdout
        for part in parts:
            assert part in said.replace("\t\t", "\t"), (words, said)
        assert "malformed" not in said.lower()
        assert ";; Warning" not in said
