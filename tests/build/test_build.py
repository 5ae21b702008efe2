"""Real builds on a busybox image: what ends up in the image, and in its configuration."""

from __future__ import annotations

import gzip
import stat
import tarfile

import pytest
from tests.build.workshop import Workshop, make_tar

from trivet.base.error import TrivetError
from trivet.build.error import BuildError, DockerfileError, StepFailed
from trivet.oci.config import Empty, Healthcheck

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

pytestmark = pytest.mark.needs("root")


def test_run(workshop: Workshop) -> None:
    """RUN changes files in a container of its own; nothing but what the command wrote is in the layer."""
    built = workshop.build('FROM base\nRUN mkdir -p /a && echo hi > /a/b; rm /etc/group\nRUN ["touch", "/exec form"]')
    assert set(built.layers[1]) == {"a", "a/b", "etc", "etc/.wh.group"}
    assert built.files["a/b"].content == b"hi\n"
    assert "exec form" in built.files
    assert "etc/group" not in built.files


def test_run_surroundings(workshop: Workshop) -> None:
    """A step sees ENV, ARG, WORKDIR and USER, and the same host name every day."""
    dockerfile = """
        FROM base
        ARG GREETING=hello
        ENV A=1 B="two words"
        WORKDIR /w
        USER app:wheel
        RUN echo "$GREETING $A $B $FROM_BASE $HOME $(pwd) $(id -u):$(id -g) $(hostname)"
        SHELL ["/bin/busybox", "echo", "shell:"]
        RUN as is $A
    """
    built = workshop.build(dockerfile, build_args={"GREETING": "hullo"})
    assert built.output == "hullo 1 two words yes /home/app /w 1000:10 build\nshell: as is $A\n"
    assert built.config.user == "app:wheel"
    assert built.config.shell == ("/bin/busybox", "echo", "shell:")
    assert built.config.env == ("FROM_BASE=yes", PATH, "A=1", "B=two words")


def test_run_heredoc(workshop: Workshop) -> None:
    """A here-document is a script of its own, or the input of the command before it."""
    built = workshop.build("FROM base\nRUN <<EOF\necho one\necho two\nEOF\nRUN cat <<'X' > /f\n$HOME\nX\n")
    assert built.output == "one\ntwo\n"
    scripted = workshop.build("FROM base\nRUN <<EOF\n#!/bin/busybox cat\nshown as it is\nEOF\n")
    assert scripted.output == "#!/bin/busybox cat\nshown as it is\n"
    assert len(scripted.layers) == 1
    assert built.files["f"].content == b"$HOME\n"


def test_failing_run(workshop: Workshop) -> None:
    """A failing command is told with file, line, command, exit code and its last lines."""
    dockerfile = "FROM base\n\nRUN echo first; \\\n  echo last words >&2; exit 3\n"
    with pytest.raises(StepFailed) as caught:
        workshop.build(dockerfile, tags=["failing"])
    command = "RUN echo first; echo last words >&2; exit 3"
    assert caught.value.message == f"Dockerfile:3: {command} ended with exit code 3:\nfirst\nlast words"
    assert workshop.leftovers() == []
    assert all("failing" not in name.reference for record in workshop.images.list() for name in record.names)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("RUN nosuchprogram", "ended with exit code 127"),
        ('RUN ["nosuchprogram"]', "program nosuchprogram not found in PATH"),
        ("USER nobody-here\nRUN true", "nobody-here"),
        ("COPY missing /", "no missing in the build context"),
        ("COPY f d /x", "COPY of several sources needs a directory as target"),
        ("COPY --from=base /missing /x", "no /missing in base"),
        ("COPY --from=base /bin/*z /x", "no /bin/*z in base"),
        ("COPY --chown=ghost f /", "--chown: no user 'ghost' in /etc/passwd of the image"),
        ("COPY --chown=0:99999999999 f /", "the number of group 99999999999 is out of range"),
        ("COPY --chmod=rwx f /", "--chmod=rwx is neither an octal nor a symbolic mode"),
        ("COPY f /bin/busybox/x", "/bin/busybox"),
        ("COPY hidden /", "no hidden in the build context"),
        ("ADD http://127.0.0.1/x /", "cannot fetch http://127.0.0.1/x"),
        ("WORKDIR /bin/busybox", "cannot make directory /bin/busybox in the image: not a directory"),
        ("COPY over /", "cannot make tmp: Is a directory"),
        ("RUN --network=host true", "RUN --network=host is not granted"),
        ("EXPOSE 99999", "EXPOSE 99999 is not a port"),
        ("STOPSIGNAL please", "STOPSIGNAL please is not a signal"),
        ("LABEL a='b", "LABEL: a single quote is never closed"),
        ("RUN --network=host true\nCOPY --from=9 a b", "COPY from=9 does not name an earlier stage"),
    ],
)
def test_mistakes(workshop: Workshop, line: str, problem: str) -> None:
    """Every mistake is one sentence with file and line, and leaves nothing behind."""
    with pytest.raises(TrivetError) as caught:
        workshop.build(
            f"FROM base\n{line}\n", {"f": b"", "d/x": b"", "over/tmp": b"", "hidden": b"", ".dockerignore": b"hidden\n"}
        )
    assert problem in caught.value.message
    assert caught.value.message.startswith("Dockerfile:")
    assert workshop.leftovers() == []


def test_hints(workshop: Workshop) -> None:
    """A file that .dockerignore hides is told from one that isn't there."""
    with pytest.raises(DockerfileError) as caught:
        workshop.build("FROM base\nCOPY hidden /", {"hidden": b"", ".dockerignore": b"h*\n"})
    assert caught.value.hint == "it is left out by .dockerignore"


def test_missing_parts(workshop: Workshop) -> None:
    """A context without Dockerfile, an unknown target and a malformed tag are refused before anything is done."""
    with pytest.raises(BuildError, match="has no Other"):
        workshop.build("FROM base", file="Other")
    with pytest.raises(BuildError, match="no stage x"):
        workshop.build("FROM base", target="x")
    with pytest.raises(TrivetError, match="UPPER"):
        workshop.build("FROM base", tags=["UPPER:CASE"])


def test_copy(workshop: Workshop) -> None:
    """COPY keeps modes and times, gives everything to root, or to whom --chown names, by the image's own list."""
    script = tarfile.TarInfo("s/run")
    script.mode, script.uid, script.gid = 0o755, 1234, 1234
    dockerfile = """
        FROM base
        WORKDIR /w
        COPY s/ t /d/
        COPY --chown=app t one/deep/two
        COPY --chown=7:wheel --chmod=640 ["sp ace", "s", "/e/"]
        COPY t /tmp
    """
    built = workshop.build(dockerfile, {"s/run": script, "t": b"text", "sp ace": b"", "s/link": "run"})
    files = built.files
    assert files["d/run"].info.mode == 0o755
    assert (files["d/run"].info.uid, files["d/run"].info.mtime) == (0, workshop.dated)
    assert files["d/link"].info.linkname == "run"
    assert files["d/t"].content == b"text"
    assert (files["w/one/deep/two"].info.uid, files["w/one/deep/two"].info.gid) == (1000, 1001)
    assert files["w/one/deep"].info.uid == 1000
    assert (files["e/sp ace"].info.uid, files["e/run"].info.gid, files["e/run"].info.mode) == (7, 10, 0o640)
    assert files["tmp/t"].content == b"text"


def test_copy_onto_links(workshop: Workshop) -> None:
    """What is copied below a link to a directory gets to where it leads; the link stays, a link to nothing does not."""
    dockerfile = "FROM base\nRUN ln -s nothing /n && ln -s /../../../../tmp /up\nCOPY d /\n"
    context: dict[str, bytes | str | tarfile.TarInfo] = {"d/lib/x": b"x", "d/n/x": b"y", "d/up/x": b"z"}
    files = workshop.build(dockerfile, context).files
    assert (files["lib"].info.linkname, files["usr/lib/x"].content) == ("usr/lib", b"x")
    assert (files["up"].info.issym(), files["tmp/x"].content) == (True, b"z")
    assert (files["n"].info.isdir(), files["n/x"].content) == (True, b"y")


def test_copy_heredoc(workshop: Workshop) -> None:
    """COPY writes here-documents, with the variables of the stage."""
    built = workshop.build("FROM base\nENV X=1\nCOPY <<a <<'b' f /etc/x/\n$X \"'\na\n$X\nb\n", {"f": b"f"})
    assert built.files["etc/x/a"].content == b"1 \"'\n"
    assert built.files["etc/x/b"].content == b"$X\n"
    assert built.files["etc/x/f"].content == b"f"


def test_add(workshop: Workshop) -> None:
    """ADD unpacks local archives with their owners, and copies everything else."""
    owned = tarfile.TarInfo("inner/owned")
    owned.uid = 55
    packed = gzip.compress(make_tar({"inner/f": b"x", "inner/owned": owned}))
    built = workshop.build("FROM base\nADD a.tgz plain.gz /x/\n", {"a.tgz": packed, "plain.gz": gzip.compress(b"text")})
    assert built.files["x/inner/f"].content == b"x"
    assert built.files["x/inner/owned"].info.uid == 55
    assert (
        built.files["x/plain.gz"].content == gzip.compress(b"text")
        or built.files["x/plain.gz"].content[:2] == b"\x1f\x8b"
    )


def test_stages(workshop: Workshop) -> None:
    """Files go from stage to stage and from image to image; stages nobody needs are not built."""
    dockerfile = """
        FROM base AS compile
        RUN mkdir /out && echo binary > /out/app && chmod 750 /out/app && ln -s /out/app /out/link && touch /out/x.o
        RUN chown 5:6 /out/app 2>/dev/null || busybox chown 5:6 /out/app
        FROM base AS unused
        RUN exit 1
        FROM scratch
        COPY --from=compile /out/app /out/link /bin/
        COPY --from=0 /out/*.o /objects/
        COPY --from=compile /out /all
        COPY --from=base /lib/../etc/passwd /p
        COPY --from=base / /whole
    """
    built = workshop.build(dockerfile)
    files = built.files
    assert len(built.layers) == 5
    assert files["whole/lib"].info.linkname == "usr/lib"
    assert "whole/bin/busybox" in files
    assert files["bin/app"].content == b"binary\n"
    assert (files["bin/app"].info.uid, files["bin/app"].info.gid, files["bin/app"].info.mode) == (5, 6, 0o750)
    assert files["bin/link"].content == b"binary\n"
    assert "objects/x.o" in files
    assert files["all/link"].info.linkname == "/out/app"
    assert files["p"].content.startswith(b"root:")
    assert len(workshop.build(dockerfile, target="compile").layers) == 3


def test_configuration(workshop: Workshop) -> None:
    """The instructions about the configuration change nothing else."""
    dockerfile = """
        FROM base
        ARG V=1.2
        LABEL version=$V "a b"='c d'
        EXPOSE 80 53/UDP 9000-9001
        VOLUME /data /more
        VOLUME ["/a b"]
        STOPSIGNAL SIGQUIT
        HEALTHCHECK --interval=5s --retries=2 CMD true
        ENTRYPOINT ["/app"]
        ONBUILD RUN echo triggered
        MAINTAINER somebody
    """
    built = workshop.build(dockerfile, labels={"by": "request"})
    config = built.config
    assert len(built.layers) == 1
    assert config.labels == {"version": "1.2", "a b": "c d", "by": "request"}
    assert config.exposed_ports == {port: Empty() for port in ("80/tcp", "53/udp", "9000/tcp", "9001/tcp")}
    assert sorted(config.volumes or ()) == ["/a b", "/data", "/more"]
    assert config.stop_signal == "SIGQUIT"
    assert config.healthcheck == Healthcheck(test=("CMD-SHELL", "true"), interval=5 * 10**9, retries=2)
    assert (config.entrypoint, config.cmd) == (("/app",), None)  # the base image's CMD belongs to its own entry point
    assert config.on_build == ("RUN echo triggered",)
    assert built.image.author == "somebody"
    assert [entry.created_by for entry in built.image.history or ()][-1] == "MAINTAINER somebody"


def test_onbuild(workshop: Workshop) -> None:
    """ONBUILD instructions run in the build on top, once, with that build's context."""
    workshop.build("FROM base\nONBUILD COPY f /\nONBUILD RUN cat /f", tags=["trigger"])
    built = workshop.build("FROM trigger\nRUN echo after", {"f": b"from the context\n"})
    assert built.output == "from the context\nafter\n"
    assert built.config.on_build is None


def test_workdir(workshop: Workshop) -> None:
    """WORKDIR makes its directory, through links of the image, relative to the one before."""
    built = workshop.build("FROM base\nENV D=sub\nWORKDIR /lib/x\nWORKDIR $D\nCOPY f .", {"f": b"1"})
    assert built.config.working_dir == "/lib/x/sub"
    assert built.files["usr/lib/x/sub/f"].content == b"1"
    assert "lib/x" not in built.files


def test_platform_arguments(workshop: Workshop) -> None:
    """The platform's arguments are known after an ARG of that name; unused ones of the request are told."""
    built = workshop.build("FROM base\nARG TARGETOS\nRUN echo $TARGETOS/$TARGETARCH", build_args={"NOBODY": "1"})
    assert built.output == "linux/\n"
    assert [step.status for step in built.progress if step.id == "warning"] == [
        "no ARG takes the build argument NOBODY"
    ]


def test_proxies_leave_no_trace(workshop: Workshop) -> None:
    """A proxy is known to RUN without ARG and is nowhere in the image."""
    built = workshop.build("FROM base\nRUN echo $http_proxy", build_args={"http_proxy": "http://u:secret@p"})
    assert built.output == "http://u:secret@p\n"
    assert "secret" not in repr(built.image)


def test_whole_progress(workshop: Workshop) -> None:
    """Each step says its stage, its number and its text, and how it ended."""
    built = workshop.build("FROM base AS one\nRUN echo progress")
    assert built.progress[0].id == "[one 1/1]"
    assert built.progress[0].status == "RUN echo progress"
    assert built.progress[-1].status.startswith("RUN echo progress · ")


def test_modes_of_made_files(workshop: Workshop) -> None:
    """What steps make has sane modes whatever the engine's umask is."""
    built = workshop.build("FROM base\nWORKDIR /a/b\nRUN touch f\nCOPY x y/", {"x": b""})
    modes = {path: stat.S_IMODE(built.files[path].info.mode) for path in ("a", "a/b", "a/b/f", "a/b/y", "a/b/y/x")}
    assert modes == {"a": 0o755, "a/b": 0o755, "a/b/f": 0o644, "a/b/y": 0o755, "a/b/y/x": 0o644}


def test_networks(workshop: Workshop) -> None:
    """A step is on the bridge unless told otherwise; without network it has loopback only."""
    lines = ("RUN echo default; ip -o addr", "RUN --network=none ip -o addr")
    bridged, alone = (workshop.build(f"FROM base\n{line}", network="bridge").output for line in lines)
    host = workshop.build("FROM base\nRUN --network=host ip -o link", network="host").output
    assert "eth0" in bridged
    assert "eth0" not in alone
    assert "127.0.0.1" in alone
    assert host.count("\n") > alone.count("\n")
    assert workshop.networks.find("bridge").members == {}
