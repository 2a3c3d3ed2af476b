"""What a remote is shown beyond the headers of its configuration, as the transports see it.

`headers` is read for every request and costs an attribute: a token that was renewed meanwhile is in the next request, on every
stream and session. It goes to the address of the remote's own entry and nowhere else: redirects are not followed.
Who keeps tokens is `remotes.tokens`; nothing here knows where they come from.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from remotes.upstream.outcome import Failure


class Credential(Protocol):
    @property
    def headers(self) -> Mapping[str, str]:
        """For the next request."""

    @property
    def serial(self) -> int:
        """Tells one token from the next: what a request was sent with is noted before it is sent."""

    @property
    def blocked(self) -> Failure | None:
        """Why nothing is to be sent: the credential has ended, and only a person can mend that."""

    async def ready(self, deadline: float) -> Failure | None:
        """Before a connection is opened: a token in `headers` if there is one to be had, or why not."""

    async def renew(self, used: int, refused: Failure, deadline: float) -> Failure | None:
        """After a 401 to token `used`: None when the request may be sent once more, else what to say instead."""

    async def accepted(self) -> None:
        """The remote took what it was shown."""

    async def close(self) -> None:
        """Nobody asks any more."""


class NoCredential:
    """The configuration's own headers are all there is."""

    headers: Mapping[str, str] = MappingProxyType({})
    serial = 0
    blocked: Failure | None = None

    async def ready(self, deadline: float) -> Failure | None:
        return None

    async def renew(self, used: int, refused: Failure, deadline: float) -> Failure | None:
        return refused

    async def accepted(self) -> None:
        pass

    async def close(self) -> None:
        pass


NO_CREDENTIAL = NoCredential()
