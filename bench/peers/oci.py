"""OCI runtimes, each given the same bundle: the configuration trivet's own container level uses.

With users of its own the bundle has a user namespace and a copy of the root that was given to them: runtime-spec has
no mapped root, and these runtimes show none. What the copy costs isn't measured.

A bare runtime leaves nobody behind to hold a program's output and exit status; its memory per instance is
therefore nothing, and that is no merit.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
from pathlib import Path

import msgspec

from bench.account import Account
from bench.image import DIRECTORY, MARK, rootfs
from bench.peers.peer import PeerFailed, Run, command, timed
from trivet.isolation.plan import Attachment, Level, Log, Plan, Program, Root, Security
from trivet.isolation.specification import contained
from trivet.kernel.capability import DEFAULT
from trivet.oci import runtime as oci

FIRST, SIZE = 0x6F00_0000, 1 << 16  # below what engines give away


class Runtime:
    """One runtime with runc's command line."""

    slow = False
    twin = False

    def __init__(self, name: str, program: str | Path, *, users: bool) -> None:
        self.name = name if users else f"{name} host users"
        self._users = users
        self._program = program
        self._directory = DIRECTORY / self.name.replace(" ", "-")
        self._words: list[str | Path] = [program, "--root", self._directory / "state"]
        self._bundles: dict[str, Path] = {}

    def open(self, account: Account) -> None:
        """Make a bundle and try it."""
        if not shutil.which(self._program):
            raise PeerFailed(f"{self.name} is not installed")
        self.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._cgroup = account.path
        self._root = given(rootfs(), self._directory / "rootfs") if self._users else rootfs()
        self.run()

    def version(self) -> str:
        """Tell which version this is."""
        return command([self._program, "--version"]).splitlines()[0]

    def run(self) -> Run:
        """Run the program in the foreground; the runtime removes the container itself."""
        return timed([*self._words, "run", "--bundle", self._bundle("once", MARK), "bench-once"])

    def idle(self, name: str) -> int:
        """Start a container in the background."""
        pid_file = self._directory / f"{name}.pid"
        bundle = self._bundle(name, MARK, "idle")
        words = [*self._words, "run", "--detach", "--pid-file", pid_file, "--bundle", bundle, name]
        # No pipes: the program would hold their other ends open.
        nothing = subprocess.DEVNULL
        if status := subprocess.run(words, stdin=nothing, stdout=nothing, stderr=nothing).returncode:
            raise PeerFailed(f"{self.name}: run --detach ended with status {status}")
        return int(pid_file.read_text())

    def exec(self, name: str) -> None:
        """Run a further program."""
        command([*self._words, "exec", name, MARK, "true"])

    def stop(self, name: str) -> None:
        """Kill, wait, delete."""
        process = os.pidfd_open(int((self._directory / f"{name}.pid").read_text()))
        command([*self._words, "kill", name, "TERM"])
        select.select([process], [], [], 10)
        os.close(process)
        command([*self._words, "delete", name])

    def close(self) -> None:
        """Remove what a broken-off bench left."""
        for state in (self._directory / "state").glob("*/"):
            subprocess.run([*self._words, "delete", "--force", state.name], capture_output=True)

    def _bundle(self, name: str, *words: str) -> Path:
        if name not in self._bundles:
            bundle = self._directory / name
            bundle.mkdir(parents=True, exist_ok=True)
            (bundle / "config.json").write_bytes(_for_old_runtimes(self._configuration(name, words)))
            self._bundles[name] = bundle
        return self._bundles[name]

    def _configuration(self, name: str, words: tuple[str, ...]) -> oci.Spec:
        plan = Plan(
            id=name,
            name=name,
            level=Level.CONTAINER,
            program=Program(argv=words, env=("PATH=/bin",)),
            root=Root(form="mount", lowers=(), upper=""),
            directory="",
            cgroup=f"{self._cgroup}/{name}",
            log=Log(path=""),
            security=Security(capabilities=tuple(sorted(DEFAULT))),
            hostname=name,
            attachments=(Attachment(kind="none", network="none"),),
        )
        spec = msgspec.structs.replace(contained(plan), root=oci.Root(path=str(self._root)))
        return with_users(spec) if self._users else spec


def with_users(spec: oci.Spec) -> oci.Spec:
    """Add a user namespace, and let no setting name a group that isn't in it."""
    assert spec.linux
    mapping = (oci.IdMapping(container_id=0, host_id=FIRST, size=SIZE),)
    linux = msgspec.structs.replace(
        spec.linux,
        namespaces=(*spec.linux.namespaces, oci.Namespace(type="user")),
        uid_mappings=mapping,
        gid_mappings=mapping,
        sysctl=spec.linux.sysctl | {"net.ipv4.ping_group_range": f"0 {SIZE - 1}"},
    )
    return msgspec.structs.replace(spec, linux=linux)


def given(root: Path, copy: Path) -> Path:
    """Copy a root and give it to the users of the namespace."""
    shutil.copytree(root, copy, symlinks=True)
    for path in (copy, *copy.rglob("*")):
        os.chown(path, FIRST, FIRST, follow_symlinks=False)
    return copy


def _for_old_runtimes(spec: oci.Spec) -> bytes:
    """Say the same in older words: crun 1.8 doesn't know version 1.3.0, and runc 1.1 wants the default spelt out."""
    document = json.loads(oci.encode(msgspec.structs.replace(spec, oci_version="1.0.2")))
    for rule in document["linux"]["resources"]["devices"]:
        rule.setdefault("access", "rwm")
    return json.dumps(document).encode()
