"""Networks."""

from __future__ import annotations

from argparse import Namespace

from trivet.cli import value
from trivet.cli.argument import FILTER, NETWORK, REF, repeated
from trivet.cli.command import Command, flag, option
from trivet.cli.context import Context
from trivet.cli.endpoint import rate
from trivet.cli.instance import each
from trivet.cli.output import FORMAT, JSON, QUIET, Column, short, show, write_array, write_json
from trivet.cli.prune import prune_command
from trivet.client.schema_network import EndpointRequest, Network, NetworkRequest


def create(context: Context, args: Namespace) -> int:
    """Make a network."""
    made = context.client.networks.create(
        NetworkRequest(
            name=args.name,
            driver=args.driver,
            subnet=args.subnet,
            gateway=args.gateway,
            ip_range=args.ip_range,
            ipv4=args.ipv4,
            ipv6=args.ipv6,
            subnet6=args.subnet6,
            gateway6=args.gateway6,
            options=dict(args.opt),
            internal=args.internal,
            mtu=args.mtu,
            labels=dict(args.label),
        )
    )
    if args.json:
        write_json(made)
    else:
        print(made.id)
    return 0


def list_(context: Context, args: Namespace) -> int:
    """List networks."""
    rows = sorted(context.client.networks.list(value.collect(args.filter)), key=lambda row: row.name)
    if args.quiet:
        for row in rows:
            print(short(row.id, args))
        return 0
    columns: list[Column[Network]] = [
        Column("ID", lambda row: short(row.id, args)),
        Column("NAME", lambda row: row.name),
        Column("DRIVER", lambda row: row.driver),
        Column("SUBNET", lambda row: ", ".join(filter(None, (row.subnet, row.subnet6))) or "-"),
        Column("REACH", lambda row: "internal" if row.internal else "outside" if row.subnet or row.subnet6 else "-"),
        Column("INSTANCES", lambda row: ", ".join(sorted(row.members))),
    ]
    show(rows, columns, args, lambda row: row.name)
    return 0


def inspect(context: Context, args: Namespace) -> int:
    """Show networks as a JSON array."""
    write_array([context.client.networks.get(ref) for ref in args.networks])
    return 0


def remove(context: Context, args: Namespace) -> int:
    """Remove networks."""
    return each(context, args, args.networks, context.client.networks.remove)


def connect(context: Context, args: Namespace) -> int:
    """Put an instance on a network."""
    endpoint = EndpointRequest(
        network=args.network,
        aliases=args.alias,
        ip=args.ip,
        ip6=args.ip6,
        mac=args.mac_address,
        priority=args.gw_priority,
        rate_in=args.rate_in,
        rate_out=args.rate_out,
    )
    context.client.networks.connect(args.network, args.instance, endpoint)
    return 0


def disconnect(context: Context, args: Namespace) -> int:
    """Take an instance from a network."""
    context.client.networks.disconnect(args.network, args.instance)
    return 0


ONE = option("network", metavar="NETWORK", help="name or id", complete=NETWORK)
REFS = option("networks", metavar="NETWORK", nargs="+", help="name or id", complete=NETWORK)

COMMANDS = {
    "create": Command(
        create,
        (
            option(
                "-d", "--driver", metavar="DRIVER", default="bridge", help="bridge (default), macvlan, ipvlan, overlay"
            ),
            option(
                "--subnet", metavar="CIDR", default="", help="addresses, such as 10.9.0.0/24; a free range otherwise"
            ),
            option("--gateway", metavar="ADDRESS", default="", help="the host's address on it"),
            option("--ip-range", metavar="CIDR", default="", help="where in the subnet addresses are taken from"),
            option(
                "--ipv4",
                metavar="BOOL",
                type=value.boolean,
                default=True,
                help="false: IPv6 alone, with --ipv6 or --subnet6",
            ),
            flag("--ipv6", help="IPv6 too, with unique local addresses unless --subnet6 says others"),
            option("--subnet6", metavar="CIDR", default="", help="IPv6 addresses, such as 2001:db8:9::/64"),
            option("--gateway6", metavar="ADDRESS", default="", help="the host's IPv6 address on it"),
            repeated(
                "-o", "--opt", metavar="KEY=VALUE", type=value.pair, help="option of the driver, as Docker has it"
            ),
            flag("--internal", help="no way out, no names from outside"),
            option("--mtu", metavar="BYTES", type=value.natural, default=1500, help="largest packet (default: 1500)"),
            repeated("--label", metavar="KEY[=VALUE]", type=value.label, help="attach a label"),
            *JSON,
            option("name", metavar="NAME", help="its name"),
        ),
        examples=(
            ("trivet network create --subnet 10.9.0.0/24 back", ""),
            ("trivet run --network back --name db postgres", ""),
        ),
    ),
    "ls": Command(list_, (FILTER, *QUIET, *FORMAT), examples=(("trivet network ls", ""),)),
    "inspect": Command(inspect, (REFS,), examples=(("trivet network inspect back", ""),)),
    "connect": Command(
        connect,
        (
            repeated("--alias", metavar="NAME", help="a further name on the network"),
            option("--ip", metavar="ADDRESS", default="", help="IPv4 address on it"),
            option("--ip6", metavar="ADDRESS", default="", help="IPv6 address on it"),
            option("--mac-address", metavar="MAC", default="", help="hardware address"),
            option("--gw-priority", metavar="N", type=int, default=0, help="the highest has the default route"),
            option("--rate-in", metavar="RATE", type=rate, default=0, help="what it may get, such as 10mbit"),
            option("--rate-out", metavar="RATE", type=rate, default=0, help="what it may send"),
            ONE,
            REF,
        ),
        examples=(("trivet network connect --alias db back web", ""),),
    ),
    "disconnect": Command(disconnect, (ONE, REF), examples=(("trivet network disconnect back web", ""),)),
    "rm": Command(remove, (*JSON, REFS), examples=(("trivet network rm back", ""),)),
    "prune": prune_command(("networks",), "trivet network prune"),
}
