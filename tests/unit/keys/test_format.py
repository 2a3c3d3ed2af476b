import re
import string

from hypothesis import given
from hypothesis import strategies as st

from keys import format

words = st.text(format.ALPHABET, min_size=1)
ids = st.text(format.ALPHABET, min_size=format.ID_LENGTH, max_size=format.ID_LENGTH)
secrets = st.text(format.ALPHABET, min_size=format.SECRET_LENGTH, max_size=format.SECRET_LENGTH)


@given(ids, secrets)
def test_what_was_composed_is_parsed_back(key_id, secret):
    assert format.parse(format.compose(key_id, secret)) == format.Presented(True, key_id, secret)


@given(ids, secrets)
def test_a_scanner_recognises_every_key(key_id, secret):
    assert re.fullmatch(format.PATTERN, format.compose(key_id, secret))


@given(ids, secrets, st.integers(0, 63), st.sampled_from(string.ascii_letters + string.digits + "_ \n"))
def test_one_mistyped_character_is_garbage(key_id, secret, at, other):
    key = format.compose(key_id, secret)
    mistyped = key[:at] + other + key[at + 1 :]
    assert mistyped == key or format.parse(mistyped) == format.GARBAGE


@given(st.text())
def test_whatever_is_sent_is_answered_and_never_raises(text):
    assert isinstance(format.parse(text), format.Presented)


def test_surrounding_space_and_a_final_newline_are_garbage():
    key = format.compose("A" * 10, "b" * 43)
    assert [format.parse(f" {key}"), format.parse(f"{key}\n")] == [format.GARBAGE, format.GARBAGE]


def test_a_key_has_64_characters_and_a_secret_256_bits():
    assert len(format.compose("A" * 10, "b" * 43)) == 64
    assert len(format.ALPHABET) ** format.SECRET_LENGTH >= 2**256


@given(ids, secrets)
def test_an_id_is_found_in_an_id_a_prefix_and_a_whole_key(key_id, secret):
    named = [key_id, format.display_prefix(key_id), format.compose(key_id, secret)]
    assert [format.id_in(text) for text in named] == [key_id] * 3
