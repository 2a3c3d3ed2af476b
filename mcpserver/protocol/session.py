"""Session ids that carry their own proof, so that any worker can serve any session and nothing is stored for it.

An id is the session's facts and an HMAC-SHA256 over them, in URL-safe Base64 (visible ASCII, as the transport asks). Changing
a byte, or presenting it with another key than the one that opened it, makes it unknown.
"""

import base64
import binascii
import hashlib
import hmac

import msgspec

_MAC_BYTES = 16
_CAPABILITIES_MAX = 600


class Session(msgspec.Struct, frozen=True, array_like=True):
    """What a handshake settled. `issued` is wall time in seconds; `capabilities` the client's, as raw JSON; `worker` names the
    one that remembers it, if it still lives."""

    key_id: str
    revision: str
    issued: int
    nonce: str
    capabilities: str = "{}"
    worker: str = ""


_decoder = msgspec.json.Decoder(Session)


def seal(session: Session, secret: bytes) -> str:
    """The id of a session."""
    facts = msgspec.json.encode(session)
    mac = hmac.new(secret, facts, hashlib.sha256).digest()[:_MAC_BYTES]
    return _written(mac + facts)


def unseal(id: str, secret: bytes) -> Session | None:
    """The session behind an id, or None when it is not one of ours."""
    if len(id) > 4096:
        return None
    try:
        sealed = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if _written(sealed) != id:
        return None  # other letters for the same bytes: an id that was ended must not live on under a second spelling
    mac, facts = sealed[:_MAC_BYTES], sealed[_MAC_BYTES:]
    expected = hmac.new(secret, facts, hashlib.sha256).digest()[:_MAC_BYTES]
    if not hmac.compare_digest(mac, expected):
        return None
    try:
        return _decoder.decode(facts)
    except msgspec.DecodeError:
        return None


def carried(capabilities: bytes) -> str:
    """The client's capabilities as the id carries them: whole when short, else the names of the standard ones alone."""
    if len(capabilities) <= _CAPABILITIES_MAX:
        return capabilities.decode()
    known = ("elicitation", "roots", "sampling", "tasks")
    declared = msgspec.json.decode(capabilities, type=dict[str, msgspec.Raw])
    kept = {name: declared[name] for name in known if name in declared and len(bytes(declared[name])) < 100}
    return msgspec.json.encode(kept).decode()


def _written(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")
