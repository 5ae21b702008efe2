"""What registries answer when they don't give what was asked for."""

from __future__ import annotations

from trivet.base.error import Conflict, Denied, NotFound, Unauthenticated, Unavailable


class RegistryUnavailable(Unavailable):
    """A registry that can't be reached, or can't help right now."""

    def __init__(self, registry: str, problem: str) -> None:
        super().__init__(
            f"registry {registry} does not answer: {problem}",
            hint="check the network, the registry's name and the proxy settings",
        )


class NotInRegistry(NotFound):
    """A repository, tag or blob the registry doesn't have."""

    def __init__(self, registry: str, what: str) -> None:
        super().__init__(f"registry {registry} has no {what}", hint="check the spelling of name and tag")


class LoginRequired(Unauthenticated):
    """A repository that isn't for everyone; registries say this of missing ones too."""

    def __init__(self, registry: str, repository: str) -> None:
        super().__init__(
            f"registry {registry} wants a login for {repository}, or the repository does not exist",
            hint=f"trivet login {registry}",
        )


class AccessDenied(Denied):
    """A repository that isn't for us with the credentials we have."""

    def __init__(self, registry: str, repository: str, reason: str) -> None:
        super().__init__(f"registry {registry} denies access to {repository}{': ' + reason if reason else ''}")


class UploadRefused(Conflict):
    """Content a registry doesn't take."""

    def __init__(self, registry: str, what: str, reason: str) -> None:
        super().__init__(f"registry {registry} refuses {what}: {reason}")


class LoginFailed(Unauthenticated):
    """A name and password a registry doesn't accept."""

    def __init__(self, registry: str, user: str) -> None:
        super().__init__(f"registry {registry} does not accept the password of {user}")
