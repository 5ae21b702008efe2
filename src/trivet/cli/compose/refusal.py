"""What of a service trivet doesn't do: refused with its path, so that nobody believes to have it."""

from __future__ import annotations

from trivet.cli.compose.document import ComposeError
from trivet.cli.compose.reader import Reader
from trivet.cli.compose.shape import JOB, SERVICE

REFUSED = {
    "cpu_rt_period": ("real-time scheduling is not given to groups", "give it cap_add: [SYS_NICE]"),
    "cpu_rt_runtime": ("real-time scheduling is not given to groups", "give it cap_add: [SYS_NICE]"),
    "credential_spec": ("is for containers of Windows", ""),
    "gpus": ("is not supported", "name the nodes: devices: [/dev/dri]"),
    "models": ("is not supported: trivet runs no language models", "run the model server as a service"),
    "provider": ("is not supported: services are instances", ""),
}
ENDPOINT = {
    "interface_name": "is not supported: interfaces are eth0, eth1, in the order of the networks",
    "link_local_ips": "is not supported",
}
MODES = ("replicated", "global")


def refuse(read: Reader) -> None:
    """Raise `ComposeError` for the first thing that can't be had."""
    known = JOB if read.is_job else SERVICE
    for key in read.service:
        if key in REFUSED:
            raise ComposeError(f"{read.place}.{key}", *REFUSED[key])
        if key not in known:
            hint = f"known are {', '.join(sorted(known))}"
            raise ComposeError(f"{read.place}.{key}", "is not supported", hint)
    for name, how in (read.service.get("networks") or {}).items():
        for key in how or ():
            if key in ENDPOINT:
                raise ComposeError(f"{read.place}.networks.{name}.{key}", ENDPOINT[key])
    _refuse_deploy(read)


def _refuse_deploy(read: Reader) -> None:
    deploy = read.mapping("deploy")
    mode = str(deploy.get("mode") or MODES[0])
    if mode not in MODES:
        hint = "write it under jobs:" if mode.endswith("-job") else ""
        raise ComposeError(f"{read.place}.deploy.mode", f"{mode!r} is none of {', '.join(MODES)}", hint)
    reserved = (deploy.get("resources") or {}).get("reservations") or {}
    if reserved.get("devices"):
        raise ComposeError(f"{read.place}.deploy.resources.reservations.devices", *REFUSED["gpus"])
