"""The revisions: which is settled on, which methods each era has, which log messages pass."""

import pytest

from mcpserver.protocol import codes, versions


@pytest.mark.parametrize("revision", versions.HANDSHAKE)
def test_a_known_handshake_revision_is_kept(revision: str) -> None:
    assert versions.negotiate(revision) == revision


@pytest.mark.parametrize("proposed", ["2026-07-28", "2099-01-01", "", "1.0", "2025-11-25 "])
def test_anything_else_gets_our_newest_handshake_revision(proposed: str) -> None:
    assert versions.negotiate(proposed) == "2025-11-25"


def test_the_modern_revision_is_named_first() -> None:
    """A client falls back to `initialize` when it meets none that it knows before."""
    assert versions.SUPPORTED == ("2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")


def test_what_2026_removed_is_gone_and_what_it_brought_is_new() -> None:
    removed = {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
    assert removed <= versions.HANDSHAKE_METHODS
    assert not removed & versions.MODERN_METHODS
    assert {"server/discover", "subscriptions/listen"} <= versions.MODERN_METHODS - versions.HANDSHAKE_METHODS


def test_louder_or_equal_passes() -> None:
    levels = versions.LOG_LEVELS
    assert [level for level in levels if versions.loud_enough(level, "error")] == [
        "error",
        "critical",
        "alert",
        "emergency",
    ]
    assert all(versions.loud_enough(level, "debug") for level in levels)
    assert versions.loud_enough("unheard-of", "emergency")


def test_statuses_of_codes_towards_modern_clients() -> None:
    assert {code: status for code, status in codes.MODERN_STATUS.items() if status != 400} == {
        codes.METHOD_NOT_FOUND: 404
    }
    assert codes.INTERNAL_ERROR not in codes.MODERN_STATUS
