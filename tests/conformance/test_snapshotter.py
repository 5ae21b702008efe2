"""What every snapshotter does, whatever form its roots have: looked at from inside, through real mounts."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from trivet.base import tree
from trivet.base.error import AlreadyExists, Corrupt
from trivet.engine.image.commit import Draft, commit, scratch
from trivet.engine.image.image import Images
from trivet.engine.snapshot.drive import DriveSnapshotter
from trivet.engine.snapshot.layer import Kind
from trivet.engine.snapshot.overlay import OverlaySnapshotter
from trivet.engine.snapshot.snapshotter import SnapshotNotFound, Snapshotter
from trivet.engine.snapshot.stream import Budget
from trivet.isolation.plan import Root
from trivet.kernel import overlay
from trivet.oci import platform as platforms
from trivet.oci.config import History
from trivet.oci.layer import Layer
from trivet.store.content import ContentStore, StoreFull
from trivet.store.lease import Leases
from trivet.store.record import Records

pytestmark = pytest.mark.needs("root", "mkfs.erofs", "mke2fs")


class Store:
    """A content store, the snapshotter under test over it, and images for the asking."""

    def __init__(self, root: Path, form: str, budget: Budget | None = None) -> None:
        kind = Kind(form) if form in ("erofs", "copy") else Kind.EROFS if form == "drive of erofs" else Kind.OVERLAY
        self.root = root
        self.content = ContentStore(root / "content")
        self.records = Records(root / "record.db")
        self.overlay = OverlaySnapshotter(root / "overlay", self.content, budget, kind)
        self.snapshotter: Snapshotter = self.overlay
        if form.startswith("drive"):
            self.snapshotter = DriveSnapshotter(root / "drive", self.overlay, size=64 << 20)
        self.images = Images(self.content, self.records, {"mount": self.overlay}, Leases(self.records))

    def draft(self, *tars: bytes) -> Draft:
        """Make an image whose layers have these contents, bottom first."""
        draft = scratch(platforms.host())
        for data in tars:
            digest = self.content.add(data)
            layer = Layer(digest=digest, size=len(data), media_type="tar", diff_id=digest)
            draft = draft.with_layer(layer, history=History())
        return draft

    def trash(self) -> list[Path]:
        """What is half-made on disk."""
        tree.settle()
        return [path for each in self.root.glob("*/making") for path in each.iterdir()]


def tar(files: dict[str, bytes | None]) -> bytes:
    """Make a tar; None is a directory, names in angle brackets link there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if data is None else 0o644
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            archive.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


LOWER = tar({"a": b"one", "b": b"one", "dir": None, "dir/x": b"x", "dir/y": b"y", "kept/z": b"z"})
UPPER = tar({"b": b"two", ".wh.a": b"", "dir": None, "dir/.wh..wh..opq": b"", "dir/new": b"new", "kept/.wh.q": b""})


@pytest.fixture(params=["mount", "erofs", "copy", "drive", "drive of erofs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with a snapshotter of each form."""
    made = Store(tmp_path, request.param)
    yield made
    made.overlay.hide_all()
    made.records.close()


def inside(root: Root, script: str) -> str:
    """Run a shell script in the directory an instance would have as its root; in a mount namespace of its own."""
    point = Path(root.upper).with_name("point")
    before, lowers, upper, work = "", ":".join(root.lowers), root.upper, root.work
    if root.form == "drive":
        lower, drive = point / "lower", point / "drive"
        before = (
            f"mkdir -p {lower} {drive} && mount -t erofs -o loop,ro {root.lowers[0]} {lower} && "
            f"mount -o loop {root.upper} {drive} && mkdir -p {drive}/upper {drive}/work && "
        )
        lowers, upper, work = str(lower), f"{drive}/upper", f"{drive}/work"
    options = ",".join((f"lowerdir={lowers}", f"upperdir={upper}", f"workdir={work}", *overlay.OPTIONS))
    shown = f"mount --bind {upper}" if root.copied else f"mount -t overlay -o {options} overlay"
    commands = (
        f"mkdir -p {point} && mount -t tmpfs point {point} && {before}"
        f"mkdir {point}/root && {shown} {point}/root && cd {point}/root && {{ {script}\n}}"
    )
    done = subprocess.run(["unshare", "--mount", "sh", "-ec", commands], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_layers_are_stacked(store: Store) -> None:
    """An instance sees the union of its image's layers: replaced, deleted and hidden files included."""
    root = store.snapshotter.create("one", store.draft(LOWER, UPPER))
    assert root.form == store.snapshotter.form
    assert inside(root, "find . -type f | sort; cat b").splitlines() == ["./b", "./dir/new", "./kept/z", "two"]


def test_instances_write_apart(store: Store) -> None:
    """What one instance writes stays, and no other instance or later one sees it."""
    image = store.draft(LOWER)
    first, second = store.snapshotter.create("one", image), store.snapshotter.create("two", image)
    inside(first, "echo changed > a; rm b; mkdir fresh")
    assert inside(store.snapshotter.root("one", image), "cat a; ls").split() == ["changed", "a", "dir", "fresh", "kept"]
    assert inside(second, "cat a; ls").split() == ["one", "a", "b", "dir", "kept"] or inside(second, "cat a") == "one"
    assert inside(store.snapshotter.create("three", image), "cat a") == "one"


def test_root_directory_is_the_images(store: Store) -> None:
    """Owner and mode of `/` come from the image."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("./")
        info.type, info.mode, info.uid = tarfile.DIRTYPE, 0o711, 42
        archive.addfile(info)
    root = store.snapshotter.create("one", store.draft(data.getvalue()))
    if root.form == "mount":
        assert inside(root, "stat -c '%a %u' .").split() == ["711", "42"]
    else:
        assert Path(root.lowers[0]).stat().st_size > 0


def test_root_directory_is_open_to_all(store: Store) -> None:
    """Whatever the umask of the engine is, every user of an instance may go into its root."""
    before = os.umask(0o077)
    try:
        root = store.snapshotter.create("one", store.draft(LOWER))
    finally:
        os.umask(before)
    assert inside(root, "stat -c %a .").strip() == "755"


def test_one_lower_for_all_layers(store: Store) -> None:
    """However many layers an image has: one mount holds those kept as EROFS, one overlay those kept as directories."""
    many = 20 if store.overlay.kind == Kind.OVERLAY else 60  # mount(8), which `inside` uses, ends at 4096 bytes
    tars = [tar({f"d{index}": None, f"d{index}/f": b"%d" % index, "last": b"%d" % index}) for index in range(many)]
    tars[10:10] = [tar({"d7/.wh.f": b"", ".wh.d8": b""})]
    root = store.snapshotter.create("one", store.draft(*tars))
    shown = inside(root, "cat last; echo; ls -d d* | wc -l; cat d9/f d0/f; echo; ls d7 | wc -l; ls -d d8 || true")
    assert shown.split() == [f"{many - 1}", f"{many - 1}", "90", "0"]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"{store.root}/" in line]
    if store.overlay.kind == Kind.EROFS:
        assert len(root.lowers) == 1
    assert len(mounts) == (store.overlay.kind == Kind.EROFS)
    store.snapshotter.remove("one")
    store.snapshotter.prune([])
    store.overlay.prune([])
    assert not any(f"{store.root}/" in line for line in Path("/proc/self/mounts").read_text().splitlines())


def test_a_step_on_top_of_packed_layers(store: Store) -> None:
    """What a build wrote stays the directory it was written in, whatever is below, and further layers lie upon it."""
    if store.overlay.kind == Kind.COPY:
        return
    image = store.draft(LOWER, UPPER)
    root = store.overlay.create("step", image)
    inside(root, "echo new > n; rm -r dir; mkdir dir")
    layer = store.images.layer(root)
    assert layer is not None
    store.overlay.adopt(root, image, layer)
    top = tar({"dir/.wh.nothing": b"", ".wh.n": b"", "kept/.wh.z": b"", "kept/two": b"2", "fresh/.wh.x": b""})
    further = store.content.add(top)
    last = Layer(digest=further, size=len(top), media_type="tar", diff_id=further)
    draft = image.with_layer(layer, history=History()).with_layer(last, history=History())
    shown = inside(store.snapshotter.create("one", draft), "ls -R; cat kept/two").split()
    assert shown == [".:", "b", "dir", "fresh", "kept", "./dir:", "./fresh:", "./kept:", "two", "2"]


def test_layers_of_older_engines(store: Store) -> None:
    """An EROFS layer without a tree beside it is mounted by itself, alone and below newer ones."""
    if store.overlay.kind != Kind.EROFS:
        return
    old = store.draft(LOWER)
    store.overlay.prepare(old)
    store.overlay.stacks.discard(store.overlay.stacks.entries()[0])
    store.overlay.layers.tree(old.layers[0].diff_id).unlink()
    assert "a" in inside(store.snapshotter.create("one", old), "ls").split()
    root = store.snapshotter.create("two", store.draft(LOWER, UPPER))
    assert inside(root, "find . -type f | sort; cat b").splitlines() == ["./b", "./dir/new", "./kept/z", "two"]
    store.overlay.hide_all()
    store.overlay.show_all()
    assert store.snapshotter.prune([old]) == 0 or store.snapshotter.form == "drive"
    assert inside(root, "cat b") == "two"


def test_empty_image(store: Store) -> None:
    """An image without layers gives an empty, writable root."""
    root = store.snapshotter.create("one", store.draft())
    assert inside(root, "ls -A; touch x; ls -A").split() == ["x"]


def test_prepare_is_done_once(store: Store) -> None:
    """Preparing again changes nothing; concurrent preparations end with one result and no rubbish."""
    image = store.draft(LOWER, UPPER)
    errors: list[BaseException] = []

    def prepare() -> None:
        try:
            store.snapshotter.prepare(image)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    before = {
        path: path.stat().st_ino for path in store.root.rglob("*") if path.name in ("fs",) or path.suffix == ".erofs"
    }
    store.snapshotter.prepare(image)
    assert {path: path.stat().st_ino for path in before} == before
    assert store.trash() == []


def test_a_second_root_for_an_instance_is_refused(store: Store) -> None:
    """An instance has one writable layer; making another is a conflict, and the first one stays."""
    image = store.draft(LOWER)
    root = store.snapshotter.create("one", image)
    inside(root, "echo mine > a")
    with pytest.raises(AlreadyExists, match="instance one already has"):
        store.snapshotter.create("one", image)
    assert inside(root, "cat a") == "mine\n"
    assert store.trash() == []


def test_remove_is_complete_and_repeatable(store: Store) -> None:
    """A removed instance leaves nothing, removing it again is fine, and asking for it is an error."""
    image = store.draft(LOWER)
    store.snapshotter.create("one", image)
    assert store.snapshotter.instances() == {"one"}
    store.snapshotter.remove("one")
    store.snapshotter.remove("one")
    assert store.snapshotter.instances() == set()
    assert store.trash() == []
    with pytest.raises(SnapshotNotFound, match="instance one has no writable layer"):
        store.snapshotter.root("one", image)
    with pytest.raises(SnapshotNotFound):
        store.snapshotter.usage("one")


def test_usage_grows_with_what_is_written(store: Store) -> None:
    """The size of the writable layer is what it takes on disk."""
    root = store.snapshotter.create("one", store.draft(LOWER))
    before = store.snapshotter.usage("one")
    inside(root, "dd if=/dev/zero of=big bs=1M count=8 status=none; sync")
    assert 8 << 20 <= store.snapshotter.usage("one") - before < 12 << 20


def test_prune_keeps_what_instances_need(store: Store) -> None:
    """What no image and no instance needs goes; an instance's image stays even if nobody keeps it."""
    used, unused = store.draft(LOWER), store.draft(UPPER)
    root = store.snapshotter.create("one", used)
    store.snapshotter.prepare(unused)
    assert store.snapshotter.prune([used, unused], dry_run=True) == 0
    freed = store.snapshotter.prune([], dry_run=True)
    assert store.snapshotter.prune([]) == freed > 0
    assert "a" in inside(root, "ls").split()
    store.snapshotter.remove("one")
    assert store.snapshotter.prune([]) > 0
    assert "dir" in inside(store.snapshotter.create("two", unused), "ls").split()


def test_a_half_made_layer_is_made_again(store: Store) -> None:
    """What a crash left in the middle is not taken for the real thing, and prune removes it."""
    image = store.draft(LOWER)
    for making in (path for name in ("overlay", "drive") for path in store.root.glob(f"{name}/making")):
        (making / "0123456789abcdef" / "fs").mkdir(parents=True)
    root = store.snapshotter.create("one", image)
    assert "a" in inside(root, "ls").split()
    store.snapshotter.prune([image])
    store.overlay.prune([image])
    assert store.trash() == []


def test_killed_while_unpacking(store: Store) -> None:
    """Killed at any moment, an unpacking leaves a complete layer or none; the next one finishes the work."""
    image = store.draft(tar({f"d{index % 50}/f{index}": b"x" * 100 for index in range(3000)}))
    program = (
        "import sys; from pathlib import Path; import msgspec\n"
        "from trivet.engine.image.commit import Draft; from trivet.engine.snapshot.overlay import OverlaySnapshotter\n"
        "from trivet.store.content import ContentStore\n"
        "root = Path(sys.argv[1]); image = msgspec.json.decode(sys.stdin.buffer.read(), type=Draft)\n"
        "print(flush=True); OverlaySnapshotter(root / 'overlay', ContentStore(root / 'content')).prepare(image)"
    )
    for delay in (0.01, 0.05, 0.1, 0.2):
        command = [sys.executable, "-c", program, str(store.root)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(msgspec.json.encode(image))
        child.stdin.close()
        child.stdout.readline()
        time.sleep(delay)
        child.kill()
        child.wait(10)
        child.stdout.close()
        lower = Path(store.overlay.lowers(image)[0])
        assert not lower.exists() or sum(1 for path in lower.rglob("f*")) == 3000
    root = store.snapshotter.create("one", image)
    assert inside(root, "find . -type f | wc -l").strip() == "3000"
    store.overlay.prune([image])
    assert store.trash() == []


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
def test_a_damaged_layer_is_corrupt(store: Store, damage: str) -> None:
    """A layer that isn't what its digest says is refused by name, and nothing of it stays."""
    image = store.draft(LOWER)
    path = store.content.path(image.layers[0].digest)
    data = bytearray(path.read_bytes())
    data[520] ^= 1
    path.chmod(0o600)
    path.write_bytes({"flipped": bytes(data), "truncated": bytes(data[:700]), "missing": b""}[damage])
    with pytest.raises(Corrupt, match=r"layer [0-9a-f]{12}"):
        store.snapshotter.create("one", image)
    assert store.snapshotter.instances() == set()
    assert store.trash() == []


def test_a_layer_of_lies_is_corrupt(store: Store) -> None:
    """A layer whose diff id is wrong is refused although the blob itself is whole."""
    image = store.draft(LOWER)
    lie = msgspec.structs.replace(image.layers[0], diff_id="sha256:" + "0" * 64)
    with pytest.raises(Corrupt, match=r"layer [0-9a-f]{12} is corrupt: its digest is"):
        store.snapshotter.prepare(Draft(config=image.config, layers=(lie,)))
    assert store.trash() == []


def test_a_full_disk_leaves_nothing(store: Store) -> None:
    """When there is no room to unpack, the error names the file and nothing half-made stays."""
    import resource

    image = store.draft(tar({"big": bytes(1 << 20)}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(StoreFull, match=r"cannot write (big|\S+/image)"):
            store.snapshotter.create("one", image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.trash() == []


def commit_changes(store: Store, script: str, *, epoch: int | None = None, tars: Sequence[bytes] = (LOWER,)) -> Draft:
    """Run a script in a container's root over an image and commit the result."""
    image = store.draft(*tars)
    name = f"step-{os.urandom(4).hex()}"
    root = store.overlay.create(name, image)
    inside(root, script)
    with store.images.leases.hold("test") as lease:
        return commit(store.images, root, image, history=History(created_by=script), epoch=epoch, lease=lease)


def test_what_was_changed_becomes_a_layer(store: Store) -> None:
    """Changes committed on top of an image show in instances of the result: new, replaced, deleted, recreated."""
    draft = commit_changes(
        store, "echo new > n; ln n m; rm a; rm -r dir; mkdir dir; echo d > dir/d; chmod 4711 b; ln -s n s"
    )
    root = store.snapshotter.create("after", draft)
    shown = inside(root, "find . -type f | sort; stat -c %a b; stat -c %h n; readlink s; cat m").split()
    assert shown == ["./b", "./dir/d", "./kept/z", "./m", "./n", "4711", "2", "n", "new"]
    assert draft.config.history is not None
    assert len(draft.layers) == len(draft.config.rootfs.diff_ids) == 2


def test_a_committed_layer_need_not_be_unpacked(store: Store) -> None:
    """What was committed can be kept as the layer's unpacked form; the instance it was written by is gone."""
    image = store.draft(LOWER)
    root = store.overlay.create("step", image)
    inside(root, "echo new > n; rm a")
    layer = store.images.layer(root)
    assert layer is not None
    store.overlay.adopt(root, image, layer)
    assert store.overlay.instances() == set()
    draft = image.with_layer(layer, history=History())
    if not root.copied:
        store.content.delete(layer.digest)  # it would be needed to unpack
    assert inside(store.snapshotter.create("one", draft), "ls; cat n").split() == ["b", "dir", "kept", "n", "new"]
    assert store.trash() == []


def test_no_change_gives_no_layer(store: Store) -> None:
    """A step that only reads adds an empty history entry."""
    draft = commit_changes(store, "cat a")
    assert len(draft.layers) == 1
    assert draft.config.history is not None
    assert draft.config.history[-1].empty_layer


def test_committing_is_reproducible(store: Store) -> None:
    """With a fixed epoch the same changes give the same digest, whenever and in whatever order they are made."""
    first = commit_changes(store, "echo 1 > one; echo 2 > two; mkdir d", epoch=1_000_000)
    second = commit_changes(store, "mkdir d; echo 2 > two; sleep 1.1; echo 1 > one", epoch=1_000_000)
    assert first.layers[-1] == second.layers[-1]
    assert first.layers[-1] != commit_changes(store, "echo 1 > one; echo 2 > two; mkdir d", epoch=2).layers[-1]


def test_idle_whiteouts_are_not_seen(store: Store) -> None:
    """Whiteouts where there is nothing below, or below an opaque directory, don't show as broken names."""
    upper = tar({"fresh/.wh.q": b"", "fresh/f": b"", "dir/.wh..wh..opq": b"", "dir/.wh.x": b"", "dir/.wh.nothing": b""})
    for number, tars in enumerate(([upper], [LOWER, upper])):
        root = store.snapshotter.create(f"number-{number}", store.draft(*tars))
        assert inside(root, "ls -R fresh dir; find fresh dir -type f").split() == ["dir:", "fresh:", "f", "fresh/f"]


def test_a_directory_of_an_image_can_be_copied_from(store: Store) -> None:
    """A directory is shown with all layers merged and links followed inside the image; none is an empty one."""
    lower = tar({"var/lib/app/one": b"1", "var/lib/app/two": b"2"})
    upper = tar({"var/lib/app/.wh.one": b"", "var/lib/app/three": b"3"})
    image = store.draft(lower, upper)
    shown = store.overlay.directory(image, "/var/lib/../lib/app")
    assert {path.name: path.read_bytes() for path in shown.iterdir()} == {"two": b"2", "three": b"3"}
    assert store.overlay.directory(image, "/var/lib/app") == store.overlay.directory(image, "/var/lib/app")
    assert list(store.overlay.directory(image, "/nowhere").iterdir()) == []
    assert list(store.overlay.directory(image, "/../../../etc").iterdir()) == []


def test_layers_come_in_any_order(store: Store) -> None:
    """Layers unpacked topmost first, and side by side, make the image that those in order make."""
    idle = tar({"dir/.wh.x": b"", "fresh/.wh.gone": b"", "fresh/f": b"", "kept/.wh.z": b""})
    image = store.draft(LOWER, UPPER, idle)
    piles = [Draft(config=image.config, layers=image.layers[: index + 1]) for index in range(3)]
    for pile in (piles[2], piles[0], piles[2], piles[1]):
        store.overlay.unpack(pile)
    assert inside(store.snapshotter.create("one", image), "find . | sort").split() == [
        *(".", "./b", "./dir", "./dir/new", "./fresh", "./fresh/f", "./kept")
    ]
    assert store.trash() == []


def rights(*rows: tuple[int, int, int]) -> bytes:
    """Spell an access control list as Linux does: tag, rights and id of each entry."""
    nobody = (1 << 32) - 1
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, key if tag in (2, 8) else nobody) for tag, bits, key in rows
    )


OWNER, USER, GROUP, MASK, OTHER = 1, 2, 4, 16, 32
GIVEN = rights((OWNER, 6, 0), (USER, 7, 1000), (GROUP, 4, 0), (MASK, 7, 0), (OTHER, 0, 0))
PLAIN = rights((OWNER, 6, 0), (GROUP, 4, 0), (OTHER, 0, 0))
DISORDER = rights((USER, 7, 1000), (OWNER, 6, 0), (GROUP, 4, 0), (MASK, 7, 0), (OTHER, 0, 0))
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


def attributed(*files: tuple[str, bytes, dict[str, bytes]]) -> bytes:
    """Make a tar of files of these kinds with extended attributes; modes are 750 and 640."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, attributes in files:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.linkname = kind, 0o750 if kind == tarfile.DIRTYPE else 0o640, "f"
            values = {key: value.decode("utf-8", "surrogateescape") for key, value in attributes.items()}
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in values.items()}
            archive.addfile(info)
    return buffer.getvalue()


LIST = (
    "import json, os; names = ('d', 'd/new', 'd/e', 'f', 'l', 'p', 'odd', 'plain', 'x')\n"
    "found = {n: {k: os.getxattr(n, k, follow_symlinks=False).hex() for k in os.listxattr(n, follow_symlinks=False)}"
    " for n in names}\n"
    "print(json.dumps({n: {k: v for k, v in found[n].items() if not k.startswith('security.')} for n in names}))"
)


def test_access_control_lists_are_kept(store: Store) -> None:
    """Each file has the list that its layer gives it, as far as its mode allows, none from its directory."""
    layer = attributed(
        ("d", tarfile.DIRTYPE, {DEFAULT: GIVEN}),
        ("d/new", tarfile.REGTYPE, {}),
        ("d/e", tarfile.DIRTYPE, {}),
        ("f", tarfile.REGTYPE, {ACCESS: GIVEN, "user.x": b"1"}),
        ("l", tarfile.SYMTYPE, {ACCESS: GIVEN}),
        ("p", tarfile.FIFOTYPE, {ACCESS: GIVEN}),
        ("odd", tarfile.REGTYPE, {ACCESS: b"what is it"}),
        ("plain", tarfile.REGTYPE, {ACCESS: PLAIN}),
        ("x", tarfile.REGTYPE, {"strange.name": b"1"}),
    )
    root = store.snapshotter.create("one", store.draft(layer))
    given = rights((OWNER, 6, 0), (USER, 7, 1000), (GROUP, 4, 0), (MASK, 4, 0), (OTHER, 0, 0)).hex()
    found = json.loads(inside(root, f'{sys.executable} -c "{LIST}"'))
    assert {name: value for name, value in found.items() if value} == {
        "d": {DEFAULT: GIVEN.hex()},
        "f": {ACCESS: given, "user.x": b"1".hex()},
        "p": {ACCESS: given},
    }


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({ACCESS: DISORDER}, "its access control list is in disorder"),
        ({ACCESS: GIVEN[:-8]}, "its access control list has no end"),
        ({ACCESS: GIVEN[:-3]}, "its access control list is cut off"),
        ({DEFAULT: GIVEN}, "only a directory has a default access control list"),
    ],
)
def test_a_list_that_no_kernel_takes_is_corrupt(store: Store, attributes: dict[str, bytes], said: str) -> None:
    """A broken access control list is an error that names the file, also where no kernel is asked."""
    with pytest.raises(Corrupt, match=said):
        store.snapshotter.create("one", store.draft(attributed(("f", tarfile.REGTYPE, attributes))))
    assert store.trash() == []
