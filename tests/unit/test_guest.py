"""What a guest boots from: cpio archives, modules in order, the kernel inside a bzImage."""

from __future__ import annotations

import gzip
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.guest import cpio, kernel, vmlinux
from trivet.guest.kernel import Kernel, NoKernel
from trivet.guest.module import MissingModule, Modules

ELF = b"\x7fELF" + bytes(60) + struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)


def bzimage(payload: bytes) -> bytes:
    image = bytearray(512 * 2)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x248:0x250] = struct.pack("<II", 16, len(payload))
    return bytes(image) + bytes(16) + payload + b"signature"


def module(directory: Path, name: str, needs: str, tail: bytes = b"") -> None:
    (directory / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + needs.encode() + b"\0name=x\0" + tail)


@pytest.mark.needs("cpio")
def test_archive_is_what_cpio_unpacks(tmp_path: Path) -> None:
    """The cpio program unpacks names, modes and contents as they were put in."""
    entries = [cpio.directory("bin"), cpio.file("bin/a", b"12345", 0o755), cpio.file("empty", b"")]
    subprocess.run(["cpio", "-i", "--quiet"], cwd=tmp_path, input=cpio.archive(entries), check=True)
    assert (tmp_path / "bin/a").read_bytes() == b"12345"
    assert (tmp_path / "bin/a").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").read_bytes() == b""


def test_archive_is_deterministic() -> None:
    """The same entries give the same bytes, and a multiple of four of them."""
    entries = [cpio.file("x", b"abc"), cpio.character("console", 5, 1)]
    assert cpio.archive(entries) == cpio.archive(entries)
    assert len(cpio.archive(entries)) % 4 == 0


def test_modules_load_after_what_they_need(tmp_path: Path) -> None:
    """Dependencies come first and once; dashes are underscores; what is built in is left out."""
    module(tmp_path, "virtio-net", "net_failover,virtio")
    module(tmp_path, "net_failover", "failover")
    module(tmp_path, "failover", "")
    module(tmp_path, "virtio", "")
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    order = Modules(tmp_path).load_order(("virtio_net", "ext4", "virtio"))
    assert order == ["failover", "net_failover", "virtio", "virtio_net"]


def test_missing_module_is_named(tmp_path: Path) -> None:
    """A module that isn't there is told by its name."""
    with pytest.raises(MissingModule, match="virtiofs"):
        Modules(tmp_path).load_order(("virtiofs",))


def test_signature_is_cut_off(tmp_path: Path) -> None:
    """A signed module is handed out without its signature, another one as it is."""
    tail = b"S" * 100 + bytes(8) + (100).to_bytes(4, "big") + b"~Module signature appended~\n"
    module(tmp_path, "signed", "", tail)
    module(tmp_path, "plain", "")
    modules = Modules(tmp_path)
    assert modules.read("signed") == modules.read("plain")


@pytest.mark.needs("lz4")
@given(st.lists(st.sampled_from([b"a", b"abcd", b"0123456789" * 30, bytes(70000), bytes(range(256))]), max_size=12))
def test_lz4_decodes_what_lz4_encodes(words: list[bytes]) -> None:
    """Whatever the lz4 program packs in its legacy format comes out again."""
    data = b"".join(words)
    packed = subprocess.run(["lz4", "-l", "-c"], input=data, capture_output=True, check=True).stdout
    assert vmlinux.unpack_lz4_legacy(packed) == data


def test_kernel_is_taken_out_of_a_bzimage() -> None:
    """The ELF kernel inside is found, whatever setup and signature are around it."""
    assert vmlinux.extract(bzimage(gzip.compress(ELF) + struct.pack("<I", len(ELF)))) == ELF


@pytest.mark.parametrize("payload", [b"unknown compression", gzip.compress(b"no ELF", mtime=0) + bytes(4)])
def test_kernel_that_cannot_be_started_directly_is_left_alone(payload: bytes) -> None:
    """What isn't an ELF kernel with an entry for QEMU is booted as it came."""
    assert vmlinux.extract(bzimage(payload)) is None


def test_newest_cached_kernel_is_taken(tmp_path: Path) -> None:
    """Of several kernels in the cache the newest is taken, by number and not by letter."""
    for release in ("6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64"):
        (tmp_path / "kernel" / release).mkdir(parents=True)
        (tmp_path / "kernel" / release / "image").touch()
    found = kernel.cached(tmp_path)
    assert isinstance(found, Kernel)
    assert found.release == "6.1.0-56-cloud-amd64"


def test_apt_without_lists_is_told_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose apt knows no packages is told to fetch the lists; nothing half-made stays in the cache."""
    configuration = tmp_path / "apt.conf"
    configuration.write_text(f'Dir::State::lists "{tmp_path}/none"; Dir::Cache "{tmp_path}/cache";\n')
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    with pytest.raises(NoKernel) as caught:
        kernel.obtain(tmp_path / "guest")
    assert "apt-get update" in (caught.value.hint or "")
    assert not list((tmp_path / "guest").rglob("*"))
