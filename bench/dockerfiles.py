"""Thirty Dockerfiles that are to give the same image everywhere. `@` stands for the base image.

Those of SMALL need a base with busybox only, those of LARGE Debian's tools. Their commands are deterministic
themselves: none depends on the clock, on inode numbers, or on the order in which a file system lists names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

Files = Mapping[str, str]
"""Contents by name; a name that ends with `/` is a directory, a content that begins with `->` a link."""

NONE: Files = MappingProxyType({})


class Case(NamedTuple):
    """A Dockerfile, and the files beside it."""

    name: str
    dockerfile: str
    files: Files


def case(name: str, *lines: str, files: Files = NONE) -> Case:
    """Make a case that begins with FROM the base."""
    return Case(name, "\n".join(("FROM @", *lines, "")), files)


TREE: Files = {
    "src/main.c": "int main(void) { return 0; }\n",
    "src/deep/er/data.json": "{}\n",
    "src/Makefile": "all:\n\ttrue\n",
    "src/link": "->deep/er",
    "zeta": "z\n",
    "alpha": "a\n",
    "Mixed": "m\n",
    "empty/": "",
    "ümlaut": "ü\n",
}

SMALL = (
    case("nothing"),
    Case("scratch", "FROM scratch\nCOPY . /\n", TREE),
    case("configuration", "ENV A=b C=$A", "LABEL z=1 a=2", "EXPOSE 80", "VOLUME /v", "USER 7", 'CMD ["x"]'),
    case("copy-tree", "COPY src /src", "COPY alpha zeta Mixed /f/", "COPY ümlaut /", files=TREE),
    case("copy-owner", "COPY --chown=app:wheel --chmod=u=rwX,go= src /src", files=TREE),
    case("copy-parents", "COPY --parents --exclude=**/*.json **/* /all/", files=TREE),
    case("ignored", "COPY . /all/", files={**TREE, ".dockerignore": "src/deep\n!src/deep/er\nzeta\n"}),
    case("heredocs", "COPY <<a <<b /h/", "one", "a", "two", "b", "RUN <<EOF", "echo three > /h/c", "EOF"),
    case("run-files", "RUN echo x > /x; mkdir -p /d/e; ln -s ../x /d/l; ln /x /d/h; chmod 4755 /x; rm /etc/group"),
    case(
        "run-times",
        "COPY src /src",
        "RUN busybox find /src -exec stat -c '%n %Y %a' {} + | busybox sort > /list",
        files=TREE,
    ),
    case(
        "run-archive",
        "COPY src /src",
        "RUN busybox find /src -type f | busybox sort | busybox tar cT - > /s.tar; busybox gzip -n /s.tar",
        files=TREE,
    ),
    case(
        "run-copy",
        "COPY src /s",
        "RUN busybox cp -a /s /t && busybox mv /s/main.c /s/other.c && rm -r /s/deep",
        files=TREE,
    ),
    case(
        "run-environment",
        "ARG V=1",
        "ENV W=2",
        "RUN env | busybox sort > /env; id > /id; hostname > /host; pwd > /pwd",
    ),
    case("run-epoch", 'RUN echo "$SOURCE_DATE_EPOCH" > /built'),
    case("run-names", "RUN for i in $(busybox seq 300); do echo $i > /tmp/$i; done; ls /tmp > /names"),
    case(
        "run-mounts",
        "RUN --mount=target=/c --mount=type=tmpfs,target=/t ls /c > /seen; cat /c/alpha > /t/x",
        "RUN --mount=type=cache,target=/k,id=reproduce cat /dev/null > /k/x; echo done > /done",
        files=TREE,
    ),
    case(
        "stages",
        "RUN echo before > /before",
        "FROM @ AS a",
        "RUN echo a > /a",
        "FROM @ AS b",
        "RUN echo b > /b",
        "FROM @",
        "COPY --from=a /a /",
        "COPY --from=b /b /",
    ),
    Case(
        "stage-times",
        "FROM scratch AS a\nCOPY . /\nFROM @\nCOPY --from=a / /x\nWORKDIR /new/dir\nRUN touch here\n",
        TREE,
    ),
)

CONTROL = "Package: hello\\nVersion: 1\\nArchitecture: all\\nMaintainer: t <t@example.invalid>\\nDescription: t\\n"

LARGE = (
    case("debian-user", "RUN useradd -m -s /bin/sh someone && rm -f /var/log/lastlog /var/log/faillog"),
    case("debian-group", "RUN groupadd -g 500 g && usermod -aG g games && cut -d: -f1,3 /etc/shadow > /days"),
    case("debian-perl", """RUN perl -e 'print join ",", map { $_ * 2 } 1..9' > /p"""),
    case("debian-hash", """RUN perl -e 'my %h = map { $_ => 1 } "a".."z"; print join ",", sort keys %h' > /h"""),
    case("debian-tar", "COPY src /src", "RUN tar cf /s.tar --sort=name /src && gzip -n /s.tar", files=TREE),
    case(
        "debian-find",
        "COPY src /src",
        "RUN find /src -type f -printf '%p %m %s %T@\\n' | sort > /list",
        files=TREE,
    ),
    case(
        "debian-package",
        f"RUN mkdir -p /p/DEBIAN && printf '{CONTROL}' > /p/DEBIAN/control && dpkg-deb -b /p /hello.deb",
        "RUN dpkg -i /hello.deb && rm -f /var/log/dpkg.log && dpkg-query -W hello > /installed",
    ),
    case("debian-remove", "RUN rm -rf /usr/share/doc /usr/share/man && rm /etc/issue"),
    case(
        "debian-alternative",
        "RUN update-alternatives --log /dev/null --install /usr/bin/pager2 pager2 /bin/cat 1",
    ),
    case(
        "debian-sed",
        "COPY . /w",
        "WORKDIR /w",
        "RUN sed -i s/a/b/ alpha && sort -o zeta zeta alpha && md5sum alpha zeta > sums",
        files=TREE,
    ),
    case("debian-ldconfig", "RUN ldconfig && rm -f /var/cache/ldconfig/aux-cache"),
    case(
        "debian-shell",
        'SHELL ["/bin/bash", "-euo", "pipefail", "-c"]',
        'RUN declare -A m=([a]=1 [b]=2); echo "${!m[*]}" > /k',
    ),
)
