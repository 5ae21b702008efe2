"""Mounts and files below a hostile root: nothing outside it changes, whatever its links say."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from trivet.launch.operation import (
    Bind,
    Directory,
    Exec,
    File,
    Mask,
    Mount,
    Node,
    Operation,
    Pivot,
    Propagation,
    ReadOnly,
    RemountRoot,
    Root,
    Symlink,
    Unmount,
    Unshare,
    WorkingDirectory,
)
from trivet.launch.spawn import Completed, LaunchError, run

pytestmark = pytest.mark.needs("root")

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 1 << 14 | 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)
APART: list[Operation] = [Unshare(CLONE_NEWNS), Propagation("/", MS_REC_PRIVATE)]


def act(root: Path, *operations: Operation, script: str = "true") -> Completed:
    """Carry out operations below a root in a mount namespace of their own, then look with a shell from outside."""
    plan = [*APART, Bind(str(root), str(root), host=1), Root(str(root)), *operations]
    return run([*plan, Exec(("sh", "-c", script, "sh", str(root)), ENVIRONMENT)], timeout=20)


def picture(directory: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a directory: mode, owner and content."""
    found = {}
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes().hex() if path.is_file() else ""
        found[str(path)] = (status.st_mode, status.st_uid, hashlib.sha256(content.encode()).hexdigest())
    return found


def mounts_of(directory: Path) -> list[str]:
    """The host's mounts that have to do with a directory; others come and go on a busy machine."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image's root beside a directory that must not change."""
    outside = tmp_path / "outside"
    (outside / "etc").mkdir(parents=True)
    (outside / "etc/passwd").write_text("canary\n")
    (outside / "file").write_text("canary\n")
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    return root


def absolute(root: Path, name: str, outside: Path) -> None:
    (root / name).symlink_to(outside)


def relative(root: Path, name: str, outside: Path) -> None:
    (root / name).symlink_to("../outside")


def deep(root: Path, name: str, outside: Path) -> None:
    (root / name).symlink_to("../" * 30 + str(outside).lstrip("/"))


def chained(root: Path, name: str, outside: Path) -> None:
    (root / "one").symlink_to("/two")
    (root / "two").symlink_to("real/../../outside")
    (root / name).symlink_to("one")


def dangling(root: Path, name: str, outside: Path) -> None:
    (root / name).symlink_to("../outside/not-there-yet")


def magic(root: Path, name: str, outside: Path) -> None:
    (root / name).symlink_to(f"/proc/self/root{outside}")


def looping(root: Path, name: str, outside: Path) -> None:
    (root / name).symlink_to(name)


TRAPS = [absolute, relative, deep, chained, dangling, magic, looping]
DEEDS: dict[str, Callable[[str, Path], Operation]] = {
    "mount": lambda target, source: Mount("tmpfs", "tmpfs", target),
    "mount below": lambda target, source: Mount("tmpfs", "tmpfs", f"{target}/etc"),
    "bind": lambda target, source: Bind(str(source), target),
    "bind a file": lambda target, source: Bind("/etc/hostname", f"{target}/etc/passwd"),
    "directory": lambda target, source: Directory(f"{target}/new/deeper", 0o700, 7, 7),
    "node": lambda target, source: Node(f"{target}/null", stat.S_IFCHR | 0o666, 1, 3, 7, 7),
    "symlink": lambda target, source: Symlink(f"{target}/link", "x"),
    "file": lambda target, source: File(f"{target}/file", b"overwritten", 0o600, 7, 7),
    "mask": lambda target, source: Mask(f"{target}/etc/passwd"),
    "read-only": lambda target, source: ReadOnly(target),
    "working directory": lambda target, source: WorkingDirectory(target, 1),
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("form", ["{}", "{}/", "/{}", "real/../{}", "../../{}"])
def test_no_link_leads_out_of_the_root(
    root: Path, deed: str, form: str, trap: Callable[[Path, str, Path], None]
) -> None:
    """Whatever the image's `dev` is, an operation on it changes nothing outside and mounts nothing there."""
    outside = root.parent / "outside"
    trap(root, "dev", outside)
    before = picture(outside)
    mounts = mounts_of(root.parent)
    try:
        done = act(root, DEEDS[deed](form.format("dev"), root / "real"), script="cat /proc/self/mountinfo; pwd")
    except LaunchError:
        pass
    else:
        *lines, cwd = done.output.decode().splitlines()
        targets = [line.split()[4] for line in lines]
        assert not [target for target in targets if target.startswith(str(outside))]
        if deed == "working directory":
            assert cwd.startswith(str(root))
    assert picture(outside) == before
    assert mounts_of(root.parent) == mounts


def test_a_dangling_link_of_the_image_is_filled_inside(root: Path) -> None:
    """A bind on /etc/resolv.conf -> ../run/resolve/stub.conf makes the link's target and mounts there."""
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
    done = act(
        root, Bind(str(root.parent / "outside/file"), "/etc/resolv.conf"), script='cat "$1/run/resolve/stub.conf"'
    )
    assert done.output == b"canary\n"
    assert (root / "run/resolve/stub.conf").read_bytes() == b""


def test_a_mount_has_its_options_and_attributes(root: Path) -> None:
    """Size and flags of a tmpfs are those asked for."""
    mount = Mount("tmpfs", "shm", "/dev/shm", ATTR_NOSUID | ATTR_NODEV, ("size=65536", "mode=1777"))
    line = act(root, mount, script='grep "$1/dev/shm" /proc/self/mountinfo').output.decode()
    assert "nosuid,nodev" in line
    assert "size=64k" in line


def test_the_kernels_own_words_are_in_the_failure(root: Path) -> None:
    """A wrong option is named."""
    with pytest.raises(LaunchError, match="nonsense") as caught:
        act(root, Mount("tmpfs", "tmpfs", "/real", 0, ("nonsense=1",)))
    assert isinstance(caught.value.operation, Mount)
    act(root, Mount("tmpfs", "tmpfs", "/real", 0, ("nonsense=1",), optional=1))


def test_overlay_layers_are_given_one_by_one(root: Path, tmp_path: Path) -> None:
    """Layers stack in the order given, and writes go to the upper directory."""
    layers = [tmp_path / f"layer{i}" for i in range(3)]
    for index, layer in enumerate(layers):
        layer.mkdir()
        (layer / "name").write_text(f"{index}")
        (layer / f"only{index}").write_text("")
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    options = (*(f"lowerdir+={layer}" for layer in layers), f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work")
    done = act(
        root, Mount("overlay", "overlay", "/real", 0, options), script='cd "$1/real"; ls; cat name; echo new > name'
    )
    assert done.output == b"name\nonly0\nonly1\nonly2\n0"
    assert (tmp_path / "upper/name").read_text() == "new\n"
    assert (layers[0] / "name").read_text() == "0"


def test_a_read_only_bind_can_not_be_written(root: Path) -> None:
    """Attributes of a bind apply from the first moment."""
    source = root.parent / "outside"
    done = act(root, Bind(str(source), "/data", attributes=ATTR_RDONLY), script='echo x > "$1/data/file"; echo $?')
    assert done.output != b"0\n"
    assert b"Read-only" in done.error_output


def test_masks_hide_files_and_directories(root: Path) -> None:
    """A masked file reads as empty, a masked directory is empty and can't be written; missing ones are fine."""
    (root / "secret").write_text("secret")
    (root / "hidden").mkdir()
    (root / "hidden/file").write_text("secret")
    script = 'cat "$1/secret"; ls -A "$1/hidden"; touch "$1/hidden/x" || echo refused; stat -c %F "$1/secret"'
    done = act(root, Mask("/secret"), Mask("/hidden"), Mask("/missing"), Mask("/secret/below"), script=script)
    assert done.output == b"refused\ncharacter special file\n"


def test_a_mask_is_made_of_the_null_device_only(root: Path) -> None:
    """After the pivot an image's own /dev/null is not trusted (CVE-2025-31133)."""
    (root / "dev").mkdir()
    (root / "secret").write_text("secret")
    (root / "dev/null").write_text("not the null device")
    with pytest.raises(LaunchError, match="not the null device"):
        act(root, Pivot(), Mask("/secret"))


def test_read_only_covers_what_is_mounted_below(root: Path) -> None:
    """ReadOnly is recursive."""
    done = act(
        root,
        Mount("tmpfs", "tmpfs", "/real/inner"),
        ReadOnly("/real"),
        script='touch "$1/real/inner/x" || echo refused',
    )
    assert done.output == b"refused\n"


def test_root_paths_work_before_and_after_the_pivot(root: Path) -> None:
    """After the pivot the old root is gone, root paths still resolve, and the root can be made read-only."""
    after = [Pivot(), File("/made", b"by root path"), RemountRoot(ATTR_RDONLY), WorkingDirectory("/real")]
    plan = [*APART, Bind(str(root), str(root), host=1), Root(str(root)), Bind("/usr", "/usr"), Directory("/proc")]
    links: list[Operation] = [Symlink(f"/{name}", f"usr/{name}") for name in ("bin", "lib", "lib64")]
    script = "cat /made; pwd; echo; ls -d /home 2>&1; touch /x || echo refused"
    done = run([*plan, *links, *after, Exec(("sh", "-c", script), ENVIRONMENT)], timeout=20)
    assert done.output.startswith(b"by root path/real\n")
    assert done.output.endswith(b"refused\n")
    assert b"cannot access '/home'" in done.output


def test_existing_nodes_and_links_are_kept(root: Path) -> None:
    """The same node again is fine, something else in its place is an error, a link is left alone."""
    node = Node("/null", stat.S_IFCHR | 0o666, 1, 3)
    (root / "link").symlink_to("theirs")
    act(root, node, node, Symlink("/link", "ours"))
    assert (root / "link").readlink() == Path("theirs")
    (root / "file").write_text("")
    with pytest.raises(LaunchError, match="something else"):
        act(root, Node("/file", stat.S_IFCHR | 0o666, 1, 3))


@pytest.mark.parametrize("path", ["/", "", "/real/..", "..", "."])
def test_a_file_needs_a_name(root: Path, path: str) -> None:
    """A path that names no file is refused."""
    with pytest.raises(LaunchError):
        act(root, Node(path, stat.S_IFCHR | 0o666, 1, 3))


def test_a_fifo_in_the_way_does_not_block(root: Path) -> None:
    """Writing a file where the image has a FIFO fails at once."""
    os.mkfifo(root / "hosts")
    with pytest.raises(LaunchError, match="not a regular file"):
        act(root, File("/hosts", b"x"))


def test_unmount_detaches_host_paths(root: Path) -> None:
    """An unmount that fails is an error unless it is optional."""
    act(root, Mount("tmpfs", "tmpfs", "/real"), Unmount(f"{root}/real"), Unmount(f"{root}/real", optional=1))
    with pytest.raises(LaunchError, match="unmount"):
        act(root, Unmount(f"{root}/nonesuch"))
