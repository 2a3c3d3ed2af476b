from email.message import Message
from importlib import metadata

import pytest

from mcpserver.launch import licences
from mcpserver.launch.development import LOCKS, ROOT
from mcpserver.launch.licences import Package

pytestmark = pytest.mark.edge(24)
MAIN, TRACES, _ = LOCKS


def installed() -> list[Package]:
    return licences.packages(MAIN.read_text(), TRACES.read_text())


def test_the_list_is_what_the_locks_install() -> None:
    assert (ROOT / "deploy" / "LICENCES.md").read_text() == licences.page(installed()), "write it: ./start licences"


def test_every_licence_is_one_that_is_allowed() -> None:
    assert [one for one in installed() if not one.is_allowed] == []


def test_every_package_is_in_the_list_unless_it_is_for_another_system() -> None:
    listed = {one.name for one in installed()}
    for name, versions in licences.pinned(TRACES.read_text()).items():
        assert name in listed or all(versions.values()), name
    assert {one.name for one in installed() if one.is_extra} >= {"opentelemetry-sdk", "protobuf"}


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only OR MIT", True),
        ("BSD-3-Clause AND (Apache-2.0)", True),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-or-later", False),
        ("Other/Proprietary License", False),
        ("unknown", False),
    ],
)
def test_a_choice_is_enough_and_all_parts_must_be(licence: str, is_allowed: bool) -> None:
    assert Package("x", licence).is_allowed is is_allowed


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License-Expression": "ISC", "License": "MIT"}, "ISC"),
        ({"Classifier": "License :: OSI Approved :: MIT License", "License": "see LICENSE"}, "MIT"),
        ({"License": "BSD\nand the whole text"}, "BSD-3-Clause"),
        ({"License": "as is"}, "as is"),
        ({}, "unknown"),
    ],
)
def test_a_package_is_taken_at_its_clearest_word(fields: dict[str, str], licence: str) -> None:
    about = Message()
    for name, value in fields.items():
        about[name] = value
    assert licences.spdx(about) == licence  # type: ignore[arg-type]


def test_something_else_than_what_is_locked_is_no_list() -> None:
    with pytest.raises(ValueError, match="is locked"):
        licences.packages("", "django==1.0 \\\n")
    with pytest.raises(metadata.PackageNotFoundError):
        licences.packages("", "no-such-package==1.0 \\\n")
    assert licences.packages("", "no-such-package==1.0 ; sys_platform == 'win32' \\\n") == []
