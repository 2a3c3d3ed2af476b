"""JSON as the bytes of a text, before anybody reads what it says: what every reader of it must be able to read, and its lines.

A reader that leaves payloads undecoded does not look at them either, and passes on what breaks the next one. So all bytes are
looked at here, in time and memory proportional to their number whatever they are.
"""

import codecs
import re

from msgspec import Raw

_UTF8_AT_ONCE_BYTES = 256 * 1024
# Up to the next escape of a lone surrogate: a pair is one character, and an escaped backslash hides what follows it.
_LONE = re.compile(
    rb"(?:[^\\]++|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?!u[dD][89a-fA-F]).)*+"
    rb"(\\u[dD][89a-fA-F][0-9a-fA-F]{2})",
    re.DOTALL,
)
_REPLACEMENT = b"\\ufffd"
# A text with more of them was not cut in two places, it is none; and each costs a step.
_MENDED_MAX = 10_000
# An exponent beyond what a double holds (1.8e308) reads as infinity in some languages and as an error in others, and some write
# it again as what is no JSON. First a quick look for one anywhere, then a careful one that passes over strings.
_HUGE = rb"\+?0*(?:309|3[1-9][0-9]|[4-9][0-9]{2}|[1-9][0-9]{3,})(?=[\s,\]}])"
_MAYBE_LOWER, _MAYBE_UPPER = re.compile(rb"e(?<=[0-9]e)" + _HUGE), re.compile(rb"E(?<=[0-9]E)" + _HUGE)
_UP_TO_HUGE = re.compile(
    rb'(?:[^"eE]++|"(?:[^"\\]++|\\.)*+"|[eE](?!(?<=[0-9][eE])' + _HUGE + rb"))*+",
    re.DOTALL,
)
# Where some readers of lines (Node's readline, Python's splitlines) end one, inside strings, where JSON allows them raw.
_OTHER_LINE_ENDS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))

# Shorter texts cannot be crowded.
_CROWDED_MIN_BYTES = 256 * 1024
_MEMBERS_MAX = 100_000
_SPACE, _COMMA = b" \t\r\n", ord(",")
# Up to the end of one member of an array or object, whatever is inside it; deeper than that it is not looked.
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT = rb'[^\[\]{}"]++|' + _STRING + rb'|(?:[\[{](?:[^\[\]{}"]++|' + _STRING + rb")*+[\]}][, ]?)++"
_INSIDE = _FLAT
for _ in range(32):
    _INSIDE = _FLAT + rb"|[\[{](?:" + _INSIDE + rb")*+[\]}]"
_MEMBER = re.compile(rb'(?:[^\[\]{}",]++|' + _STRING + rb"|[\[{](?:" + _INSIDE + rb")*+[\]}])*+[,\]}]", re.DOTALL)


def not_utf8(body: bytes) -> str | None:
    """What is wrong with bytes that are no UTF-8 (overlong forms and encoded surrogates are none either)."""
    if body.isascii():
        return None
    # In pieces: as one text, a single emoji would make four bytes of every character.
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), _UTF8_AT_ONCE_BYTES):
        piece = body[start : start + _UTF8_AT_ONCE_BYTES]
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(piece, final=start + len(piece) == len(body))
        except UnicodeDecodeError as error:
            return f"not UTF-8 at byte {start - pending + error.start}"
    return None


def huge_number(body: bytes) -> str | None:
    """What is wrong with JSON that holds a number no double can."""
    if _MAYBE_LOWER.search(body) is None and _MAYBE_UPPER.search(body) is None:
        return None
    passed = _UP_TO_HUGE.match(body)  # what looked like one may have been the text of a string
    if passed is None or passed.end() == len(body):
        return None
    return f"a number out of range near byte {passed.end()}"


def is_crowded(raw: bytes | Raw) -> bool:
    """Whether an array or object has so many members that a list of them would take many times its bytes (20 MB: a gigabyte)."""
    if len(raw) < _CROWDED_MIN_BYTES:
        return False
    text = bytes(raw).lstrip(_SPACE)
    if text[:1] not in (b"[", b"{") or text.count(b"," if text[:1] == b"[" else b":") < _MEMBERS_MAX:
        return False
    end = 1
    for _ in range(_MEMBERS_MAX):
        member = _MEMBER.match(text, end)
        if member is None:
            return True  # too deep to be looked at
        end = member.end()
        if text[end - 1] != _COMMA:
            return False
    return True


def without_lone_surrogates(body: bytes) -> bytes:
    """The same text with U+FFFD for half a character; the very bytes that came where there is none."""
    found: list[tuple[int, int]] = []
    at = 0
    while len(found) < _MENDED_MAX and (lone := _LONE.match(body, at)) is not None:
        found.append(lone.span(1))
        at = lone.end()
    if not found:
        return body
    mended = bytearray(body)
    for start, end in found:
        mended[start:end] = _REPLACEMENT
    return bytes(mended)


def one_line(message: bytes) -> bytes:
    """The same JSON without raw line ends, which would split it in two on a line-framed channel (stdio, SSE data)."""
    if b"\n" in message or b"\r" in message:
        return message.replace(b"\r", b" ").replace(b"\n", b" ")
    return message


def one_line_for_any_reader(message: bytes) -> bytes:
    """The same for programs: what they read lines with is not known."""
    message = one_line(message)
    if not message.isascii():
        for raw, escaped in _OTHER_LINE_ENDS:
            message = message.replace(raw, escaped)
    return message
