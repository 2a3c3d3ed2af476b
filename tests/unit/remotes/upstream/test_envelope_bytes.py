"""Whatever bytes a remote puts into its notifications, reading them raises nothing; what we write is read back as it was."""

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from mcpserver.protocol import jsonrpc
from remotes.upstream import envelope
from remotes.upstream.envelope import Exchange

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=8), values, max_size=4)


@given(st.binary(max_size=80) | values.map(msgspec.json.encode), st.sampled_from(["", "progressToken", "_meta"]))
def test_no_params_of_a_notification_raise(raw: bytes, member: str) -> None:
    params = b'{"%b":%b}' % (member.encode(), raw) if member else raw
    for read in (envelope.progress_number, envelope.subscription_number):
        assert read(params) is None or isinstance(read(params), int)


@given(objects, objects, st.integers(1, 2**40), st.booleans())
def test_a_request_is_read_back_as_it_was_written(
    params: dict[str, object], meta: dict[str, object], number: int, modern: bool
) -> None:
    params.pop("_meta", None)
    meta.pop("progressToken", None)
    exchange = Exchange(
        "tools/call",
        {name: Raw(msgspec.json.encode(value)) for name, value in params.items()},
        deadline=0,
        meta={name: Raw(msgspec.json.encode(value)) for name, value in meta.items()},
    )
    read = jsonrpc.decode(envelope.message(exchange, number, modern=modern))
    assert isinstance(read, jsonrpc.Request)
    assert (read.id, read.method) == (b"%d" % number, "tools/call")
    found = json.loads(read.params or b"{}")
    sent = found.pop("_meta", {})
    assert found == params
    assert {name: sent[name] for name in meta} == meta
