from mcpserver.supervisor import plan
from mcpserver.supervisor.plan import Record


def test_the_wait_after_a_crash_doubles_up_to_thirty_seconds():
    assert [plan.backoff_s(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert plan.backoff_s(10_000) == 30


def test_crashes_in_a_row_are_counted_and_the_next_start_is_set():
    first = plan.after_crash(Record(), now=100.0, ready_for_s=0.5, how="exit code 1", error={"message": "no"})
    assert first == Record(crashes_in_a_row=1, next_start=101.0, last_exit="exit code 1", last_error={"message": "no"})
    second = plan.after_crash(first, now=200.0, ready_for_s=0.5, how="signal KILL")
    assert second == Record(crashes_in_a_row=2, next_start=202.0, last_exit="signal KILL")


def test_a_child_that_was_ready_for_a_minute_is_forgiven_its_past():
    worn = Record(crashes_in_a_row=9)
    assert plan.after_crash(worn, now=0.0, ready_for_s=60.0, how="").next_start == 1.0
    assert plan.after_crash(worn, now=0.0, ready_for_s=59.9, how="").next_start == 30.0


def test_a_restart_is_counted_and_nothing_is_due_any_more():
    assert plan.after_restart(Record(restarts=2, next_start=5.0)) == Record(restarts=3)


def test_a_child_that_left_words_is_quoted_and_one_that_left_none_is_described():
    said = {"ok": False, "error": "invalid_config", "message": "line 3", "errors": [1]}
    assert plan.boot_error("gateway-0", 3, said) == (said, 3)
    assert plan.boot_error("celery", -9, None) == (
        {
            "ok": False,
            "error": "child_failed",
            "message": "celery ended before it was ready (signal KILL)",
            "hint": "its last words are on stderr or in the log",
        },
        1,
    )


def test_words_without_a_code_still_make_a_whole_document():
    assert plan.boot_error("gateway-0", 0, {"ok": False}) == (
        {"ok": False, "error": "child_failed", "message": "gateway-0 could not start"},
        1,
    )
