"""Which drivers and options there are, checked when an instance is made; the texts are Docker's, tools know them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trivet.base.error import InvalidArgument
from trivet.shipper import tag
from trivet.shipper.address import Address

FILES = ("json-file", "local")  # kept here, in one and the same form
SHIPPED = ("journald", "syslog", "fluentd")
DRIVERS = (*FILES, "none", *SHIPPED)

FACTS = ("labels", "labels-regex", "env", "env-regex", "tag")
COMMON = ("mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
KNOWN: dict[str, tuple[str, ...]] = {
    "json-file": ("max-size", "max-file", "compress", *FACTS),
    "local": ("max-size", "max-file", "compress"),
    "journald": FACTS,
    "syslog": (
        *("syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert", "syslog-tls-cert"),
        *("syslog-tls-key", "syslog-tls-skip-verify", *FACTS),
    ),
    "fluentd": (
        *("fluentd-address", "fluentd-async", "fluentd-async-connect", "fluentd-async-reconnect-interval"),
        *("fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait"),
        *("fluentd-sub-second-precision", "fluentd-write-timeout", *FACTS),
    ),
}

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("", "", "", ""),
    *(f"local{number}" for number in range(8)),
)
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
TRUE, FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


def check(driver: str, options: Mapping[str, str]) -> None:
    """Raise `InvalidArgument` for a driver, an option or a value that isn't known."""
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver}' is registered")
    if driver == "none":
        return
    for key in sorted(options):
        if key not in (*KNOWN[driver], *COMMON):
            raise InvalidArgument(f"unknown log opt '{key}' for {driver} log driver")
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidArgument(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options and mode != "non-blocking":
        raise InvalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    for key, value in options.items():
        if look := VALUES.get(key):
            look(value)


def flag(value: str) -> bool:
    """Read a yes or no as Go does. Raises `InvalidArgument`."""
    if value not in (*TRUE, *FALSE):
        raise InvalidArgument(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    return value in TRUE


def facility(text: str) -> int:
    """Read a facility, by name or number. Raises `InvalidArgument`."""
    if text in FACILITIES and text:
        return FACILITIES.index(text)
    if text.isdigit() and int(text) < 24:
        return int(text)
    raise InvalidArgument("invalid syslog facility")


def _format(text: str) -> None:
    if text not in FORMATS:
        raise InvalidArgument("Invalid syslog format")


VALUES: dict[str, Callable[[str], object]] = {
    "tag": tag.check,
    "syslog-address": Address.syslog,
    "syslog-facility": facility,
    "syslog-format": _format,
    "fluentd-address": Address.fluentd,
    **{f"fluentd-{key}": flag for key in ("async", "async-connect", "request-ack", "sub-second-precision")},
}
