"""The shapes that compose files may have, as people write them; msgspec tells where one is another."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from trivet.cli.compose.document import ComposeError

Scalar: TypeAlias = str | int | float | bool | None
Item: TypeAlias = str | int | float | bool
Words: TypeAlias = Scalar | list[Item]
Pairs: TypeAlias = dict[str, Scalar] | list[Item] | None
Table: TypeAlias = dict[str, Scalar] | None
Flag: TypeAlias = bool | str  # a variable may stand there
Number: TypeAlias = int | str


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    """A mapping with keys that are known."""


class Port(Shape):
    """A published port, in its long form."""

    target: Scalar
    published: Scalar = None
    host_ip: Scalar = None
    protocol: Scalar = None
    mode: Scalar = None
    name: Scalar = None
    app_protocol: Scalar = None


class Volume(Shape):
    """A mount, in its long form."""

    target: str
    type: str = "volume"
    source: Scalar = None
    read_only: Scalar = None
    consistency: Scalar = None
    bind: Table = None
    volume: dict[str, Scalar | list[Item] | dict[str, Scalar]] | None = None
    tmpfs: Table = None
    image: Table = None


class Grant(Shape):
    """A secret or config of a service, in its long form."""

    source: str
    target: str | None = None
    uid: Scalar = None
    gid: Scalar = None
    mode: Scalar = None


class Endpoint(Shape):
    """A network of a service."""

    aliases: list[Item] | None = None
    ipv4_address: str | None = None
    ipv6_address: str | None = None
    mac_address: str | None = None
    priority: Scalar = None
    gw_priority: Number | None = None
    interface_name: Scalar = None
    link_local_ips: list[Item] | None = None
    driver_opts: Table = None
    use_service_name_alias: Flag = True


class Need(Shape):
    """How a service is needed."""

    condition: str = "service_started"
    restart: Flag = False
    required: Flag = True


class Health(Shape):
    """A health check."""

    test: Words = None
    interval: Scalar = None
    timeout: Scalar = None
    start_period: Scalar = None
    start_interval: Scalar = None
    retries: Number | None = None
    disable: Flag = False


class EnvFile(Shape):
    """A file of variables."""

    path: str
    required: Flag = True
    format: str | None = None


class Extends(Shape):
    """What a service extends."""

    service: str
    file: str | None = None


class Hook(Shape):
    """A program that is run inside, after a start, before a stop or when files have changed."""

    command: Words = None
    user: Scalar = None
    privileged: Flag = False
    working_dir: str = ""
    environment: Pairs = None


class Logging(Shape):
    """Where output goes."""

    driver: str = "json-file"
    options: Table = None


class Rule(Shape):
    """What is done when files change."""

    path: str
    action: str
    target: str | None = None
    ignore: Words = None
    include: Words = None
    initial_sync: Flag | None = None
    exec: Hook | None = None


class Develop(Shape):
    """What is watched."""

    watch: list[Rule] | None = None


class Update(Shape):
    """How a service is updated."""

    parallelism: Number = 1
    delay: Scalar = None
    failure_action: str = "pause"
    monitor: Scalar = None
    max_failure_ratio: Scalar = None
    order: str = "stop-first"


class Limits(Shape):
    """What a service may use, or shall find."""

    limits: Table = None
    reservations: dict[str, Scalar | list[Any]] | None = None


class Again(Shape):
    """When a service is started again."""

    condition: str = "any"
    delay: Scalar = None
    max_attempts: Number = 0
    window: Scalar = None


class Deploy(Shape):
    """How many of a service there are, and what they may use."""

    mode: Scalar = None
    replicas: Number = 1
    labels: Pairs = None
    endpoint_mode: Scalar = None
    placement: Any = None
    resources: Limits | None = None
    restart_policy: Again | None = None
    update_config: Update | None = None
    rollback_config: Update | None = None


class Device(Shape):
    """A device node, in its long form."""

    source: str
    target: str = ""
    permissions: str = "rwm"


class Rate(Shape):
    """What may be done with a block device in a second."""

    path: str
    rate: Item


class Weight(Shape):
    """The share of a block device."""

    path: str
    weight: Item


class Blocks(Shape):
    """How block devices may be used."""

    weight: Scalar = None
    weight_device: list[Weight] | None = None
    device_read_bps: list[Rate] | None = None
    device_read_iops: list[Rate] | None = None
    device_write_bps: list[Rate] | None = None
    device_write_iops: list[Rate] | None = None


class Fire(Shape):
    """When a job is begun by the clock."""

    cron: str
    timezone: str | None = None
    concurrency: str = "forbid"
    missed_fires: str = "skip"


class Triggers(Shape):
    """What begins a job."""

    manual: Flag = True
    schedule: list[str | Fire] | None = None


class Service(Shape):
    """A service. What trivet doesn't know is refused by `service.py`, which has the better words."""

    blkio_config: Blocks | None = None
    build: str | dict[str, Any] | None = None
    cap_add: list[Item] | None = None
    cap_drop: list[Item] | None = None
    command: Words = None
    configs: list[str | Grant] | None = None
    container_name: str | None = None
    depends_on: list[str] | dict[str, Need | None] | None = None
    deploy: Deploy | None = None
    develop: Develop | None = None
    device_cgroup_rules: list[str] | None = None
    devices: list[str | Device] | None = None
    dns: Words = None
    dns_opt: Words = None
    dns_search: Words = None
    entrypoint: Words = None
    env_file: str | list[str | EnvFile] | None = None
    environment: Pairs = None
    annotations: Pairs = None
    expose: list[Item] | None = None
    extends: str | Extends | None = None
    external_links: list[str] | None = None
    extra_hosts: dict[str, Words] | list[Item] | None = None
    group_add: list[Item] | None = None
    healthcheck: Health | None = None
    image: Scalar = None
    label_file: Words = None
    labels: Pairs = None
    links: list[str] | None = None
    logging: Logging | None = None
    networks: list[str] | dict[str, Endpoint | None] | None = None
    ports: list[Item | Port] | None = None
    post_start: list[Hook] | None = None
    pre_start: list[dict[str, Any]] | None = None
    pre_stop: list[Hook] | None = None
    profiles: list[Item] | None = None
    secrets: list[str | Grant] | None = None
    security_opt: list[str] | None = None
    storage_opt: Table = None
    sysctls: Pairs = None
    tmpfs: Words = None
    triggers: Triggers | None = None
    ulimits: dict[str, int | str | dict[str, int | str]] | None = None
    volumes: list[str | Volume] | None = None
    volumes_from: list[str] | None = None


class Pool(Shape):
    """A range of addresses."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    aux_addresses: Table = None


class Addresses(Shape):
    """How addresses are managed."""

    driver: Scalar = None
    config: list[Pool] | None = None
    options: Table = None


class Store(Shape):
    """A network, volume, secret or config."""

    name: str | None = None
    external: Flag | Table = None
    driver: Scalar = None
    driver_opts: Table = None
    labels: Pairs = None
    attachable: Flag = False
    internal: Flag = False
    enable_ipv4: Flag = True
    enable_ipv6: Flag = False
    ipam: Addresses | None = None
    file: str | None = None
    environment: str | None = None
    content: Scalar = None
    template_driver: Scalar = None


class Include(Shape):
    """Another project."""

    path: str | list[str]
    project_directory: str | None = None
    env_file: str | list[str] | None = None


class Document(Shape):
    """A compose file."""

    version: Scalar = None
    name: str | None = None
    include: str | list[str | Include] | None = None
    services: dict[str, dict[str, Any] | None] | None = None
    jobs: dict[str, dict[str, Any] | None] | None = None
    models: Any = None
    networks: dict[str, Store | None] | None = None
    volumes: dict[str, Store | None] | None = None
    secrets: dict[str, Store | None] | None = None
    configs: dict[str, Store | None] | None = None


_PLAIN = set(Service.__struct_fields__)
SINGLE = set(
    "attach cgroup cgroup_parent cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares"
    " cpus cpuset domainname hostname init ipc isolation mac_address mem_limit mem_reservation mem_swappiness"
    " memswap_limit network_mode oom_kill_disable oom_score_adj per_replica pid pids_limit platform privileged"
    " pull_policy pull_refresh_after read_only restart runtime scale shm_size stdin_open stop_grace_period"
    " stop_signal tty umask use_api_socket user userns_mode uts working_dir".split()
)
SERVICE = (_PLAIN | SINGLE) - {"per_replica", "triggers"}
CONTAINER = SERVICE - set(
    "attach container_name depends_on deploy develop extends expose external_links healthcheck links ports post_start"
    " pre_start pre_stop profiles restart scale stdin_open tty".split()
)
JOB = (_PLAIN | SINGLE) - set(
    "attach container_name deploy develop external_links links per_replica post_start pre_start pre_stop restart"
    " scale".split()
)


def check(document: dict[str, Any], name: str) -> None:
    """Compare a file with the shapes. Raises `ComposeError` with the path of the first mistake."""
    document = _own(document)
    _convert(document, Document, name, "")
    for kind in ("services", "jobs"):
        for key, service in (document.get(kind) or {}).items():
            if service is None:
                raise ComposeError(f"{name}: {kind}.{key}", "is empty")
            _service(service, name, f"{kind}.{key}")


def _service(service: dict[str, Any], name: str, place: str) -> None:
    _convert({one: value for one, value in service.items() if one in _PLAIN}, Service, name, place)
    for one, value in service.items():
        if one in SINGLE and not isinstance(value, str | int | float | None):
            raise ComposeError(f"{name}: {place}.{one}", "is no single value")
    for number, step in enumerate(service.get("pre_start") or ()):
        _service(step, name, f"{place}.pre_start[{number}]")


def _convert(value: Any, shape: type, name: str, place: str) -> None:
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        words, _, where = str(error).partition(" - at `$")
        path = f"{place}{where.rstrip('`')}".lstrip(".")
        raise ComposeError(f"{name}: {path}" if path else name, words[:1].lower() + words[1:]) from error


def _own(value: Any) -> Any:
    """Leave extensions out."""
    if isinstance(value, dict):
        return {key: _own(one) for key, one in value.items() if not key.startswith("x-")}
    return [_own(one) for one in value] if isinstance(value, list) else value
