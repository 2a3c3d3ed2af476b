"""The `requestState` that clients of 2026-07-28 carry for us: sealed, so that it can be neither read, changed nor lent.

A remote sees one principal, the gateway, so it cannot tell whose state comes back. Each state is therefore bound to the key, the
call and a time, in AES-256-GCM; what a remote minted travels inside, byte for byte. Source: specification 2026-07-28,
basic/patterns/mrtr "Server Requirements".
"""

import base64
import binascii
import hashlib
import json
import secrets
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcpserver.lib.clock import Instant
from mcpserver.protocol.inbound import Call
from mcpserver.protocol.versions import ROUTED

_NONCE_BYTES = 12
_STATE_MAX = 64 * 1024
_DIGITS_MAX = 1000


class State(msgspec.Struct, frozen=True, array_like=True):
    """`parked` names a call that waits in a worker's memory; empty, the call is made anew with `inner`, the remote's own state
    (None when it gave none)."""

    key_id: str
    remote: str
    digest: str
    expires: Instant
    parked: str = ""
    inner: str | None = None


class NotOurs(Exception):
    """Tampered with, expired, or minted for another key or call; which one is not said."""


class Sealer:
    def __init__(self, secret: bytes) -> None:
        key = HKDF(SHA256(), 32, salt=None, info=b"mcp request state").derive(secret)
        self._cipher = AESGCM(key)
        self._decoder = msgspec.json.Decoder(State)

    def seal(self, state: State) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.json.encode(state), None)
        return base64.urlsafe_b64encode(sealed).decode()

    def unseal(self, text: str, *, key_id: str, digest: str, now: Instant) -> State:
        """The state, for the same key and the same call; raises NotOurs."""
        try:
            sealed = base64.b64decode(text[:_STATE_MAX], altchars=b"-_", validate=True)
            state = self._decoder.decode(self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None))
        except (binascii.Error, ValueError, InvalidTag, msgspec.DecodeError):
            raise NotOurs from None
        if state.key_id != key_id or state.digest != digest or state.expires.is_past(now):
            raise NotOurs
        return state


def digest(call: Call) -> str:
    """What makes two requests the same call: method, name and arguments, however they are spelled."""
    field = ROUTED[call.method]
    parts = [call.method, _plain(call, field), _plain(call, "arguments")]
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def _plain(call: Call, field: str) -> Any:
    raw = call.params.get(field)
    return None if raw is None else json.loads(bytes(raw), parse_int=_number)


def _number(digits: str) -> int | str:
    """A number of thousands of digits is as good as its spelling; Python refuses to read it."""
    return int(digits) if len(digits) < _DIGITS_MAX else f"number {digits}"
