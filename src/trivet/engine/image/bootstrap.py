"""Images made from a distribution's packages: `bootstrap:debian/bookworm` becomes the image debian:bookworm.

mmdebstrap installs the smallest system in which apt works, from the machine's own package sources, which the
image keeps: `apt-get install` in a build asks where this machine asks. The same packages give the same image:
times are those of the suite's release (or SOURCE_DATE_EPOCH). What surprises in a container is taken out:
resolv.conf and hostname belong to the instance, and policy-rc.d keeps packages from starting services.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from trivet.base.clock import rfc3339
from trivet.base.error import InvalidArgument, Unavailable, Unsupported
from trivet.client.schema import Progress
from trivet.engine.image import apt
from trivet.engine.image.commit import Draft, scratch
from trivet.engine.image.model import ImageRecord, WrongPlatform
from trivet.engine.image.progress import Report
from trivet.engine.snapshot.snapshotter import Adopting
from trivet.isolation.plan import Root
from trivet.oci import platform as platforms
from trivet.oci.config import Config, History
from trivet.oci.layer import Layer
from trivet.oci.platform import Platform

if TYPE_CHECKING:
    from trivet.engine.image.image import Images

SCHEME = "bootstrap:"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HOOKS = (
    'rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',
    'printf "#!/bin/sh\\nexit 101\\n" > "$1/usr/sbin/policy-rc.d"; chmod 755 "$1/usr/sbin/policy-rc.d"',
)
# What mmdebstrap says that is worth a line of progress.
STEPS = ("running apt", "downloading", "extracting", "installing", "cleaning")
# Keys that the distribution's own packages bring into the image.
OWN_KEYS = re.compile(r"/usr/share/keyrings/(debian|ubuntu)-|/etc/apt/trusted\.gpg\.d/(debian|ubuntu)-")


class MalformedBootstrap(InvalidArgument):
    """A bootstrap reference that isn't `bootstrap:DISTRIBUTION/SUITE`."""

    def __init__(self, reference: str) -> None:
        super().__init__(
            f"malformed bootstrap reference {reference[:80]!r}: expected {SCHEME}DISTRIBUTION/SUITE",
            hint=f"e.g. {SCHEME}debian/bookworm",
        )


class BootstrapUnsupported(Unsupported):
    """A distribution this machine has no packages or tools for."""


class BootstrapFailed(Unavailable):
    """mmdebstrap gave up; the mirror is the usual reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot bootstrap {name}: {reason}", hint="does apt-get update work on this machine?")


def image_name(reference: str) -> str:
    """Tell what the image of a bootstrap reference is called: debian:bookworm. Raises `MalformedBootstrap`."""
    match = re.fullmatch(rf"{SCHEME}([a-z]{{2,20}})/([a-z]{{2,30}})", reference)
    if match is None:
        raise MalformedBootstrap(reference)
    return f"{match[1]}:{match[2]}"


def make(images: Images, reference: str, wanted: Platform, report: Report) -> ImageRecord:
    """Make the image. Raises `BootstrapUnsupported`, `BootstrapFailed`, `WrongPlatform`."""
    name = image_name(reference)
    distribution, suite = name.split(":")
    if shutil.which("mmdebstrap") is None:
        raise BootstrapUnsupported(
            f"cannot bootstrap {name}: mmdebstrap is not installed", hint="apt-get install mmdebstrap"
        )
    if not platforms.runs_here(wanted):
        raise WrongPlatform(name, str(wanted), str(platforms.host()), hint="bootstrap on a machine of that kind")
    sources = sources_of(distribution, suite)
    epoch = epoch_of(each for source in sources for each in source.suites)
    report(Progress(id="bootstrap", status=f"making {name} from this machine's package sources"))
    draft = scratch(wanted)
    with images.leases.hold(f"bootstrap of {name}") as lease, _root(images, draft) as (root, keep):
        install(_command(suite, wanted, sources, root), name, epoch, report)
        report(Progress(id="bootstrap", status="packing"))
        layer = images.layer(root, epoch=epoch, lease=lease)
        if layer is None:
            raise BootstrapFailed(name, "mmdebstrap made nothing")
        created = rfc3339(epoch * 1_000_000_000)
        history = History(created=created, created_by=f"trivet pull {reference}")
        config = Config(env=(f"PATH={PATH}",), cmd=("bash",))
        record = images.create(draft.with_layer(layer, history=history, config=config), [name])
        keep(layer)
    report(Progress(id="bootstrap", status=f"made {name}"))
    return record


@contextmanager
def _root(images: Images, draft: Draft) -> Iterator[tuple[Root, Callable[[Layer], None]]]:
    """Hand out an empty root to install into, and a function that keeps it as the unpacked form of a layer."""
    snapshotter = images.snapshotters["mount"]
    key = f"bootstrap-{secrets.token_hex(4)}"
    root = snapshotter.create(key, draft)

    def keep(layer: Layer) -> None:
        if isinstance(snapshotter, Adopting):
            snapshotter.adopt(root, draft, layer)

    try:
        yield root, keep
    finally:
        snapshotter.remove(key)


def sources_of(distribution: str, suite: str) -> list[apt.Source]:
    """Take the machine's sources for its own suite and ask them for the wanted one."""
    system = _system()
    own = system.get("VERSION_CODENAME", "")
    if distribution != system.get("ID") or not own:
        raise BootstrapUnsupported(
            f"cannot bootstrap {distribution}:{suite}: this machine's package sources are for {system.get('ID', '?')}",
            hint=f"pull it from a registry: trivet pull {distribution}:{suite}",
        )
    found = apt.for_suite(apt.sources(), own, suite)
    if not found:
        raise BootstrapUnsupported(
            f"cannot bootstrap {distribution}:{suite}: no package sources for {own} in {apt.ETC}"
        )
    return found


def _system() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip("\"'") for key, equals, value in (line.partition("=") for line in lines) if equals}


def epoch_of(suites: Iterable[str]) -> int:
    """Tell the time that all that is made has: the suite's release, or SOURCE_DATE_EPOCH."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else apt.release_time(suites) or int(time.time())


def _command(suite: str, wanted: Platform, sources: list[apt.Source], root: Root) -> list[str]:
    """Compose the command line, in a mount namespace of its own so that nothing stays mounted, whatever happens."""
    architecture = platforms.DEBIAN.get(wanted.architecture, wanted.architecture)
    command = ["unshare", "--mount", "--propagation", "private", "mmdebstrap", "--mode=root", "--variant=minbase"]
    command += ["--format=directory", f"--architectures={architecture}", "--dpkgopt=force-unsafe-io"]
    command += [f"--aptopt={setting}" for setting in apt.settings()]
    if any(uri.startswith("https:") for source in sources for uri in source.uris):
        command.append("--include=ca-certificates")
    command += [f"--customize-hook={hook}" for hook in (*HOOKS, *key_hooks(sources))]
    file = Path(root.upper).with_name("trivet.sources")
    file.write_text("\n".join(source.deb822() for source in sources))
    return [*command, suite, root.upper, str(file)]


def key_hooks(sources: list[apt.Source]) -> list[str]:
    """Bring keys into the image that its own packages don't: those the sources name, or else all trusted ones."""
    named = [source.options.get("Signed-By", "") for source in sources]
    paths = {path for text in named if "\n" not in text for path in text.split() if path.startswith("/")}
    if not all(named):
        paths |= {str(path) for path in (apt.ETC / "trusted.gpg.d").glob("*")}
    foreign = sorted(path for path in paths if not OWN_KEYS.match(path))
    return [f"upload {shlex.quote(path)} {shlex.quote(path)}" for path in foreign]


def install(command: list[str], name: str, epoch: int, report: Report) -> None:
    """Run mmdebstrap; its own words are progress, and the reason if it fails."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    try:
        complaint = _follow(cast(BinaryIO, process.stderr), report)
    finally:
        if process.poll() is None:
            process.terminate()
        code = process.wait()
    if code:
        raise BootstrapFailed(name, complaint or f"mmdebstrap ended with {code}")


def _follow(stderr: BinaryIO, report: Report) -> str:
    """Pass on what mmdebstrap says until it ends; return its last complaint."""
    complaint = ""
    for raw in stderr:
        line = raw.decode(errors="replace").strip()
        word, _, rest = line.partition(": ")
        if word == "I" and rest.startswith(STEPS):
            report(Progress(id="bootstrap", status=rest))
        elif word in ("E", "W") and not rest.startswith("mmdebstrap failed"):
            complaint = rest
    return complaint
