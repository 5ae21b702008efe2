"""A bare OCI runtime with what its own `spec` writes: trivet-runtime, runc, crun."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.gym.attack import Attack, Outcome, Weakening
from tests.gym.host import Host
from tests.gym.program import tree
from tests.gym.subject.contract import NotApplicable, argv, hide_unified, inside
from tests.runtime import merge


class Runtime:
    """One runtime's command."""

    def __init__(self, name: str, command: Path | str) -> None:
        self.name = name
        self._command = command

    def open(self, host: Host, directory: Path) -> None:
        """Find it."""
        self._host = host
        self._directory = directory
        self._directory.mkdir(parents=True)
        if self.name == "crun":
            hide_unified(host)
        self._words: list[str | Path] = [self._command, "--root", directory / "state"]
        self._group = f"/trivet-gym-{os.getpid()}-{self.name}"  # several are tried at once

    def version(self) -> str:
        """Ask it."""
        return self._host.run(self._command, "--version").stdout.splitlines()[0]

    def programs(self) -> tuple[Path, ...]:
        """The command itself."""
        return (Path(shutil.which(self._command) or self._command),)

    def alive(self) -> bool:
        """There is nothing that could be dead."""
        return True

    def run(self, attack: Attack, words: dict[str, str], weak: Weakening | None = None) -> Outcome:
        """Write the bundle, run it in the foreground; with `exec` beside a program that waits."""
        name = f"gym-{secrets.token_hex(4)}"
        bundle = self._directory / name
        command = argv(attack, words, weak.argv if weak else ())
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, bundle, True)
            tree(self._host.program, attack.layer, words, bundle / "rootfs")
            config = self._configured(bundle, attack, words)
            flags = weak.flags if weak else ()
            config["process"]["args"] = ["/gym", "host"] if attack.exec else command
            if weak and weak.config:
                config = merge(config, _filled(weak.config, words))
            (bundle / "config.json").write_text(json.dumps(config))
            undo.callback(self._delete, name)
            start = [*self._words, "run", "--bundle", bundle]
            if not attack.exec:
                return self._listen([*start, *flags, name], Path(words["dir"]))
            self._detached([*start, "--detach", name])
            return self._listen(
                [*self._words, "exec", *flags, *_as(attack.options), name, *command], Path(words["dir"])
            )

    @contextmanager
    def beside(self, attack: Attack, words: dict[str, str]) -> Iterator[None]:
        """Keep what runs beside a race running."""
        name = f"gym-{secrets.token_hex(4)}"
        bundle = self._directory / name
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, bundle, True)
            tree(self._host.program, (), words, bundle / "rootfs")
            config = self._configured(bundle, attack, words)
            config["process"]["args"] = inside(attack.beside, words)
            (bundle / "config.json").write_text(json.dumps(config))
            undo.callback(self._delete, name)
            self._detached([*self._words, "run", "--bundle", bundle, "--detach", name])
            yield

    def close(self) -> None:
        """Delete what is left."""
        for state in (self._directory / "state").glob("*/"):
            self._delete(state.name)
        for group in Path("/sys/fs/cgroup").glob(f"*{self._group}"):
            group.rmdir()

    def _detached(self, command: list[str | Path]) -> None:
        nothing = subprocess.DEVNULL  # what goes on would hold pipes open
        words = self._host.enter(*command)
        subprocess.run(words, stdin=nothing, stdout=nothing, stderr=nothing, timeout=60, check=False)

    def _delete(self, name: str) -> None:
        self._host.run(*self._words, "delete", "--force", name)

    def _configured(self, bundle: Path, attack: Attack, words: dict[str, str]) -> dict[str, Any]:
        done = self._host.run("sh", "-c", f"cd {bundle} && exec {self._command} spec")
        assert done.returncode == 0, done.stderr
        config: dict[str, Any] = json.loads((bundle / "config.json").read_text())
        config["process"]["terminal"] = False
        config["root"]["readonly"] = False
        config["linux"]["cgroupsPath"] = f"{self._group}/{bundle.name}"
        options = iter(attack.options)
        for option in options:
            _translate(option, options, config, words)
        return config

    def _listen(self, command: list[str | Path], leaked: Path) -> Outcome:
        """Run it with a directory of the host's as descriptors 3 to 9: they must not arrive."""
        opened = " ".join(f"{number}<{leaked}" for number in range(3, 10))
        done = self._host.run("sh", "-c", f'exec "$@" {opened}', "sh", *command)
        return Outcome(output=done.stdout, code=done.returncode, refused="" if done.stdout else done.stderr.strip())


def _translate(option: str, rest: Any, config: dict[str, Any], words: dict[str, str]) -> None:
    """Say in a config.json what an option of `docker run` says."""
    if option == "-v":
        source, target, *mode = next(rest).format(**words).split(":")
        options = ["rbind", *mode]
        config["mounts"].append({"source": source, "destination": target, "type": "bind", "options": options})
    elif option == "-w":
        config["process"]["cwd"] = next(rest).format(**words)
    elif option == "-u":
        user = next(rest).split(":")
        if not all(word.isdigit() for word in user):
            raise NotApplicable("a configuration's user is a number")
        config["process"]["user"] = {"uid": int(user[0]), "gid": int(user[-1]) if len(user) > 1 else 0}
    elif option == "--network" and next(rest) == "host":
        config["linux"]["namespaces"] = [each for each in config["linux"]["namespaces"] if each["type"] != "network"]
    else:
        raise NotApplicable(f"a configuration has no {option}")


def _as(options: tuple[str, ...]) -> list[str]:
    return ["--user", options[options.index("-u") + 1]] if "-u" in options else []


def _filled(config: Any, words: dict[str, str]) -> Any:
    """Put the canary's names into every text of a configuration."""
    if isinstance(config, dict):
        return {key: _filled(value, words) for key, value in config.items()}
    if isinstance(config, list):
        return [_filled(value, words) for value in config]
    return config.format(**words) if isinstance(config, str) else config
