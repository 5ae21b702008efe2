"""Variables: what ARG declares, what comes from outside, and who wins (ENV over ARG)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from trivet.oci.platform import Platform

# Known without ARG, for RUN only; never part of history or cache key, so that a proxy's password doesn't stay.
PROXIES = frozenset(
    name
    for word in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (word, word.upper())
)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The build arguments one stage sees. `given` came with the request, `outer` from before the first FROM."""

    given: dict[str, str]
    platform: dict[str, str]
    outer: dict[str, str] = {}
    declared: dict[str, str] = {}

    def declare(self, name: str, default: str | None) -> Scope:
        """Apply one ARG: the request's value, else the default, else that of an outer ARG of the same name."""
        for source in (self.given, {} if default is None else {name: default}, self.outer, self.platform):
            if name in source:
                return msgspec.structs.replace(self, declared={**self.declared, name: source[name]})
        return self

    def inner(self) -> Scope:
        """Open a stage's scope: what was declared before the first FROM has to be declared again."""
        return Scope(given=self.given, platform=self.platform, outer=self.declared)

    def variables(self, env: Mapping[str, str]) -> dict[str, str]:
        """Give what instructions of a stage expand."""
        return {**self.declared, **env}

    def outside(self) -> dict[str, str]:
        """Give what FROM expands."""
        return {**self.platform, **self.declared}

    def secret(self) -> dict[str, str]:
        """Give the proxies of the request, for the environment of RUN."""
        return {name: value for name, value in self.given.items() if name in PROXIES}


def platform_arguments(target: Platform, build: Platform) -> dict[str, str]:
    """Name the platforms as the Dockerfile reference does (TARGETARCH, BUILDPLATFORM ...)."""
    found = {}
    for word, platform in (("TARGET", target), ("BUILD", build)):
        found[f"{word}PLATFORM"] = str(platform)
        found[f"{word}OS"] = platform.os
        found[f"{word}ARCH"] = platform.architecture
        found[f"{word}VARIANT"] = platform.variant or ""
    return found


def env_dict(env: Iterable[str] | None) -> dict[str, str]:
    """Read an image's environment; the last of equal names counts."""
    return dict(item.partition("=")[::2] for item in env or ())


def env_list(env: Mapping[str, str]) -> tuple[str, ...]:
    """Write an environment as a configuration holds it."""
    return tuple(f"{name}={value}" for name, value in env.items())
