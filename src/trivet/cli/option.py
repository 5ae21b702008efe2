"""The options of `run` and `create`: one table, in the order of the help."""

from __future__ import annotations

import argparse

from trivet.cli import value
from trivet.cli.argument import FILE, IMAGE, NETWORK, repeated
from trivet.cli.command import flag, option, under
from trivet.cli.device import device, rate_of
from trivet.cli.endpoint import network
from trivet.cli.link import link
from trivet.cli.mount import mount, secret, storage, tmpfs, volume
from trivet.cli.port import publish
from trivet.cli.terminal import DETACH_KEYS, keys

LEVELS = ("process", "container", "vm")

TERMINAL = (
    flag("-i", "--interactive", help="pass standard input on"),
    flag("-t", "--tty", help="give the program a terminal"),
)
KEYS = option(
    "--detach-keys",
    metavar="KEYS",
    type=keys,
    default=keys(DETACH_KEYS),
    help=f"keys that detach (default: {DETACH_KEYS})",
)
PROXY = option(
    "--sig-proxy",
    metavar="BOOL",
    type=value.boolean,
    default=True,
    help="forward signals to the program (default: true)",
)

PROGRAM = (
    *TERMINAL,
    repeated("-e", "--env", metavar="KEY[=VALUE]", help="set a variable; without a value take it from the environment"),
    repeated("--env-file", metavar="FILE", help="read variables from a file, one KEY=VALUE a line", complete=FILE),
    option("-w", "--workdir", metavar="DIR", default="", help="working directory inside"),
    option("-u", "--user", metavar="USER[:GROUP]", default="", help="name or number, looked up in the image"),
)

SHARED = (
    *under("program", *PROGRAM),
    *under(
        "program",
        repeated("--group-add", metavar="GROUP", help="add a supplementary group"),
        option(
            "--umask", metavar="MODE", type=value.mask, default=-1, help="what new files don't permit (default: 0022)"
        ),
        option("--entrypoint", metavar="PROGRAM", help='replace the image\'s entrypoint; "" removes it'),
        flag("--init", help="run a small init as PID 1 that reaps orphans"),
        option("--stop-signal", metavar="SIGNAL", default="", help="signal that asks the program to end"),
        option(
            "--stop-timeout",
            metavar="TIME",
            type=value.seconds,
            default=10,
            help="grace before it is killed (default: 10s)",
        ),
        option("--health-cmd", metavar="LINE", default="", help="shell line that finds out whether it works"),
        option("--health-interval", metavar="TIME", type=value.duration, default=0.0, help="between checks (30s)"),
        option(
            "--health-timeout", metavar="TIME", type=value.duration, default=0.0, help="longest a check takes (30s)"
        ),
        option("--health-retries", metavar="N", type=int, default=0, help="failures in a row that mean unhealthy (3)"),
        option(
            "--health-start-period", metavar="TIME", type=value.duration, default=0.0, help="failures don't count yet"
        ),
        option(
            "--health-start-interval", metavar="TIME", type=value.duration, default=0.0, help="between checks then (5s)"
        ),
        option(
            "--health-on-failure",
            choices=("none", "kill", "restart", "stop"),
            default="none",
            help="what to do with an unhealthy instance",
        ),
        flag("--no-healthcheck", help="don't check, whatever the image says"),
        option("--restart", metavar="POLICY", default="no", help="no, always, unless-stopped or on-failure[:N]"),
    ),
    *under(
        "identity",
        option("--name", metavar="NAME", default="", help="name; one is made up otherwise"),
        option("-h", "--hostname", metavar="NAME", default="", help="host name inside"),
        repeated("-l", "--label", metavar="KEY[=VALUE]", type=value.label, help="attach a label"),
        repeated("--label-file", metavar="FILE", help="read labels from a file", complete=FILE),
        option("--cidfile", metavar="FILE", help="write the id to a file that must not exist yet"),
    ),
    *under(
        "isolation",
        option(
            "--isolation", metavar="LEVEL", help="process, container or vm (default: TRIVET_ISOLATION or container)"
        ),
        flag("--privileged", help="give every capability and device, and the host's users"),
        option(
            "--userns",
            choices=("private", "host"),
            default="",
            help="users of its own, as containers have, or the host's (default: private)",
        ),
        repeated("--device", metavar="SRC[:DST[:rwm]]", type=device, help="give a device; users are the host's then"),
        option("--pid", metavar="MODE", default="", help="processes it sees: private, host or container:INSTANCE"),
        option(
            "--ipc",
            metavar="MODE",
            default="",
            help="shared memory and queues: private, shareable, none, host or container:INSTANCE (default: private)",
        ),
        option("--cgroupns", choices=("private", "host"), default="", help="control groups (default: private)"),
        option("--cgroup-parent", metavar="PATH", default="", help="make its control group below this one"),
        option("--uts", choices=("private", "host"), default="", help="host name (default: private)"),
        repeated("--cap-add", metavar="CAP", help="add a capability, or ALL"),
        repeated("--cap-drop", metavar="CAP", help="drop a capability, or ALL"),
        repeated("--security-opt", metavar="OPT", help="seccomp=default|unconfined, no-new-privileges[=BOOL]"),
        flag("--read-only", help="mount the root file system read-only"),
    ),
    *under(
        "storage",
        repeated("-v", "--volume", metavar="SRC:DST[:ro]", type=volume, help="show a host path or a volume inside"),
        repeated("--mount", metavar="SPEC", type=mount, help="type=bind|volume|image|tmpfs,source=..,target=..[,ro]"),
        repeated("--secret", metavar="NAME[,target=..]", type=secret, help="give a secret, as file /run/secrets/NAME"),
        repeated("--tmpfs", metavar="DST[:size=N]", type=tmpfs, help="mount memory at a directory"),
        option("--shm-size", metavar="SIZE", type=value.size, default=64 << 20, help="size of /dev/shm (default: 64m)"),
        option(
            "--storage-opt",
            metavar="size=SIZE",
            type=storage,
            default=0,
            help="what the writable layer may take, 16m at least (default: no limit; of a machine 10g)",
        ),
    ),
    *under(
        "network",
        repeated(
            "--network",
            "--net",
            metavar="NETWORK",
            type=network,
            help="a network's name, host, none or container:INSTANCE; or name=..,alias=..,ip=..,ip6=..,mac-address=..,"
            "gw-priority=N,rate-in=..,rate-out=..",
            complete=NETWORK,
        ),
        repeated("--expose", metavar="PORT[/udp]", help="say that a port is for others, for -P and to look at"),
        repeated("--link", metavar="INSTANCE[:ALIAS]", type=link, help="know another instance by a name of one's own"),
        repeated(
            "-p",
            "--publish",
            metavar="[IP:][HOST:]PORT[/udp]",
            type=publish,
            help="publish a port, or a range 8000-8010",
        ),
        flag("-P", "--publish-all", help="publish every port the image exposes"),
        repeated("--network-alias", "--net-alias", metavar="NAME", help="a further name on the network"),
        option("--ip", metavar="ADDRESS", default="", help="IPv4 address on the network"),
        option("--ip6", metavar="ADDRESS", default="", help="IPv6 address on the network"),
        option("--mac-address", metavar="MAC", default="", help="hardware address, such as 02:42:ac:11:00:02"),
        repeated("--dns", metavar="ADDRESS", help="name server"),
        repeated("--dns-search", metavar="DOMAIN", help='domain that short names are looked up in; "." for none'),
        repeated("--dns-option", "--dns-opt", metavar="OPTION", help="resolver option, such as ndots:2"),
        repeated("--add-host", metavar="NAME:ADDRESS", help="a line for /etc/hosts; host-gateway is the host"),
    ),
    *under(
        "resources",
        option("-m", "--memory", metavar="SIZE", type=value.size, default=0, help="memory limit, such as 512m"),
        option(
            "--memory-swap",
            metavar="SIZE",
            type=value.size_or_unlimited,
            default=0,
            help="memory and swap; -1: unlimited",
        ),
        option("--memory-reservation", metavar="SIZE", type=value.size, default=0, help="memory kept under pressure"),
        option("--cpus", metavar="N", type=value.cores, default=0.0, help="number of CPUs, such as 1.5"),
        option(
            "-c",
            "--cpu-shares",
            metavar="N",
            type=value.natural,
            default=0,
            help="weight against others (1024 is normal)",
        ),
        option("--cpuset-cpus", metavar="LIST", default="", help="CPUs it may use: 0-2,5"),
        option("--cpuset-mems", metavar="LIST", default="", help="memory nodes it may use: 0-1"),
        option("--memory-swappiness", metavar="N", type=int, default=-1, help="how gladly it is swapped out, 0 to 100"),
        flag("--oom-kill-disable", help="programs wait, instead of being killed, when their memory is used up"),
        option("--oom-score-adj", metavar="N", type=int, default=0, help="whom the kernel kills first: -1000 to 1000"),
        repeated("--device-read-bps", metavar="DEVICE:SIZE", type=rate_of(value.size), help="read so much a second"),
        repeated("--device-write-bps", metavar="DEVICE:SIZE", type=rate_of(value.size), help="write so much a second"),
        repeated("--device-read-iops", metavar="DEVICE:N", type=rate_of(value.natural), help="read so often"),
        repeated("--device-write-iops", metavar="DEVICE:N", type=rate_of(value.natural), help="write so often"),
        repeated("--device-cgroup-rule", metavar="RULE", help='allow devices: "c 1:3 rwm"'),
        option("--pids-limit", metavar="N", type=int, default=0, help="number of processes; -1: unlimited"),
        repeated("--ulimit", metavar="NAME=SOFT[:HARD]", help="resource limit, such as nofile=1024:4096"),
        repeated("--sysctl", metavar="KEY=VALUE", type=value.pair, help="kernel parameter of its own namespaces"),
    ),
    *under(
        "image and log",
        option(
            "--pull", choices=("missing", "always", "never"), default="missing", help="when to fetch (default: missing)"
        ),
        option("--platform", metavar="OS/ARCH", default="", help="platform to choose from an index"),
        option(
            "--log-driver",
            metavar="DRIVER",
            default="json-file",
            help="json-file and local keep the log; journald, syslog and fluentd are sent it, too; none keeps nothing",
        ),
        repeated("--log-opt", metavar="KEY=VALUE", type=value.pair, help="max-size=SIZE, max-file=N; see docs/log.md"),
        flag("-q", "--quiet", help="no progress of a pull"),
        flag("--dry-run", help="print the plan and the operations, do nothing"),
        flag("--json", help="print JSON where something is printed"),
    ),
    option("image", metavar="IMAGE", help="name, id or beginning of an id", complete=IMAGE),
    option("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="program and arguments instead of the image's"),
)
