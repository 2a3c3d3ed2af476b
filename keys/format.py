"""What a key looks like: `mcp_` + 10 characters of id + `_` + 43 of secret + 6 of checksum. Pure; draws nothing at random.

The prefix and the checksum let a secret scanner recognise a leaked key without asking anybody, and tell a mistyped one from a
wrong one. The checksum is no protection: who can write a key can compute it. 43 characters of 62 are 256 bits.
"""

import re
import string
import zlib
from dataclasses import dataclass

PREFIX = "mcp_"
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 10
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
# What a secret scanner is given.
PATTERN = rf"mcp_[0-9A-Za-z]{{{ID_LENGTH}}}_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}"

_KEY = re.compile(
    rf"{PREFIX}(?P<key_id>[0-9A-Za-z]{{{ID_LENGTH}}})_(?P<secret>[0-9A-Za-z]{{{SECRET_LENGTH}}})"
    rf"(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


@dataclass(frozen=True, slots=True)
class Presented:
    """What a caller sent. Not well formed: id and secret are empty, and no row has an empty id."""

    well_formed: bool
    key_id: str
    secret: str


GARBAGE = Presented(well_formed=False, key_id="", secret="")


def compose(key_id: str, secret: str) -> str:
    body = f"{PREFIX}{key_id}_{secret}"
    return body + _checksum(body)


def parse(text: str) -> Presented:
    """Never raises, whatever was sent."""
    match = _KEY.fullmatch(text)
    if match is None or match["checksum"] != _checksum(text[:-CHECKSUM_LENGTH]):
        return GARBAGE
    return Presented(well_formed=True, key_id=match["key_id"], secret=match["secret"])


def display_prefix(key_id: str) -> str:
    """The part of a key that may be shown, so that people recognise theirs."""
    return PREFIX + key_id


def id_in(text: str) -> str:
    """The id that `text` names: an id, a displayed prefix or a whole key (people revoke what leaked by pasting it)."""
    return text.removeprefix(PREFIX)[:ID_LENGTH] if text.startswith(PREFIX) else text


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
