"""Redis, as one worker asks it: scripts, each with a deadline.

The first question that finds it away is the last that anybody waits for. From then on only the regular one asks (`anyway`), so
that no call and no stream pays for a Redis that hangs; what each of them does instead is written where it asks.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import RedisError

from gateway.cluster import said

log = logging.getLogger("mcp.cluster")

# Redis answers in a millisecond, or something is wrong with it.
_TIMEOUT_S = 1.0
# A connection on which nothing comes is looked at this often.
_LISTEN_S = 5.0
_AWAY = (RedisError, OSError, TimeoutError)


class Store:
    """`secret` tells gateways apart that share one Redis."""

    AWAY = _AWAY

    def __init__(self, url: str, secret: bytes) -> None:
        self.errors = 0
        self.is_away = False
        self.prefix = said.prefix(secret)
        # Once more, at once, for a connection that Redis closed while it was idle.
        once_more = Retry(NoBackoff(), 1, supported_errors=(Lost,))
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            decode_responses=True,
            retry=once_more,
        )

    def script(self, text: str) -> Any:
        return self._redis.register_script(text)

    async def ask(self, script: Any, keys: Sequence[str], args: Sequence[Any] = (), *, anyway: bool = False) -> Any:
        """What a script says; None when Redis is away."""
        if self.is_away and not anyway:
            return None
        try:
            async with asyncio.timeout(2 * _TIMEOUT_S):
                answer = await script(keys=keys, args=args)
        except _AWAY as error:
            self.errors += 1
            if not self.is_away:
                log.warning("Redis is away: each worker counts for itself (%s)", type(error).__name__)
            self.is_away = True
            return None
        if self.is_away:
            log.info("Redis is back")
            self.is_away = False
        return answer if answer is not None else 0

    async def hear(self, channel: str) -> AsyncIterator[str | None]:
        """What is said on a channel from now on: None as soon as it is listened to, and each time nothing came for a while.

        Raises one of `AWAY` when the connection is lost.
        """
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(channel)
            while True:
                came = await pubsub.get_message(timeout=_LISTEN_S)
                yield came["data"] if came is not None and came["type"] == "message" else None

    async def close(self) -> None:
        await self._redis.aclose()
