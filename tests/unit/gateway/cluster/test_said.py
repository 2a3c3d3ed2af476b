import json

from gateway.cluster import said


def test_what_a_worker_leaves_word_of_is_bounded_and_keeps_the_words_of_its_remotes() -> None:
    few = {"pid": 7, "mcps": {"demo": {"status": "healthy", "calls": 3}}, "warnings": ["a"]}
    assert json.loads(said.packed(few)) == few
    many = {
        "pid": 7,
        "mcps": {f"r{number}": {"status": "unhealthy", "last_error": "x" * 500} for number in range(2000)},
    }
    cut = json.loads(said.packed(many))
    assert len(said.packed(many)) < said.MAX_BYTES
    assert (cut["pid"], len(cut["mcps"]), cut["mcps"]["r9"]) == (7, 2000, {"status": "unhealthy"})


def test_gateways_that_share_one_redis_do_not_share_words() -> None:
    assert said.names(said.prefix(b"one")) != said.names(said.prefix(b"two"))
