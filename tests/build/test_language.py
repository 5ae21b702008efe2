"""The newer words of the language: --parents, --exclude, --chmod, here-documents everywhere, ONBUILD, grants."""

from __future__ import annotations

from typing import Any

import pytest
from tests.build.workshop import Content, File, Workshop

from trivet.build.chmod import parse_chmod
from trivet.build.error import BuildError
from trivet.build.tree import Node

pytestmark = pytest.mark.needs("root")

FILES: dict[str, Content] = {
    "x/a.txt": b"a",
    "x/b.md": b"b",
    "x/deep/c.txt": b"c",
    "y/a.txt": b"ya",
    "lib": "x",
    "home.txt": b"h",
    "home.md": b"m",
}


def below(files: dict[str, File], top: str) -> list[str]:
    """List the regular files below a directory."""
    return sorted(
        path[len(top) + 1 :] for path, file in files.items() if path.startswith(f"{top}/") and file.info.isreg()
    )


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ("x/a.txt y/a.txt", ["x/a.txt", "y/a.txt"]),
        ("./x/./deep/c.txt", ["deep/c.txt"]),
        ("*/a.txt", ["x/a.txt", "y/a.txt"]),
        ("**/*.txt", ["home.txt", "x/a.txt", "x/deep/c.txt", "y/a.txt"]),
        ("x/./**/*.txt", ["a.txt", "deep/c.txt"]),
        ("x", ["x/a.txt", "x/b.md", "x/deep/c.txt"]),
        ("--exclude=x/deep x", ["x/a.txt", "x/b.md"]),
        ("--exclude=**/*.md x", ["x/a.txt", "x/deep/c.txt"]),
    ],
)
def test_parents(workshop: Workshop, sources: str, found: list[str]) -> None:
    """--parents keeps the directories of a source, from the context as from a stage."""
    flags = " ".join(word for word in sources.split() if word.startswith("--"))
    rest = sources.replace(flags, "").strip()
    built = workshop.build(f"FROM base\nCOPY --parents {flags} {rest} /to", FILES)
    assert below(built.files, "to") == found
    rooted = " ".join(word if word.startswith(("*", ".")) else f"/{word}" for word in rest.split())
    lines = f"FROM scratch AS s\nCOPY . /\nFROM base\nCOPY --from=s --parents {flags} {rooted} /to"
    assert below(workshop.build(lines, FILES).files, "to") == found


def test_exclude(workshop: Workshop) -> None:
    """--exclude leaves out what a source names itself, as well as what is in it."""
    files = workshop.build(
        "FROM base\nCOPY --exclude=*.md home.* /t/\nCOPY --exclude=deep --exclude=*.md x /u/", FILES
    ).files
    assert below(files, "t") == ["home.txt"]
    assert below(files, "u") == ["a.txt"]


@pytest.mark.parametrize(
    ("text", "mode", "kind", "result"),
    [
        ("755", 0o600, "file", 0o755),
        ("u=rwX,go=rX", 0o600, "file", 0o644),
        ("u=rwX,go=rX", 0o700, "file", 0o755),
        ("u=rwX,go=rX", 0o600, "directory", 0o755),
        ("a+x", 0o644, "file", 0o755),
        ("+x,o-r", 0o644, "file", 0o751),
        ("g=u", 0o640, "file", 0o660),
        ("u+s,g+s,+t", 0o755, "file", 0o7755),
        ("go-rwx", 0o777, "file", 0o700),
        ("u=", 0o755, "file", 0o055),
    ],
)
def test_chmod(text: str, mode: int, kind: str, result: int) -> None:
    """--chmod speaks as chmod(1) does."""
    node = Node(kind="directory" if kind == "directory" else "file", mode=mode)
    assert oct(parse_chmod(text)(node)) == oct(result)


@pytest.mark.parametrize("text", ["", "9", "rw", "u=q", "u", "77777", "u+x,", "u=rwx," * 80])
def test_no_mode(text: str) -> None:
    """What chmod(1) wouldn't take is refused."""
    with pytest.raises(BuildError, match="neither an octal nor a symbolic mode"):
        parse_chmod(text)


def test_heredocs_everywhere(workshop: Workshop) -> None:
    """Here-documents go to COPY, ADD, RUN and their ONBUILD forms; <<- takes tabs away, quotes keep variables."""
    dockerfile = """FROM base AS parent
ENV WHO=me
COPY <<one <<-"two" /h/
$WHO one
one
\t$WHO two
\ttwo
ADD --chmod=640 <<three /h/3
3
three
ONBUILD RUN <<EOF
echo trigger $WHO > /trigger
EOF
ONBUILD COPY <<EOF /copied
text
EOF
"""
    workshop.build(dockerfile, tags=["heredoc"])
    files = workshop.build("FROM heredoc\nRUN <<a cat > /x && cat <<b >> /x\nA\na\nB\nb\n").files
    assert [files[f"h/{name}"].content for name in ("one", "two", "3")] == [b"me one\n", b"$WHO two\n", b"3\n"]
    assert files["h/3"].info.mode == 0o640
    assert (files["trigger"].content, files["copied"].content, files["x"].content) == (
        b"trigger me\n",
        b"text\n",
        b"A\nB\n",
    )


def test_predefined_arguments(workshop: Workshop) -> None:
    """The platforms and the target are known without a default, and only where they are declared."""
    names = ["TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT", "BUILDPLATFORM", "BUILDOS", "BUILDARCH"]
    declared = "\n".join(f"ARG {name}" for name in (*names, "BUILDVARIANT", "TARGETSTAGE"))
    shown = " ".join(f"$TARGETOS/${name}" for name in ("TARGETARCH", "BUILDARCH"))
    built = workshop.build(f"FROM base AS it\n{declared}\nRUN echo {shown} $TARGETSTAGE", target="it")
    system, _, machine = built.output.split()[0].partition("/")
    assert (system, built.output.split()[-1]) == ("linux", "it")
    assert machine in ("amd64", "arm64")
    assert workshop.build("FROM base\nRUN echo [$TARGETOS]").output == "[]\n"


def test_healthcheck(workshop: Workshop) -> None:
    """HEALTHCHECK keeps all its times."""
    line = "HEALTHCHECK --interval=1s --timeout=2s --start-period=3s --start-interval=4s --retries=5 CMD true"
    check = workshop.build(f"FROM base\n{line}").config.healthcheck
    assert check
    times = (check.interval, check.timeout, check.start_period, check.start_interval)
    assert [time // 10**9 for time in times] == [1, 2, 3, 4]


def test_insecure_needs_a_grant(workshop: Workshop) -> None:
    """RUN --security=insecure and --network=host need a grant each; with it they have what they ask for."""
    insecure = "FROM base\nRUN --security=insecure busybox mount -t tmpfs x /tmp && echo mounted"
    with pytest.raises(BuildError, match="--security=insecure is not granted"):
        workshop.build(insecure, allow=["network.host"])
    assert workshop.build(insecure, allow=["security.insecure"]).output == "mounted\n"
    host = "FROM base\nRUN --network=host ls /sys/class/net | busybox wc -l"
    with pytest.raises(BuildError, match="--network=host is not granted"):
        workshop.build(host, allow=["security.insecure"])
    assert int(workshop.build(host, allow=["network.host"]).output) > 1
    with pytest.raises(BuildError, match="--allow everything is unknown"):
        workshop.build("FROM base", allow=["everything"])


def test_what_a_step_is_given(workshop: Workshop) -> None:
    """--add-host, --ulimit and --shm-size reach RUN, and nothing of them the image."""
    wishes: dict[str, Any] = {"network": "bridge", "add_hosts": ["there:192.0.2.7"], "shm_size": 1 << 20}
    command = "busybox grep there /etc/hosts; ulimit -n; busybox df -k /dev/shm | busybox tail -1"
    limits = [{"name": "NOFILE", "soft": 77, "hard": 77}]
    built = workshop.build(f"FROM base\nRUN {command}", ulimits=limits, **wishes)
    hosts, files, memory = built.output.splitlines()
    assert (hosts.split(), files, memory.split()[1]) == (["192.0.2.7", "there"], "77", "1024")
    assert "etc/hosts" not in built.files


def test_no_cache_filter(workshop: Workshop) -> None:
    """--no-cache-filter runs one stage again and leaves the others."""
    dockerfile = (
        "FROM base AS one\nRUN echo 1 > /f\nFROM base AS two\nRUN echo 2 > /f\nFROM base\nCOPY --from=one /f /1\n"
    )
    dockerfile += "COPY --from=two /f /2"
    workshop.build(dockerfile)
    again = workshop.build(dockerfile, no_cache_filter=["two"])
    assert (again.run, again.cached) == (1, 3)


def test_stages_side_by_side(workshop: Workshop) -> None:
    """Stages that don't need one another are built at the same time: each waits here for the other."""
    meet = "--mount=type=cache,target=/m,id=meet"
    wait = "for i in $(busybox seq 100); do test -e /m/{other} && exit 0; sleep 0.1; done; exit 1"
    stages = [
        f"FROM base AS {own}\nRUN {meet} echo > /m/{own}; {wait.format(other=other)}" for own, other in ("ab", "ba")
    ]
    workshop.build("\n".join([*stages, "FROM base", "COPY --from=a /etc/group /1", "COPY --from=b /etc/group /2"]))


def test_a_stage_that_fails(workshop: Workshop) -> None:
    """The first stage that fails ends the others at once, and its own line is told."""
    stages = "FROM base AS slow\nRUN sleep 60\nFROM base AS bad\nRUN echo oh no; exit 3\n"
    with pytest.raises(BuildError, match=r"Dockerfile:4: RUN echo oh no; exit 3 ended with exit code 3:\noh no"):
        workshop.build(f"{stages}FROM base\nCOPY --from=slow /f /\nCOPY --from=bad /f /")
    assert workshop.leftovers() == []
