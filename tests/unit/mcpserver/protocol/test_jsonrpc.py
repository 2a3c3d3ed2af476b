"""What comes in as a message, what is refused, and that nothing of a payload changes on the way."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpserver.protocol import jsonrpc, jsontext
from mcpserver.protocol.jsonrpc import Malformed, Notification, Request, Response, decode


def body(**members: str) -> bytes:
    """A message from raw JSON values."""
    chosen = {"jsonrpc": '"2.0"', "id": "1", "method": '"m"'} | members
    return ("{" + ",".join(f'"{name}":{value}' for name, value in chosen.items() if value) + "}").encode()


def x(value: str) -> str:
    return '{"x":' + value + "}"


def refusal(raw: bytes) -> tuple[int, bytes | None]:
    with pytest.raises(Malformed) as caught:
        decode(raw)
    return caught.value.code, caught.value.id


class TestShapes:
    def test_requests_notifications_and_responses(self) -> None:
        assert decode(body(params='{"a": 1}')) == Request(b"1", "m", b'{"a": 1}')
        assert decode(body()) == Request(b"1", "m")
        assert decode(body(id="")) == Notification("m")
        assert decode(body(method="", result="[1]")) == Response(b"1", result=b"[1]")
        assert decode(body(method="", error="{}")) == Response(b"1", error=b"{}")
        assert decode(body(method="", id="null", error="{}")) == Response(None, error=b"{}")

    @pytest.mark.parametrize(
        ("raw", "code", "id"),
        [
            (b"", -32700, None),
            (b" ", -32700, None),
            (body() + b"x", -32700, None),
            (b"\xef\xbb\xbf" + body(), -32700, None),
            (body().decode().encode("utf-16"), -32700, None),
            (b"7", -32600, None),
            (b"[]", -32600, None),
            (b"{}", -32600, None),
            (body(jsonrpc="2.0"), -32600, None),
            (body(jsonrpc='"2"'), -32600, b"1"),
            (body(method="null"), -32600, None),
            (body(method="", id="1"), -32600, b"1"),
            (body(method="", id="", result="{}"), -32600, None),
            (body(method="", result="{}", error="{}"), -32600, b"1"),
            (body(error="{}"), -32600, b"1"),
            (body(params="[]"), -32602, b"1"),
            (body(params="null"), -32602, b"1"),
            (body(id="", params="[]"), -32600, None),
        ],
    )
    def test_what_is_none_says_why_and_whose_it_is(self, raw: bytes, code: int, id: bytes | None) -> None:
        assert refusal(raw) == (code, id)


class TestIds:
    @pytest.mark.parametrize(
        "id", ["1", "0", "-1", "-0", '"1"', '""', '"\\""', '"\\\\"', '"é"', "1" * 10_000, '"' + "x" * 10_000 + '"']
    )
    def test_a_string_or_an_integer_is_kept_as_it_came(self, id: str) -> None:
        assert decode(body(id=id)) == Request(id.encode(), "m")

    @pytest.mark.parametrize("id", ["1.0", "1e3", "null", "true", "{}", "[]", '{"a":"1"}'])
    def test_anything_else_is_refused(self, id: str) -> None:
        assert refusal(body(id=id)) == (-32600, None)

    @pytest.mark.parametrize("id", ["007", "+1", "0x1", "--1", "-", "'1'", '"\n"', '"\\q"', "1 2"])
    def test_what_is_no_json_is_no_id(self, id: str) -> None:
        assert refusal(body(id=id)) == (-32700, None)


class TestPayloads:
    @pytest.mark.parametrize(
        "value",
        [
            "12345678901234567890123456789",
            "1E+2",
            "1.10",
            "-0.0",
            "1e308",
            "1e-999",
            '"1e999,"',
            '["\\"1e999,",{"1e999":1e+0099}]',
            '"\\u00e9\\/"',
            '{"a":1,"a":2}',
            "[ 1 ,\t2 ]",
        ],
    )
    def test_they_travel_as_the_bytes_that_came(self, value: str) -> None:
        assert decode(body(params=x(value))) == Request(b"1", "m", x(value).encode())

    @pytest.mark.edge(16)
    @pytest.mark.parametrize(
        "value",
        [
            "NaN",
            "Infinity",
            "-Infinity",
            "1e999",
            "-1.5E+309",
            '["1e999,",1e00400 ]',
            '{"\\\\":7E999}',
            "01",
            ".5",
            "1.",
            "'x'",
            '"\x00"',
            '"\n"',
            '"\\q"',
            '"\\u12"',
            "undefined",
            "[1,]",
            "{'a':1}",
        ],
    )
    def test_what_is_no_json_inside_them_is_seen(self, value: str) -> None:
        assert refusal(body(params=x(value))) == (-32700, None)

    @pytest.mark.edge(16)
    @pytest.mark.parametrize(
        "bad", [b"\xff", b"\xc3\x28", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"\xf0\x9f\x98"]
    )
    def test_bytes_that_are_not_utf8_are_refused_wherever_they_are(self, bad: bytes) -> None:
        assert refusal(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":"' + bad + b'"}}') == (-32700, None)
        assert refusal(b'{"jsonrpc":"2.0","id":"' + bad + b'","method":"m"}') == (-32700, None)

    @pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
    @pytest.mark.parametrize("depth", [5_000, 100_000])
    def test_nesting_bombs_are_refused_quickly(self, opening: str, closing: str, depth: int) -> None:
        bomb = opening * depth + "1" + closing * depth
        for raw in (
            body(params=bomb),
            body(params=x(bomb)),
            body(extra=bomb, params="{}"),
            bomb.encode(),
            opening.encode() * depth,
        ):
            began = time.process_time()
            assert refusal(raw)[0] in (-32700, -32600)
            assert time.process_time() - began < 1

    def test_deep_nesting_behind_spaced_keys_is_refused_and_not_raised(self) -> None:
        deep = "[" * 990 + "]" * 990
        for raw in (body(x='"\\u0041"', params=x(deep)), body(params=x(deep))):
            try:
                decode(raw)
            except Malformed as error:
                assert error.code == -32700  # noqa: PT017 - either is right: it depends on how deep the caller stands


class TestDoubledKeys:
    @pytest.mark.parametrize(
        "raw",
        [
            b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","method":"a"}',
            b'{"jsonrpc":"2.0", "id": 1, "method": "a", "\\u006dethod": "b"}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","params":{"method":"x"},"params":{}}',
            b'{"jsonrpc":"2.0","id":2,"id":1,"method":"a"}',
            b'{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"a"}',
            b'{"jsonrpc":"2.0","id":1,"method":"a","method":"b","x":"\\ud83d"}',
            b'{"jsonrpc":"2.0","id":1,"result":{"id":3},"result":{"id":2}}',
        ],
    )
    def test_an_envelope_that_two_readers_could_read_differently_is_refused(self, raw: bytes) -> None:
        assert refusal(raw) == (-32600, b"1")

    @pytest.mark.parametrize(
        "params",
        [
            '{"id":1,"id":2}',
            '{"method":"a","params":{"method":"b","params":{}}}',
            '{"jsonrpc":"\\u0041","x":"\\"id\\":1,\\"id\\":2"}',
            '{"x":"\\"method\\""}',
        ],
    )
    def test_inside_a_payload_it_is_the_remotes_business(self, params: str) -> None:
        assert decode(body(params=params)) == Request(b"1", "m", params.encode())

    def test_what_is_large_beside_the_payload_is_refused_unread(self) -> None:
        large = "[" + "[]," * 100_000 + "1]"
        assert refusal(body(method="", result="{}", extra=large)) == (-32600, b"1")
        assert decode(body(method="", result=large, extra='"\\u0041"')) == Response(b"1", result=large.encode())

    @pytest.mark.parametrize("result", ["1", "0", "[]", '"id"'])
    def test_a_payload_that_looks_like_its_envelope_is_no_doubled_key(self, result: str) -> None:
        raw = b'{"x":"\\u0041' + b"x" * 70_000 + b'","result":' + result.encode() + b',"id":1,"jsonrpc":"2.0"}'
        try:
            assert decode(raw) == Response(b"1", result=result.encode())
        except Malformed as error:
            assert error.code == -32600  # noqa: PT017 - so much beside a payload is refused

    def test_long_numbers_do_not_trip_the_check(self) -> None:
        raw = body(vendor='"\\u0041"', params=x("9" * 6000))
        assert isinstance(decode(raw), Request)


class TestLoneSurrogates:
    def test_half_an_emoji_becomes_the_replacement_character_and_nothing_else_changes(self) -> None:
        raw = body(
            params='{"cut":"\\ud83d","half":"\\uDE00!","whole":"\\ud83d\\ude00","n":1.10,"w":%s,"a":1,"a":2}'
            % ("9" * 30)
        )
        expected = '{"cut":"\\ufffd","half":"\\ufffd!","whole":"\\ud83d\\ude00","n":1.10,"w":%s,"a":1,"a":2}' % (
            "9" * 30
        )
        assert decode(raw) == Request(b"1", "m", expected.encode())

    @pytest.mark.parametrize(
        ("text", "mended"),
        [
            ("\\\\ud83d", "\\ud83d"),
            ("\\\\\\ud83d", "\\\ufffd"),
            ("\\ud83d\\ud83d\\ude00", "\ufffd\U0001f600"),
            ("\\ud83dx\\ude00", "\ufffdx\ufffd"),
        ],
    )
    def test_a_backslash_before_it_is_read_as_json_reads_it(self, text: str, mended: str) -> None:
        message = decode(body(params='{"x":"' + text + '","also":"\\ud83d"}'))
        assert isinstance(message, Request)
        assert json.loads(message.params or b"")["x"] == mended

    def test_an_answer_says_that_it_was_mended(self) -> None:
        assert decode(body(method="", result='"\\ud83d"')) == Response(b"1", result=b'"\\ufffd"', mended=True)
        assert decode(body(method="", result='"\\ud83d\\ude00"')) == Response(b"1", result=b'"\\ud83d\\ude00"')

    def test_thousands_of_them_are_no_text(self) -> None:
        assert refusal(body(params=x('"' + "\\ud83d" * 20_000 + '"')))[0] == -32700

    def test_in_the_envelope_it_is_mended_too(self) -> None:
        assert decode(body(method='"a\\ud83d"')) == Request(b"1", "a\ufffd")
        assert decode(body(id='"\\ud83d"')) == Request(b'"\\ufffd"', "m")

    def test_what_is_wrong_besides_is_still_wrong(self) -> None:
        assert refusal(b'{"method":"\\ud83d","jsonrpc":2}')[0] == -32600
        assert refusal(body(params='{"x":"\\ud83d","y":NaN}')) == (-32700, None)
        assert refusal(body(params='{"x":"\\ud83d","y":' + "[" * 100_000 + "]" * 100_000 + "}")) == (-32700, None)


class TestBatch:
    def test_requests_and_notifications_or_responses_in_their_order(self) -> None:
        raw = b" [" + body() + b",\n" + body(id="", method='"n"') + b"," + body(id='"2"') + b"]"
        assert jsonrpc.is_batch(raw)
        assert jsonrpc.decode_batch(raw, 3) == [Request(b"1", "m"), Notification("n"), Request(b'"2"', "m")]
        answer = b'{"jsonrpc":"2.0","id":7,"result":{}}'
        assert jsonrpc.decode_batch(b"[" + answer + b"]", 3) == [Response(b"7", result=b"{}")]

    @pytest.mark.parametrize(
        ("raw", "code"),
        [
            (b"[]", -32600),
            (b"[1]", -32600),
            (b"[[]]", -32600),
            (b"[" + body() + b",{}]", -32600),
            (b"[" + body() + b"," + body() + b"]", -32600),
            (b"[" + b",".join(body(id=str(id)) for id in range(4)) + b"]", -32600),
            (b"[" + body() + b',{"jsonrpc":"2.0","id":7,"result":{}}]', -32600),
            (b"[" + body(), -32700),
            (b"[" + body() + b"]x", -32700),
            (b'[{"a":"\xff"}]', -32700),
            (b"[" * 100_000, -32700),
        ],
    )
    def test_one_bad_message_spoils_it_all(self, raw: bytes, code: int) -> None:
        with pytest.raises(Malformed) as caught:
            jsonrpc.decode_batch(raw, 3)
        assert caught.value.code == code

    def test_half_an_emoji_is_mended_here_too(self) -> None:
        (message,) = jsonrpc.decode_batch(b"[" + body(params=x(r'"\ud83d"')) + b"]", 1)
        assert message.params == x(r'"\ufffd"').encode()


class TestReadingInside:
    def test_values_are_read_or_refused(self) -> None:
        assert jsonrpc.value(b'{"a":[1]}') == {"a": [1]}
        assert jsonrpc.value(None) is None
        for raw in (b"99e308", b"[" * 5000 + b"]" * 5000, b"{"):
            with pytest.raises(Malformed):
                jsonrpc.value(raw, "it")

    def test_fields_of_nothing_and_of_what_is_no_object(self) -> None:
        assert jsonrpc.fields(None) == {}
        for raw in (b"[]", b"null", b"1", b"{", b"", b'{"a":' * 40_000):
            with pytest.raises(Malformed) as caught:
                jsonrpc.fields(raw, "it")
            assert (caught.value.code, caught.value.message) == (-32602, "it must be an object")

    def test_text_is_a_string_or_nothing(self) -> None:
        assert jsonrpc.text(b'"a\\u0062"') == "ab"
        for raw in (None, b"1", b"null", b'["a"]', b"", b'"', b'"\\ud83d"'):
            assert jsonrpc.text(raw) is None

    def test_an_error_of_the_wrong_shape_is_quoted(self) -> None:
        assert jsonrpc.error_body(b'{"code":-1,"message":"m"}').code == -1
        for raw in (b"[]", b'"no"', b'{"code":"x"}', b"null"):
            wrong = jsonrpc.error_body(raw)
            assert (wrong.code, wrong.message) == (-32603, raw.decode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    params=st.dictionaries(st.text(), json_values, max_size=5), ascii=st.booleans(), indent=st.sampled_from([None, 1])
)
def test_whatever_is_json_is_read_and_written_without_loss(
    params: dict[str, object], ascii: bool, indent: int | None
) -> None:
    raw = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "m", "params": params}, ensure_ascii=ascii, indent=indent)
    try:
        encoded = raw.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate, raw: no client can send it
    message = decode(encoded)
    assert isinstance(message, Request)
    written = jsontext.one_line(jsonrpc.request(message.id, message.method, message.params))
    expected = json.loads(json.dumps(params).encode().decode("utf-8", "replace"))
    read = json.loads(written)["params"]
    assert b"\n" not in written
    if not any(0xD800 <= ord(letter) <= 0xDFFF for letter in json.dumps(params, ensure_ascii=False)):
        assert read == expected


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_malformed(raw: bytes) -> None:
    for attempt in (raw, b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":' + raw + b"}}"):
        try:
            decode(attempt)
        except Malformed as error:
            assert error.code in (-32700, -32600, -32602)  # noqa: PT017
