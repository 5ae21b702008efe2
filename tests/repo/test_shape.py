"""What CONTRIBUTING.md promises about the tree, and the links between its documents."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from tests.repo.tree import ROOT, tracked

LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
REQUIREMENT = re.compile(r"[A-Za-z0-9_.-]+")
PACKAGES = re.compile(r"^(\w+_PACKAGES) := (?!\$)((?:.*\\\n)*.*)", re.MULTILINE)
REASON = re.compile(r"`\\#[^`]+`")


def relative(path: Path) -> str:
    """Name a file in a test's id."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", tracked("src/*__init__.py", "bench/*__init__.py", "demo/*__init__.py"), ids=relative)
def test_package_roots_hold_a_docstring_only(path: Path) -> None:
    """A package's __init__ says what belongs there, and does nothing."""
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_dependencies_are_explained() -> None:
    """Every Python dependency of pyproject.toml has its line in docs/dependencies.md."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(word for extra in project["optional-dependencies"].values() for word in extra),
    ]
    names = [found[0] for word in wanted if (found := REQUIREMENT.match(word))]
    text = (ROOT / "docs/dependencies.md").read_text()
    assert len(names) == len(wanted)
    assert [name for name in names if f"\n| {name} |" not in text] == []


def test_system_packages_have_reasons() -> None:
    """Every Debian package in the Makefile has a word beside it that says what it is for."""
    lists = dict(PACKAGES.findall((ROOT / "Makefile").read_text()))
    assert {"RUN_PACKAGES", "BUILD_PACKAGES", "TEST_PACKAGES", "PEER_PACKAGES"} <= lists.keys()
    lines = [line.strip(" \t\\") for text in lists.values() for line in text.splitlines()]
    assert [line for line in lines if line and not REASON.search(line)] == []


def test_make_hands_every_system_package_on() -> None:
    """The reasons don't swallow the packages: `make system` asks for all of them."""
    assert {"qemu-system-x86", "ca-certificates", "musl-tools", "gcc", "make"} <= _asked("system")


def test_other_engines_are_installed_on_request_only() -> None:
    """`make peers` brings docker and podman; nothing else that a workstation is set up or tested with does."""
    others = {"docker.io", "podman", "runc", "crun", "containerd", "criu", "docker-compose"}
    assert others <= _asked("peers")
    assert not others & (_asked("setup") | _asked("test") | _asked("demo") | _asked("bench"))


def _asked(target: str) -> set[str]:
    """Name the words of the commands that a target stands for."""
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done
    return set(done.stdout.split())


@pytest.mark.parametrize("path", tracked("*.md"), ids=relative)
def test_links_point_to_files(path: Path) -> None:
    """Every relative link of a Markdown file leads to something that exists."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    targets = [target for target in LINK.findall(text) if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_readme_names_the_two_commands(command: str) -> None:
    """Somebody who reads the first page knows what to type."""
    assert command in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", ["demo", "test", "check", "bench"])
def test_the_makefile_has_the_targets(target: str) -> None:
    """What the documents tell people to type is there."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
