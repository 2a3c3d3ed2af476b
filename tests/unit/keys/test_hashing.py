from argon2 import extract_parameters

from keys import hashing


def test_a_hash_matches_its_own_key_only():
    key_hash = hashing.hash_key("one")
    assert [hashing.matches(key_hash, "one"), hashing.matches(key_hash, "two")] == [True, False]


def test_a_damaged_hash_and_an_unencodable_key_match_nothing():
    assert not hashing.matches("$argon2id$damaged", "one")
    assert not hashing.matches("", "one")
    assert not hashing.matches(hashing.dummy_hash(), "\udc80")


def test_two_hashes_of_one_key_differ():
    assert hashing.hash_key("one") != hashing.hash_key("one")


def test_the_dummy_costs_what_a_real_hash_costs():
    real, dummy = (extract_parameters(key_hash) for key_hash in (hashing.hash_key("one"), hashing.dummy_hash()))
    assert real == dummy
    assert (real.time_cost, real.memory_cost, real.parallelism, real.type.name) == (1, 8192, 1, "ID")
