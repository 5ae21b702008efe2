"""docker and podman, by the words both understand."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.gym.attack import Attack, Outcome, Weakening
from tests.gym.host import Host, child
from tests.gym.program import image
from tests.gym.subject.contract import argv, hide_unified, inside

PATIENCE = 60.0


class Engine:
    """An engine with docker's command line; what it needs to get along on this machine comes in `options`."""

    def __init__(self, name: str, options: tuple[str, ...] = ()) -> None:
        self.name = name
        self._options = options
        self._images: dict[object, str] = {}

    def open(self, host: Host, directory: Path) -> None:
        """Get a data directory of its own, and try it."""
        self._host = host
        self._directory = directory
        directory.mkdir(parents=True)
        self._words = self._start()
        self._images[()] = self._import(image(host.program, (), {}))
        done = self._ask("run", "--rm", *self._options, self._images[()], "/gym", "root")
        assert done.returncode == 0, done.stderr

    def version(self) -> str:
        """Ask it."""
        return f"{self.name} {self._ask('version', '--format', '{{.Client.Version}}').stdout.strip()}"

    def programs(self) -> tuple[Path, ...]:
        """The command, and the runtime behind it."""
        found = (shutil.which(name) for name in (self.name, "runc", "crun"))
        return tuple(Path(path) for path in found if path)

    def alive(self) -> bool:
        """Ask for its containers."""
        return self._ask("ps", "-q").returncode == 0

    def run(self, attack: Attack, words: dict[str, str], weak: Weakening | None = None) -> Outcome:
        """Run it as everybody would."""
        del weak
        name = f"gym-{secrets.token_hex(4)}"
        known = tuple((entry.path, entry.link.format(**words), entry.content.format(**words)) for entry in attack.layer)
        if known not in self._images:
            self._images[known] = self._import(image(self._host.program, attack.layer, words))
        command = argv(attack, words)
        options = [*self._options, *(word.format(**words) for word in attack.options), "--name", name]
        try:
            if not attack.exec:
                return self._outcome([*("run", *options), self._images[known], *command], name, attack.execs)
            done = self._ask("run", "-d", *options, self._images[known], "/gym", "host")
            if done.returncode:
                return Outcome(refused=done.stderr.strip())
            as_whom = ("-u", attack.options[attack.options.index("-u") + 1]) if "-u" in attack.options else ()
            return self._outcome(["exec", *as_whom, name, *command], name, 0)
        finally:
            self._ask("rm", "-f", "-v", name)

    @contextmanager
    def beside(self, attack: Attack, words: dict[str, str]) -> Iterator[None]:
        """Keep what runs beside a race running."""
        name = f"gym-{secrets.token_hex(4)}"
        options = [*self._options, *(word.format(**words) for word in attack.options[:2]), "--name", name]
        self._ask("run", "-d", *options, self._images[()], *inside(attack.beside, words))
        try:
            yield
        finally:
            self._ask("rm", "-f", "-v", name)

    def close(self) -> None:
        """Remove everything."""
        with suppress(subprocess.TimeoutExpired):
            for name in self._ask("ps", "-a", "-q").stdout.split():
                self._ask("rm", "-f", name)
        self._end()

    def _start(self) -> list[str | Path]:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _outcome(self, words: list[str], name: str, execs: int) -> Outcome:
        process = subprocess.Popen(
            self._host.enter(*self._words, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace",
        )  # fmt: skip
        for _ in range(execs):
            self._ask("exec", name, "/proc/self/exe")
        output, said = process.communicate(timeout=PATIENCE)
        return Outcome(output=output, code=process.returncode, refused="" if output else said.strip())

    def _import(self, content: bytes) -> str:
        name = f"gym:{len(self._images)}"
        path = self._directory / "image.tar"
        path.write_bytes(content)
        done = self._ask("import", path, name)
        assert done.returncode == 0, done.stderr
        return name

    def _ask(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return self._host.run(*self._words, *words, timeout=PATIENCE)


class Docker(Engine):
    """A dockerd of the gym's own."""

    def _start(self) -> list[str | Path]:
        run = self._directory / "run"
        run.mkdir()
        address = f"unix://{run}/docker.sock"
        with (self._directory / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                self._host.enter(
                    *("dockerd", "--host", address, "--data-root", self._directory / "data"),
                    *("--exec-root", run / "exec", "--pidfile", run / "pid"),
                ),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        words: list[str | Path] = ["docker", "--host", address]
        deadline = time.monotonic() + PATIENCE
        while self._host.run(*words, "version").returncode:
            ended = self._daemon.poll() is not None or time.monotonic() > deadline
            assert not ended, (self._directory / "log").read_text()[-2000:]
            time.sleep(0.2)
        return words

    def _end(self) -> None:
        with suppress(OSError, ValueError):
            os.kill(child(self._daemon.pid), signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._daemon.wait(20)


class Podman(Engine):
    """podman, with a storage of the gym's own."""

    def __init__(self) -> None:
        # As root without CAP_SYS_RESOURCE it can't raise limits, which its defaults do.
        super().__init__("podman", ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"))

    def _start(self) -> list[str | Path]:
        hide_unified(self._host)
        where = (("root", "data"), ("runroot", "run"), ("tmpdir", "tmp"))
        return ["podman", *(f"--{option}={self._directory / name}" for option, name in where)]

    def _end(self) -> None:
        for line in self._host.read("mountinfo").splitlines():
            if str(self._directory) in line:
                self._host.run("umount", "-l", line.split()[4])
