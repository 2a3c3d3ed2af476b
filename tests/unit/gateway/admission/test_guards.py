import pytest

from gateway.admission import guards
from gateway.admission.slots import Full, Slots
from mcpserver.lib.limits import Limits
from mcpserver.lib.usage import Process

LIMITS = Limits(max_memory_mb=500, max_cpu_percent=80, max_open_files=1024)
pytestmark = pytest.mark.edge(23)


@pytest.mark.parametrize(
    ("used", "before", "after"),
    [
        (Process(rss_mb=449), (), ()),
        (Process(rss_mb=451), (), ("memory",)),
        (Process(rss_mb=430), ("memory",), ("memory",)),
        (Process(rss_mb=424), ("memory",), ()),
        (Process(cpu_percent=80), (), ()),
        (Process(cpu_percent=81), (), ("cpu",)),
        (Process(cpu_percent=71), ("cpu",), ("cpu",)),
        (Process(cpu_percent=69), ("cpu",), ()),
        (Process(open_files=961), (), ("files",)),
        (Process(open_files=900), ("files",), ("files",)),
        (Process(rss_mb=600, cpu_percent=99, open_files=1000), (), ("memory", "cpu", "files")),
    ],
)
def test_what_is_over_its_limit_is_shed_until_it_is_well_below(used, before, after):
    assert guards.shedding(before, used, LIMITS) == after


def test_the_smallest_cpu_limit_too_is_come_back_from():
    limits = Limits(max_cpu_percent=8)
    assert guards.shedding(("cpu",), Process(cpu_percent=5), limits) == ("cpu",)
    assert guards.shedding(("cpu",), Process(cpu_percent=3), limits) == ()


def test_connections_get_what_others_leave_and_sixty_four_files_stay_in_reserve():
    assert guards.room(Process(open_files=150), 100, LIMITS) == 1024 - 64 - 50
    assert guards.room(Process(open_files=2000), 0, LIMITS) == 1


def test_while_streams_are_shut_nobody_gets_one_and_what_is_open_is_given_back():
    slots = Slots(LIMITS)
    assert slots.streams.take("a") is None
    slots.streams.shut = Full(503, 10, "short of memory")
    assert slots.streams.take("a") == Full(503, 10, "short of memory")
    assert slots.requests.take("a") is None
    slots.streams.give_back("a")
    slots.streams.shut = None
    assert slots.streams.take("a") is None
