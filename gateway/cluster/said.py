"""What every worker of every machine last said of itself, in Redis: written with each sign of life, read by `mcpstatus`.

A worker of another machine is not asked: what it said is two seconds old, and when it says nothing any more, the time since then
is the answer. Redis' own clock counts, so that machines whose clocks differ agree. What a worker says is bounded, and forgotten
an hour after its last word, or when it ends as it should.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

# Long enough that a machine which died in the night is still missed by who looks a while later.
KEPT_S = 3600
MAX_BYTES = 512 * 1024

# KEYS: when each worker spoke last, what it said. ARGV: this worker, what it says (nothing: it ends), seconds.
SAY = """
local now = redis.call('TIME')
now = tonumber(now[1]) + tonumber(now[2]) / 1000000
local long_ago = now - tonumber(ARGV[3])
for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', long_ago)) do redis.call('HDEL', KEYS[2], old) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', long_ago)
if ARGV[2] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
for _, name in ipairs(KEYS) do redis.call('EXPIRE', name, ARGV[3]) end
return 0
"""


class Said(NamedTuple):
    """What a worker, by its name in ids, said `age_s` ago."""

    instance: str
    age_s: float
    document: Mapping[str, Any]


def prefix(secret: bytes) -> str:
    """What all names in Redis begin with; `secret` tells gateways apart that share one Redis."""
    return f"mcp:{hashlib.sha256(secret + b'cluster').hexdigest()[:12]}"


def names(of: str) -> list[str]:
    return [f"{of}:spoke", f"{of}:said"]


def packed(document: Mapping[str, Any]) -> str:
    """For Redis. Of more remotes than fit, what each is like is left out but for its word."""
    text = json.dumps(document, separators=(",", ":"))
    if len(text) <= MAX_BYTES:
        return text
    words = {name: {"status": one.get("status")} for name, one in (document.get("mcps") or {}).items()}
    return json.dumps({**document, "mcps": words, "warnings": []}, separators=(",", ":"))


def read(url: str, secret: bytes, *, timeout_s: float) -> list[Said]:
    """What all workers said, youngest first; raises OSError where Redis does not answer."""
    from redis import Redis, RedisError

    spoke, said = names(prefix(secret))
    try:
        with Redis.from_url(url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s) as connection:
            pipe = connection.pipeline(transaction=False)
            pipe.time()
            pipe.zrange(spoke, 0, -1, withscores=True)
            pipe.hgetall(said)
            (seconds, micros), at, texts = pipe.execute()
        now = seconds + micros / 1e6
        return [
            Said(name.decode(), max(0.0, now - when), json.loads(texts[name]))
            for name, when in reversed(at)
            if name in texts
        ]
    except (RedisError, ValueError) as error:
        raise OSError(f"Redis does not answer ({type(error).__name__})") from error
