"""Root file systems as drives for virtual machines: the image as one EROFS file, an ext4 file per instance.

    DIRECTORY/
    ├── image/<chain id>.erofs         all layers of an image in one, read-only; complete or absent
    ├── instance/<id>/{image,root.ext4}  what an instance writes (sparse), and the chain id of its image
    └── making/<random>                being made or deleted

The EROFS file is written from packed layers' trees and contents. Where a layer is unpacked, mkfs.erofs makes it from
all of them, stacked by overlayfs in a mount namespace of its own: on the host nothing is mounted at any moment.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal

from trivet.base.error import AlreadyExists
from trivet.base.tree import delete
from trivet.engine.snapshot import limit
from trivet.engine.snapshot.ext4 import fail, find, make_drive, run
from trivet.engine.snapshot.making import Making, disk_usage
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.engine.snapshot.snapshotter import Layered, Report, SnapshotNotFound, silent
from trivet.isolation.plan import Root
from trivet.kernel import overlay
from trivet.launch import spawn
from trivet.launch.operation import Exec, Mount, Operation, Propagation, Unshare
from trivet.oci.layer import chain_ids
from trivet.store.content import explaining_full

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
MOUNT_ATTR_RDONLY = 0x1

OVERLAY = ("upper", "work")
"""The directories of a drive that the guest's overlayfs has."""
PATH = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"


class DriveSnapshotter:
    """The snapshotter of the vm level; `size` is the virtual size of an instance's writable drive, in bytes."""

    form: Literal["mount", "drive", "disk"] = "drive"

    def __init__(self, directory: Path, overlay: OverlaySnapshotter, size: int = 10 << 30) -> None:
        self._directory = directory
        self._overlay = overlay
        self.size = size
        self._images = directory / "image"
        self._instances = directory / "instance"
        self._making = Making(directory / "making")
        self._lock = threading.Lock()  # what exists; held for moments
        self._work = threading.Lock()  # making images; held for seconds, taken before the other
        for each in (directory, self._images, self._instances):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def prepare(self, image: Layered, report: Report = silent) -> None:
        """Make the image's EROFS file if it isn't there."""
        target = self._image(image)
        if target.exists():
            return
        with self._work:
            if not target.exists():
                self._overlay.prepare(image, report)
                if not self._link_image(image, target):
                    report("drive", "making the drive", 0, 0)
                    self._make_image(image, target)

    def create(self, instance: str, image: Layered, size: int = 0) -> Root:
        """Make an instance's sparse ext4 file."""
        limit.check(size)
        while True:
            self.prepare(image)
            with self._lock:
                # Somebody may have pruned since `prepare`; once the instance names its image nobody can.
                if self._image(image).exists():
                    self._make_instance(instance, image, size)
                    return self.root(instance, image)

    def root(self, instance: str, image: Layered) -> Root:
        """Find an instance's drives again."""
        return Root(form=self.form, lowers=(str(self._image(image)),), upper=str(self._home(instance) / "root.ext4"))

    def usage(self, instance: str) -> int:
        """Measure what the instance's drive takes of the disk."""
        return disk_usage(self._home(instance) / "root.ext4")

    def remove(self, instance: str) -> None:
        """Delete an instance's drive."""
        self._making.discard(self._instances / instance)

    def instances(self) -> set[str]:
        """List the instances that have a drive."""
        return {path.name for path in self._instances.iterdir()}

    def sweep(self) -> None:
        """Delete what a crash left half-made or half-deleted; at start-up."""
        self._making.sweep()

    def prune(self, keep: Iterable[Layered], *, dry_run: bool = False, without: Collection[str] = ()) -> int:
        """Delete the drives of images that nobody of `keep` and no instance needs."""
        there = list(self._images.iterdir())
        needed = {self._image(image).name for image in keep}
        with self._work, self._lock:
            instances = self.instances().difference(without)
            needed |= {(self._instances / instance / "image").read_text() for instance in instances}
            useless = [path for path in there if path.name not in needed and path.exists()]
            useless += self._making.leftovers()
            freed = sum(disk_usage(path) for path in useless)
            for path in useless if not dry_run else ():
                self._making.discard(path)
        return freed

    def _image(self, image: Layered) -> Path:
        chains = chain_ids(layer.diff_id for layer in image.layers)
        return self._images / f"{chains[-1].partition(':')[2] if chains else 'empty'}.erofs"

    def _home(self, instance: str) -> Path:
        home = self._instances / instance
        if not home.is_dir():
            raise SnapshotNotFound(instance)
        return home

    def _link_image(self, image: Layered, target: Path) -> bool:
        """Take the file of a lone layer that is kept as EROFS; False where there is none."""
        if len(image.layers) != 1:
            return False
        file = self._overlay.layers.whole(chain_ids(layer.diff_id for layer in image.layers)[0])
        if file is not None:
            target.hardlink_to(file)
        return file is not None

    def _make_image(self, image: Layered, target: Path) -> None:
        with self._making.draft() as draft:
            file = draft / target.name
            chains = chain_ids(layer.diff_id for layer in image.layers)
            if not (chains and self._overlay.stacks.flatten(chains, file)):
                self._pack(image, draft / "view", file)
            file.chmod(0o400)
            file.rename(target)

    def _pack(self, image: Layered, view: Path, file: Path) -> None:
        program = find("mkfs.erofs")
        view.mkdir()
        done = spawn.run(make_image(program, self._overlay.view(image), view, file))
        if done.code:
            fail(f"drive {file.name[:12]}", file, done.error_output + done.output)

    def _make_instance(self, instance: str, image: Layered, size: int) -> None:
        home = self._instances / instance
        if home.exists():
            raise AlreadyExists(f"instance {instance} already has a drive")
        with explaining_full(home), self._making.draft() as draft:
            file, content = draft / "root.ext4", draft / "content"
            for name in OVERLAY:  # on a host this takes no time, for an emulated guest it is much code
                (content / name).mkdir(parents=True)
                (content / name).chmod(0o755)  # whatever the umask is: the former's mode is the root's
            run(make_drive(file, size or self.size, content), f"the drive of instance {instance[:12]}", file)
            delete(content)
            file.chmod(0o600)
            (draft / "image").write_text(self._image(image).name)
            draft.rename(home)


def make_image(program: str, layers: Iterable[str], view: Path, file: Path) -> list[Operation]:
    """Plan to stack layers (topmost first) at `view`, where nobody else sees it, and pack that into `file`."""
    return [
        Unshare(CLONE_NEWNS),
        Propagation("/", MS_REC | MS_PRIVATE),
        Mount(
            "overlay",
            "overlay",
            str(view),
            attributes=MOUNT_ATTR_RDONLY,
            options=(*(f"lowerdir+={layer}" for layer in layers), *overlay.OPTIONS),
            host=1,
        ),
        Exec((program, "--quiet", "--preserve-mtime", str(file), str(view)), (PATH,)),
    ]
