"""Deleting directories: all of it, and nothing beside it."""

from __future__ import annotations

from pathlib import Path

from trivet.base import tree


def grow(path: Path, depth: int) -> None:
    """Make directories in one another, each with a file and links out of them."""
    path.mkdir()
    (path / "file").write_text("x")
    (path / "out").symlink_to("/")
    (path / "empty").mkdir()
    if depth:
        grow(path / "deeper", depth - 1)


def test_everything_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    """Files, links and directories of any depth are deleted, what a link leads to stays."""
    kept = tmp_path / "kept"
    grow(kept, 0)
    for depth in range(5):
        doomed = tmp_path / "doomed"
        grow(doomed, depth)
        (doomed / "kept").symlink_to(kept)
        tree.delete(doomed)
        assert not doomed.exists()
    assert sorted(each.name for each in kept.iterdir()) == ["empty", "file", "out"]


def test_a_file_a_link_and_nothing(tmp_path: Path) -> None:
    """What isn't a directory is deleted, too, and what isn't there is fine."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("x")
    link.symlink_to(file)
    tree.delete(link)
    assert file.read_text() == "x"
    tree.delete(file)
    tree.delete(file)
    assert list(tmp_path.iterdir()) == []


def test_later_is_soon(tmp_path: Path) -> None:
    """What is to be deleted later is gone when it has settled, and whoever asked was told of each."""
    told: list[int] = []
    for number in range(50):
        grow(tmp_path / str(number), 1)
        tree.delete_later(tmp_path / str(number), lambda number=number: told.append(number))  # type: ignore[misc]
    tree.settle()
    assert list(tmp_path.iterdir()) == []
    assert told == list(range(50))
