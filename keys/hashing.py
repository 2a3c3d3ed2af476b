"""How a key is stored: argon2id of the whole key, in a strength that fits what it protects.

A key holds 256 random bits: no dictionary finds it, and a strong setting would protect nothing but give anybody without a key
a way to burn our CPU (with argon2's defaults, 40 bad callers were measured to hold two cores). One pass over 8 MiB is 4 ms.
Nothing here limits how often it runs; `keys.authenticate` does.
"""

import secrets
from functools import cache

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

_ARGON2ID = PasswordHasher(time_cost=1, memory_cost=8 * 1024, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)


def hash_key(key: str) -> str:
    return _ARGON2ID.hash(key)


def matches(key_hash: str, key: str) -> bool:
    """One argon2 run, whatever the answer. A damaged hash matches nothing."""
    try:
        return _ARGON2ID.verify(key_hash, key.encode("utf-8", "surrogatepass"))
    except (VerificationError, InvalidHashError):
        return False


@cache
def dummy_hash() -> str:
    """What a key without a row is compared with, so that it costs what any other costs. Nobody knows its key."""
    return hash_key(secrets.token_urlsafe(32))
