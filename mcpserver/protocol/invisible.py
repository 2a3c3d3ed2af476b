"""Characters that show nothing: what a remote's text may hold for a machine to read and a person not to see.

Stripped: control characters, bidirectional controls and marks, zero-width and other format characters, fillers, tags. Kept,
because the text around them needs them: joiners between the letters of scripts that join, and within emoji; variation
selectors after what they vary; line-break marks between the letters of scripts without spaces; the three flags that are
spelled with tags. One at a time: a second in a row says nothing to a reader. Letters of every script stay as they are.

Source: Unicode 15, chapter 23 "Special Areas and Format Characters"; UAX #31 2.3; UTS #51 (emoji sequences).
"""

import re
import unicodedata

_FLAGS = tuple(
    "\U0001f3f4" + "".join(chr(0xE0000 + ord(letter)) for letter in region) + "\U000e007f"
    for region in ("gbeng", "gbsct", "gbwls")
)
# Never of use in a text.
_HIDDEN = (
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # controls, but for tab and line ends
    "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u3164\uffa0"  # soft hyphen, grapheme joiner, fillers, inherent vowels
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional
    "\u2060-\u2065\u206a-\u206f\ufeff\ufff0-\ufffb"  # zero width, annotations
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # shorthand, musical
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags, and what is reserved for more of them
)
# Of use beside certain characters: zero-width space and joiners, variation selectors.
_HELPING = "\u200b-\u200d\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_SUSPECT = re.compile(f"{'|'.join(_FLAGS)}|[{_HIDDEN}]+|(?P<helping>[{_HELPING}]+)")
# The style of an emoji and the joiner to the next one; what follows in a row says nothing to a reader.
_IN_A_ROW_MAX = 2
_EMOJI_STYLE, _KEYCAP = "\ufe0f", "\u20e3"
_VARIED_PUNCTUATION = "\u203c\u2049\u2139\u3030"

_Ranges = tuple[tuple[int, int], ...]
# Scripts whose letters join or form conjuncts: Arabic to N'Ko, the Indic and South-East Asian ones, Mongolian, Adlam.
_JOINING: _Ranges = (
    (0x0600, 0x0DFF), (0x0F00, 0x109F), (0x1700, 0x18AF), (0x1900, 0x1CFF), (0xA800, 0xA8FF), (0xA980, 0xAA7F),
    (0xAAE0, 0xAAFF), (0xABC0, 0xABFF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE), (0x10A00, 0x11FFF), (0x1E900, 0x1E95F),
)  # fmt: skip
# Scripts that are written without spaces between words.
_UNSPACED: _Ranges = ((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x1980, 0x19DF), (0x1A20, 0x1AAF))
_IDEOGRAPHS: _Ranges = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_MONGOLIAN: _Ranges = ((0x1820, 0x18AA),)
_VARIED: _Ranges = (*_IDEOGRAPHS, (0x1000, 0x109F), (0xA840, 0xA877))
_PICTOGRAPHS: _Ranges = ((0x1F000, 0x1FAFF),)


def stripped(text: str) -> tuple[str, int]:
    """The text without what nobody can see in it, and how many characters that were."""
    if _SUSPECT.search(text) is None:
        return text, 0
    kept = _SUSPECT.sub(_kept, text)
    return kept, len(text) - len(kept)


def may_hold_any(text: str) -> bool:
    """Whether there is anything to strip, or something like it that belongs there."""
    return _SUSPECT.search(text) is not None


def spelled_out(text: str) -> str:
    """The text for people who compare: everything that `stripped` would take shows as an escape."""
    return _SUSPECT.sub(_escaped, text)


def _kept(found: re.Match[str]) -> str:
    if found["helping"] is None:
        return found[0] if found[0] in _FLAGS else ""
    first = range(found.start(), min(found.end(), found.start() + _IN_A_ROW_MAX))
    return "".join(found.string[at] for at in first if _belongs(found.string, at))


def _escaped(found: re.Match[str]) -> str:
    kept = _kept(found)
    return kept if kept == found[0] else "".join(map(_escape, found[0]))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\U{code:08x}" if code > 0xFFFF else f"\\u{code:04x}"


def _belongs(text: str, at: int) -> bool:
    """Whether the text needs the helping character in this place."""
    character, before, after = text[at], text[max(at - 1, 0) : at], text[at + 1 : at + 2]
    if not before:
        return False
    match character:
        case "\u200c":
            return _joins(before) and _joins(after)
        case "\u200d":
            return _joins(before) or (_ends_pictograph(text[max(at - 2, 0) : at]) and _is_pictograph(after))
        case "\u200b":
            return _is_letter(before, _UNSPACED) and _is_letter(after, _UNSPACED)
        case "\ufe0e" | "\ufe0f" if before in "0123456789#*":
            return after == _KEYCAP
        case "\ufe0e" | "\ufe0f":
            return _is_pictograph(before) or before in _VARIED_PUNCTUATION
        case _ if "\ufe00" <= character <= "\ufe0d":
            return _in(before, _VARIED) or unicodedata.category(before) == "Sm"
        case _ if "\u180b" <= character <= "\u180f":
            return _in(before, _MONGOLIAN)
        case _:
            return _in(before, _IDEOGRAPHS)


def _joins(character: str) -> bool:
    return _is_letter(character, _JOINING)


def _is_letter(character: str, ranges: _Ranges) -> bool:
    """Letters and the marks on them."""
    return bool(character) and _in(character, ranges) and unicodedata.category(character)[0] in "LM"


def _ends_pictograph(two: str) -> bool:
    """Whether an emoji ends here: by itself, or by the selector of its style."""
    return _is_pictograph(two[:-1] if two.endswith(_EMOJI_STYLE) else two[-1:])


def _is_pictograph(character: str) -> bool:
    """Emoji and other symbols; by range too, for those younger than this Python's tables."""
    return bool(character) and (_in(character, _PICTOGRAPHS) or unicodedata.category(character) in ("So", "Sm"))


def _in(character: str, ranges: _Ranges) -> bool:
    code = ord(character)
    return any(first <= code <= last for first, last in ranges)
