"""Fields that need somebody outside of the container: a listener, an interface, a further program."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from typing import Any

import pytest
from tests.conformance.field_case import linux, seccomp
from tests.runtime import Runtime


def test_listener(runtime: Runtime) -> None:
    """A listener gets the filter's descriptor with the state and the metadata, and the program waits for answers."""
    path = runtime.bundle / "listener"
    got: list[Any] = []

    def listen(server: socket.socket) -> None:
        connection, _ = server.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
        got.append((json.loads(message), len(descriptors)))
        for descriptor in descriptors:
            os.close(descriptor)  # whoever listens is gone: calls fail with ENOSYS
        connection.close()

    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}
    runtime.change(
        {"annotations": {"a": "b"}}
        | seccomp("SCMP_ACT_ALLOW", rule, listenerPath=str(path), listenerMetadata="for us"),
        "sh",
        "-c",
        "mkdir /tmp/x 2>&1; true",
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(20)
        thread = threading.Thread(target=listen, args=(server,))
        thread.start()
        done = runtime("run", runtime.id)
        thread.join(timeout=20)
    assert done.returncode == 0, done
    assert b"Function not implemented" in done.stdout
    [(message, count)] = got
    assert (count, message["fds"], message["metadata"]) == (1, ["seccompFd"], "for us")
    assert message["state"]["id"] == runtime.id
    assert message["state"]["annotations"] == {"a": "b"}
    assert message["pid"] == message["state"]["pid"] > 0
    assert b"listener" in runtime("run", runtime.id).stderr  # nobody listens any more


@pytest.mark.needs("ip")
def test_interface(runtime: Runtime) -> None:
    """An interface moves into the container, is renamed, and keeps its addresses and MTU."""
    runtime.change(linux(netDevices={"ours": {"name": "net0"}}), "sh", "-c", "ip addr show net0")
    script = """
        ip link add ours mtu 1400 type veth peer name theirs && ip link set theirs up
        ip addr add 192.0.2.5/24 dev ours && ip addr add 2001:db8::5/64 dev ours nodad && exec "$@"
    """
    command = ["unshare", "--net", "sh", "-c", script, "sh", str(runtime.command), "--root", str(runtime.root)]
    done = subprocess.run([*command, "run", runtime.id], cwd=runtime.bundle, capture_output=True, timeout=60, text=True)
    assert done.returncode == 0, done
    for words in ("mtu 1400", "inet 192.0.2.5/24", "inet6 2001:db8::5/64", ",UP"):
        assert words in done.stdout


def test_affinity_of_exec(runtime: Runtime) -> None:
    """A program that exec adds may be kept to processors of its own."""
    runtime.change({}, "sleep", "60")
    assert runtime("run", "--detach", runtime.id).returncode == 0
    path = runtime.bundle / "process.json"
    added = {"cwd": "/", "args": ["grep", "Cpus_allowed_list", "/proc/self/status"]}
    path.write_text(json.dumps(added | {"execCPUAffinity": {"initial": "0", "final": "0"}}))
    assert runtime("exec", "--process", path, runtime.id).stdout.split() == [b"Cpus_allowed_list:", b"0"]
    path.write_text(json.dumps(added | {"execCPUAffinity": {"initial": "x"}}))
    assert b"$.process.execCPUAffinity.initial" in runtime("exec", "--process", path, runtime.id).stderr
