import asyncio
import threading

import pytest
from django.db import OperationalError

from mcpserver.lib import database
from mcpserver.lib.database import in_database
from mcpserver.lib.errors import GatewayError


@pytest.fixture
def hung():
    """A call that hangs until the test ends."""
    release = threading.Event()
    yield lambda: release.wait(30)
    release.set()


def raising(error):
    def call():
        raise error

    return call


async def test_the_result_and_the_arguments_pass_through():
    assert await in_database(pow, 2, 10) == 1024


async def test_it_runs_in_a_thread_of_its_own():
    assert await in_database(threading.get_ident) != threading.get_ident()


async def test_a_call_that_hangs_ends_at_its_deadline(hung):
    with pytest.raises(GatewayError) as refused:
        await in_database(hung, timeout_s=0.05)
    assert refused.value.document() == {
        "ok": False,
        "error": "database_timeout",
        "message": "the database did not answer within 0.05 s",
    }


async def test_one_call_that_hangs_stops_no_other(hung):
    waiting = asyncio.create_task(in_database(hung, timeout_s=30))
    assert await in_database(pow, 2, 3) == 8
    waiting.cancel()


async def test_a_call_whose_deadline_passed_in_the_queue_is_never_run(hung):
    ran: list[str] = []
    threads = [asyncio.create_task(in_database(hung, timeout_s=0.2)) for _ in range(database.THREADS)]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError):
        await in_database(ran.append, "late", timeout_s=0.05)
    await asyncio.gather(*threads, return_exceptions=True)
    assert ran == []


async def test_the_queue_is_bounded(hung):
    most = database.THREADS + database.WAITING_MAX
    waiting = [asyncio.create_task(in_database(hung, timeout_s=30)) for _ in range(most)]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError, match="waiting already") as refused:
        await in_database(hung)
    assert refused.value.code == "database_busy"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_database_that_is_away_is_told_in_one_way():
    with pytest.raises(GatewayError) as refused:
        await in_database(raising(OperationalError("unable to open database file")))
    assert refused.value.document() == {
        "ok": False,
        "error": "database",
        "message": "the database cannot be used: unable to open database file",
        "hint": "check DATABASE_URL, the disk and the server",
    }


async def test_missing_tables_are_told_with_the_command_that_makes_them():
    with pytest.raises(GatewayError) as refused:
        await in_database(raising(OperationalError("no such table: keys_apikey")))
    assert refused.value.hint == "create its tables with: .venv/bin/python manage.py migrate"


@pytest.mark.parametrize("error", [TimeoutError("of its own"), KeyError("x"), GatewayError("not_found", "x")])
async def test_what_the_function_itself_raises_is_left_alone(error):
    with pytest.raises(type(error)) as raised:
        await in_database(raising(error))
    assert str(raised.value) == str(error)
