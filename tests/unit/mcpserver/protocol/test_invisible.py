"""Which characters are taken out of a remote's text: all that hide something, none that a language or an emoji needs."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol.invisible import spelled_out, stripped

LEGITIMATE = {
    "family": "👨‍👩‍👧‍👦",
    "with a skin tone": "👩🏽‍🚀 👍🏿",
    "with a style": "❤️ ☺︎ ✔️ ‼️ ℹ️ 🏳️‍🌈 ⚕️",
    "head shaking": "🙂‍↔️",
    "keycaps": "1️⃣ #️⃣ *️⃣",
    "flags": "🇩🇪 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏴󠁧󠁢󠁳󠁣󠁴󠁿 🏴‍☠️",
    "Arabic": "مرحبا بالعالم، ٣ أدوات",
    "Persian": "می‌خواهم کتاب‌ها را بخوانم",
    "Hebrew": "שלום עולם (כלי)",
    "an Arabic abbreviation": "سنة ١٤٤٥ ه‍.",
    "Hindi": "क्‍ष शक्‌ति नमस्ते",
    "Malayalam": "അവന്‍ വന്നു",
    "Sinhala": "ශ්‍රී ලංකා",
    "Thai": "ภาษา\u200bไทย",
    "Khmer": "ភាសា\u200bខ្មែរ",
    "Mongolian": "ᠮᠣᠩᠭᠣᠯ ᠠ\u180b",
    "a variant of an ideograph": "葛\U000e0100 辻\ufe00",
    "a variant of an operator": "≩\ufe00",
    "Vietnamese, decomposed": unicodedata.normalize("NFD", "Tiếng Việt"),
    "Korean": "한국어",
    "spaces and lines": "a\tb\r\nc\u00a0d\u3000e\u2009f\u2028g",
    "symbols": "→ ≤ ∞ “quoted” – dash… €",
    "Zalgo stays as ugly as it is": "Z̷̢a̴l̶g̸o̵",
}
HIDING = {
    "bidirectional override": "a\u202ecba\u202cd",
    "isolates": "\u2066\u2067\u2068x\u2069",
    "marks": "a\u200e\u200f\u061cb",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\ufefff",
    "tags": "hello\U000e0001" + "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all"),
    "tags behind a flag that is none": "🏴" + "".join(chr(0xE0000 + ord(letter)) for letter in "evil") + "\U000e007f",
    "variation selectors behind one character": "😀\ufe0f\U000e0110\U000e0123\ufe01",
    "variation selectors behind letters": "a\ufe0fb\ufe00c\U000e0100",
    "a keycap that is none": "1\ufe0f2\ufe0f",
    "joiners in a row": "می\u200c\u200c\u200cخواهم",
    "a joiner between Latin letters": "ad\u200dmin \u200cx",
    "joiners at an end": "😀\u200d",
    "soft hyphens and fillers": "pass\u00adword\u3164\u115f\uffa0\u034f",
    "escapes of a terminal": "\x1b[31mred\x1b[0m\x07\x00\x7f\x9b",
    "operators that show nothing": "f\u2061(x)\u2062y\u2063\u2064",
    "annotations": "\ufff9a\ufffab\ufffb",
    "a vowel separator": "x\u180ey",
}


@pytest.mark.parametrize("text", LEGITIMATE.values(), ids=LEGITIMATE.keys())
def test_what_a_language_or_an_emoji_needs_is_kept(text):
    assert stripped(text) == (text, 0)
    assert spelled_out(text) == text


@pytest.mark.parametrize("text", HIDING.values(), ids=HIDING.keys())
def test_what_hides_something_is_taken_out_and_counted(text):
    shown, count = stripped(text)
    assert count == len(text) - len(shown) > 0
    assert stripped(shown) == (shown, 0)
    assert all(unicodedata.category(one) not in ("Cf", "Cc", "Cn") for one in shown), ascii(shown)


def test_what_was_hidden_can_be_shown():
    assert spelled_out("a\u202eb\U000e0041\x1b") == "a\\u202eb\\U000e0041\\u001b"


def test_the_rest_of_the_text_stays_in_its_order():
    assert stripped("del\u200bete \u202eno\u202cw")[0] == "delete now"


@given(st.text())
def test_stripping_only_ever_takes_out_and_is_done_after_one_pass_or_two(text):
    shown, count = stripped(text)
    assert count == len(text) - len(shown)
    rest = iter(text)
    assert all(one in rest for one in shown), "something new came in"


@given(st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd", "Zs", "Po", "Sc"], max_codepoint=0xFFFF)))
def test_letters_digits_and_punctuation_of_every_script_stay(text):
    shown, _ = stripped(text)
    fillers = "\u115f\u1160\u3164\uffa0"
    assert shown == "".join(one for one in text if one not in fillers)
