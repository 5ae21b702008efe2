"""trivet's engine, reached by its API: the options are read by the command's own parser."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.gym.attack import Attack, Outcome, Weakening
from tests.gym.host import Host
from tests.gym.program import image
from tests.gym.subject.contract import argv, inside

from trivet.base.error import TrivetError
from trivet.cli.catalog import BY_WORDS
from trivet.cli.command import Parser, build_parser
from trivet.cli.request import request_of
from trivet.client.client import Client
from trivet.client.schema import ExecRequest, InstanceRequest
from trivet.client.stream import Exit, Output, Stream
from trivet.launch import launcher

BIN = Path(sys.executable).parent
LEAKED = 200  # descriptors of the canary's directory that the engine is started with


class Trivet:
    """An engine of the gym's own."""

    name = "trivet"

    def open(self, host: Host, directory: Path) -> None:
        """Start the engine, full of descriptors that must not get any further, and try it."""
        self._host = host
        self.root, self.directory = directory / "root", directory / "run"
        self.socket = self.directory / "trivet.sock"
        self.client = Client(f"unix://{self.socket}")
        self._images: dict[object, str] = {}
        leak = directory / "leak"
        leak.mkdir(parents=True)
        log_path = directory / "log"
        self._words = [f"--root={self.root}", f"--run-dir={self.directory}"]
        descriptors = [os.open(leak, os.O_RDONLY) for _ in range(LEAKED)]
        try:
            with log_path.open("wb") as log:
                self._engine = subprocess.Popen(
                    host.enter(BIN / "trivetd", *self._words, f"--listen=unix://{self.socket}"),
                    stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=descriptors,
                )  # fmt: skip
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        deadline = time.monotonic() + 300  # under emulation, on a busy machine, it takes minutes to load
        while not self.alive():
            assert time.monotonic() < deadline, log_path.read_text()[-3000:]
            time.sleep(0.02)
        # What it makes for the first instance of all, and keeps, is no damage.
        list(self.client.images.import_(image(host.program, (), {}), "gym:first"))
        with self.client.instances.attach(
            self.client.instances.create(parse(["--rm", "gym:first", "/gym", "root"])).id, start=True
        ) as stream:
            _listen(stream)

    def version(self) -> str:
        """Ask the engine."""
        return f"trivet {self.client.system.ping()}"

    def programs(self) -> tuple[Path, ...]:
        """The launcher, the interpreter, the program itself."""
        return (launcher.BINARY, Path(sys.executable).resolve())

    def alive(self) -> bool:
        """Ping it."""
        try:
            self.client.system.ping()
        except TrivetError:
            return False
        return True

    def run(self, attack: Attack, words: dict[str, str], weak: Weakening | None = None) -> Outcome:
        """Create, start, listen to the end, remove."""
        name = self._image(attack, words)
        command = argv(attack, words, weak.argv if weak else ())
        around = (weak.before, weak.options) if weak else ((), ())
        options = [word.format(**words) for word in (*around[0], *attack.options, *around[1])]
        waiting = ["/gym", "host"] if attack.exec else command
        request = parse([*options, name, *waiting])
        created = None
        try:
            created = self.client.instances.create(request)
            if not attack.exec:
                with self.client.instances.attach(created.id, start=True) as stream:
                    for _ in range(attack.execs):
                        self._beside(created.id)
                    return _listen(stream)
            self.client.instances.start(created.id)
            wanted = ExecRequest(command=command, user=request.user, cwd=request.cwd, terminal=request.terminal)
            with self.client.instances.exec(created.id, wanted) as stream:
                return _listen(stream)
        except TrivetError as error:
            return Outcome(refused=str(error))
        finally:
            if created:
                self.client.instances.remove(created.id, force=True, volumes=True)

    @contextmanager
    def beside(self, attack: Attack, words: dict[str, str], options_of_it: int = 2) -> Iterator[str]:
        """Keep what runs beside a race running; gives its id."""
        options = [word.format(**words) for word in attack.options[:options_of_it]]
        request = parse([*options, self._image(attack, words), *inside(attack.beside, words)])
        created = self.client.instances.create(request)
        try:
            self.client.instances.start(created.id)
            yield created.id
        finally:
            self.client.instances.remove(created.id, force=True, volumes=True)

    def close(self) -> None:
        """Remove instances, end the engine, take what it has on the kernel with it."""
        with suppress(TrivetError):
            for instance in self.client.instances.list(all=True):
                self.client.instances.remove(instance.id, force=True, volumes=True)
        self._engine.terminate()
        self._engine.wait(20)
        self._host.run(BIN / "trivetd", *self._words, "--uninstall")

    def _beside(self, ref: str) -> None:
        with suppress(TrivetError), self.client.instances.exec(ref, ExecRequest(command=["/proc/self/exe"])) as stream:
            _listen(stream)

    def _image(self, attack: Attack, words: dict[str, str]) -> str:
        """Import the image, once for all attacks that use the same; links into a canary's directory make it its own."""
        known = tuple((entry.path, entry.link.format(**words), entry.content.format(**words)) for entry in attack.layer)
        if known not in self._images:
            name = f"gym:{len(self._images)}"
            list(self.client.images.import_(image(self._host.program, attack.layer, words), name))
            self._images[known] = name
        return self._images[known]


def parse(line: list[str]) -> InstanceRequest:
    """Read a command line as `trivet run` does."""
    entry = BY_WORDS["run"]
    parser = build_parser(Parser(prog="trivet run", add_help=False, allow_abbrev=False), entry.command(), entry.summary)
    return request_of(parser.parse_args(line), {})


def _listen(stream: Stream) -> Outcome:
    output, code = b"", -1
    for event in stream:
        if isinstance(event, Output):
            output = (output + event.data)[-65536:]
        elif isinstance(event, Exit):
            code = event.code
    return Outcome(output=output.decode(errors="replace"), code=code)
