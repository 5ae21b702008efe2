"""`lint run` names each option that opens a way out, and nothing else."""

from __future__ import annotations

import json

import pytest

from trivet.cli.main import main

DANGEROUS = [
    ("--privileged", "privileged"),
    ("--isolation process", "level-process"),
    ("--pid host", "pid-host"),
    ("--pid host --cap-add SYS_PTRACE", "trace-host"),
    ("--ipc host", "ipc-host"),
    ("--network host", "network-host"),
    ("--userns host", "userns-host"),
    ("--security-opt seccomp=unconfined", "seccomp"),
    ("--security-opt no-new-privileges=false", "new-privileges"),
    ("--device /dev/null", "devices"),
    ("-v /var/run/docker.sock:/var/run/docker.sock", "mount-socket"),
    ("--mount type=bind,source=/run/trivet/trivet.sock,target=/s", "mount-socket"),
    ("-v /:/host:ro", "mount-root"),
    ("-v /tmp/..:/host", "mount-root"),
    ("-v /etc:/host", "mount-system"),
    ("-v /etc/ssl:/etc/ssl", "mount-system"),
    ("-v /run:/run", "mount-run"),
    ("-v /proc/sys:/x", "mount-kernel"),
    ("--cap-add SYS_ADMIN", "sys-admin"),
    ("--cap-add cap_sys_module", "sys-module"),
    ("--cap-add SYS_RAWIO", "sys-rawio"),
    ("--cap-add SYS_PTRACE", "sys-ptrace"),
    ("--cap-add SYS_BOOT", "sys-boot"),
    ("--cap-add DAC_READ_SEARCH", "dac-read-search"),
    ("--cap-add ALL", "sys-admin"),
    ("--cap-add BPF", "bpf"),
    ("--cap-add NET_ADMIN", "net-admin"),
    ("--cap-add NET_RAW", "net-raw"),
    ("--isolation vm -v /etc:/host", "mount-system"),
]
HARMLESS = [
    "",
    "--cap-drop ALL --read-only",
    "-v data:/etc",
    "-v /srv/etc:/x",
    "-v /etcetera:/x",
    "--isolation vm --cap-add SYS_ADMIN",
    "--cap-add CHOWN -p 80:80",
]


@pytest.mark.parametrize(("options", "rule"), DANGEROUS)
def test_what_is_dangerous(options: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The danger is named with the option and the reason, and the exit code tells."""
    assert main(["lint", "run", "--json", *options.split(), "image"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert rule in [each["rule"] for each in found]
    assert all(each["what"] and each["why"] for each in found)


@pytest.mark.parametrize("options", HARMLESS)
def test_what_is_not(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is said of options that open nothing."""
    assert main(["lint", "run", *options.split(), "image"]) == 0
    assert capsys.readouterr().out == ""


def test_wrong_options_are_no_finding(capsys: pytest.CaptureFixture[str]) -> None:
    """A line that `run` would refuse is refused, with another exit code than a finding's."""
    assert main(["lint", "run", "--privilege", "image"]) == 2
    assert "--privilege" in capsys.readouterr().err
