"""Fixtures that several files of component tests share; each runs in the one process that runs the file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.component import asking
from tests.component.real_gateway import NODES, WORKERS, Gateway, _tight_gateway, _whole_gateway, gateway, tight

SKIPPED = "with one worker only: {}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where requests go to several workers in turns, what is said of the memory of one is not asked."""
    if WORKERS == 1:
        return
    for item in items:
        if (mark := item.get_closest_marker("one_worker")) is not None:
            item.add_marker(pytest.mark.skip(reason=SKIPPED.format(mark.args[0])))
        elif NODES and (mark := item.get_closest_marker("one_program")) is not None and is_about_a_program(item):
            item.add_marker(pytest.mark.skip(reason=f"on one machine only: {mark.args[0]}"))


def is_about_a_program(item: pytest.Item) -> bool:
    """Whether its remote is one that is started here."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and callspec.params.get("remote") in ("io", "io_new", "newpipe", "oldpipe")


__all__ = ["_tight_gateway", "_whole_gateway", "gateway", "tight"]


@pytest.fixture(scope="session")
def _asking() -> Iterator[Gateway]:
    with asking.asking_gateway() as gateway:
        yield gateway


@pytest.fixture
def gw(_asking: Gateway) -> Gateway:
    """In front of remotes that ask."""
    _asking.idle()
    return _asking


@pytest.fixture(scope="session")
def hasty() -> Iterator[Gateway]:
    """The same, but nobody gets longer than a moment to answer."""
    with asking.asking_gateway(MCP_ANSWER_WAIT_S=str(asking.LIFE_S)) as gateway:
        yield gateway
