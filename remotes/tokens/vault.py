"""Encryption at rest. MCP_ENCRYPTION_KEYS: the first key encrypts, every one decrypts; so a new one is put in front of the old.

What none of the keys opens is never thrown away: the right key may come back.
"""

from collections.abc import Sequence
from functools import cache

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from mcpserver.lib.errors import Exit, GatewayError
from remotes.tokens import grant
from remotes.tokens.grant import Holding

HOW_TO_MAKE_ONE = (
    "./start writes one into .env; by hand: python -c 'import secrets, base64; "
    "print(base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())'"
)


class Vault:
    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = tuple(key.strip() for key in keys if key.strip())

    def check(self) -> None:
        """GatewayError when nothing could be sealed."""
        _ring(self._keys)

    def seal(self, holding: Holding) -> str:
        """Encrypted with the first key; GatewayError when there is none to do it with."""
        return _ring(self._keys).encrypt(grant.to_stored(holding)).decode()

    def open(self, text: str) -> tuple[Holding, bool]:
        """What was sealed, and whether the first key sealed it; GatewayError when no key opens it."""
        try:
            return grant.from_stored(_ring(self._keys).decrypt(text.encode())), self._is_current(text)
        except (InvalidToken, msgspec.DecodeError):
            raise GatewayError(
                "unreadable_token",
                "no key in MCP_ENCRYPTION_KEYS opens the stored token",
                hint="put the key that it was stored with back into MCP_ENCRYPTION_KEYS, or log in again",
                exit_code=Exit.KEY,
            ) from None

    def _is_current(self, text: str) -> bool:
        try:
            Fernet(self._keys[0]).decrypt(text.encode())
        except InvalidToken:
            return False
        return True


@cache
def _ring(keys: tuple[str, ...]) -> MultiFernet:
    if not keys:
        raise GatewayError(
            "no_encryption_key", "MCP_ENCRYPTION_KEYS is not set: tokens cannot be stored",
            hint=HOW_TO_MAKE_ONE, exit_code=Exit.KEY,
        )  # fmt: skip
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise GatewayError(
            "bad_encryption_key", "MCP_ENCRYPTION_KEYS holds what is no key: each is 32 bytes in URL-safe base64",
            hint=HOW_TO_MAKE_ONE, exit_code=Exit.KEY,
        ) from None  # fmt: skip
