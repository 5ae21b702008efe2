"""Where Debian 12's runc and crun (1.1.5, 1.8.1) differ from runtime-spec 1.3.0 in what our cases ask for, and why."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

LATER = "newer than this version's specification"
WORDS = "refused too, in other words"
SILENT = "left out in silence, where we refuse"
HERE = "runs into what this machine doesn't let it do"


def lack(peer: str) -> str:
    """Tell why a peer can't be asked here at all, "" if it can."""
    if shutil.which(peer) is None:
        return f"no program {peer}"
    unified = Path("/sys/fs/cgroup/unified/cgroup.controllers")
    if peer == "crun" and unified.exists() and unified.read_text().strip():
        return "crun refuses hybrid control groups; make test-unified asks it in a guest"
    return ""


def _table(**rows: str) -> Iterator[tuple[str, str]]:
    reasons = {"later": LATER, "words": WORDS, "silent": SILENT, "here": HERE}
    for key, names in rows.items():
        for name in names.split(";"):
            yield name.strip(), reasons[key]


EXCEPTIONS = {
    "runc": dict(
        _table(
            later="""names; bind with other owners; recursively with other owners; scheduler; input and output;
                time namespace; interfaces; memory policy; filter; personality; processor; processor, idle;
                processes, none more""",
            words="maps without a user namespace; deadline; personality's flags",
            silent="""AppArmor; SELinux; SELinux of mounts; memory, further; weight; weight of a device; unified; cache;
                a virtual machine; other platforms""",
            here="terminal; limit beyond ours; user namespace; huge pages; root is shared",
        )
    ),
    "crun": dict(
        _table(
            later="""version; bind with other owners; recursively with other owners; scheduler; input and output;
                time namespace; interfaces; memory policy; filter; processor; processes, nothing said;
                processes, none more""",
            words="""maps without a user namespace; SELinux; memory, further; processor, real time; leaf weight;
                leaf weight of a device; network class; network priority; RDMA""",
            silent="""AppArmor; SELinux of mounts; deadline; cache; personality's flags; a virtual machine;
                other platforms""",
            here="terminal; limit beyond ours; user namespace",
        )
    ),
}
AFTER_RUNC_1_3 = {"interfaces", "memory policy", "processes, none more"}
