"""The renaming between the conformance tool and the gateway changes names, and nothing else."""

import json

import pytest

from tests.conformance.names import Names

NAMES = Names("ev")


def message(method: str, **params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_a_request_names_what_it_wants_with_the_remote_before_it(method: str) -> None:
    body, said = NAMES.request(message(method, name="echo", arguments={"name": "echo"}))
    assert json.loads(body)["params"] == {"name": "ev__echo", "arguments": {"name": "echo"}}
    assert said == method


def test_a_completion_for_a_prompt_names_the_prompt_so_too() -> None:
    body, _ = NAMES.request(message("completion/complete", ref={"type": "ref/prompt", "name": "p"}, argument={}))
    assert json.loads(body)["params"]["ref"]["name"] == "ev__p"


@pytest.mark.parametrize(
    "body",
    [
        message("tools/list"),
        message("resources/read", uri="test://a", name="a"),
        message("tools/call", name=5),
        b'{ "jsonrpc" : "2.0" , "method" : "ping" }',
        b"[]",
        b"no json",
    ],
)
def test_what_names_nothing_keeps_its_bytes(body: bytes) -> None:
    assert NAMES.request(body)[0] == body


def test_the_header_is_renamed_with_the_body_and_keeps_its_white_space() -> None:
    assert NAMES.header("tools/call", b"  echo ") == b"  ev__echo "
    assert NAMES.header("resources/read", b" test://a") == b" test://a"


@pytest.mark.parametrize("kind", ["tools", "prompts"])
def test_a_list_comes_back_without_the_remote(kind: str) -> None:
    answer = json.dumps({"id": 1, "result": {kind: [{"name": "ev__a", "description": "ev__a"}, {"name": "b"}]}})
    assert json.loads(NAMES.answer(answer.encode()))["result"][kind] == [
        {"name": "a", "description": "ev__a"},
        {"name": "b"},
    ]


def test_an_event_keeps_everything_but_the_names_in_its_data() -> None:
    listed = b'{"id":1,"result":{"tools":[{"name":"ev__a"}]}}'
    event = b"id: 7\nevent: message\ndata: " + listed + b"\n\n"
    assert NAMES.event(event) == event.replace(b"ev__a", b"a")
    assert NAMES.event(b"id: 8\ndata: \n\n") == b"id: 8\ndata: \n\n"


def test_without_a_remote_nothing_is_renamed() -> None:
    body = message("tools/call", name="echo")
    assert json.loads(Names(None).request(body)[0]) == json.loads(body)
