"""Which addresses may be reached, in all the ways to write them."""

import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from remotes.config.addresses import Reach, classify, reach, url_fault


def fault_code(url, allowed):
    fault = url_fault(url, allowed)
    return fault and fault.code


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("127.0.0.1", "allowed"), ("127.9.9.9", "allowed"), ("::1", "allowed"), ("::ffff:127.0.0.1", "allowed"),
        ("93.184.216.34", "allowed"), ("2606:4700::1111", "allowed"),
        ("10.0.0.1", "private"), ("172.16.0.1", "private"), ("192.168.0.1", "private"), ("100.64.0.1", "private"),
        ("fd12::1", "private"), ("::ffff:10.0.0.1", "private"), ("64:ff9b::a00:1", "private"), ("2002:a00:1::", "private"),
        ("169.254.169.254", "forbidden"), ("::ffff:169.254.169.254", "forbidden"), ("64:ff9b::a9fe:a9fe", "forbidden"),
        ("2002:a9fe:a9fe::", "forbidden"), ("::a9fe:a9fe", "forbidden"), ("fe80::1", "forbidden"),
        ("fd00:ec2::254", "forbidden"), ("100.100.100.200", "forbidden"), ("168.63.129.16", "forbidden"),
        ("0.0.0.0", "forbidden"), ("::", "forbidden"), ("224.0.0.1", "forbidden"), ("ff02::1", "forbidden"),
        ("255.255.255.255", "forbidden"), ("240.0.0.1", "forbidden"), ("fd20:ce::254", "forbidden"),
        ("fd00:ec2::23", "forbidden"), ("::ffff:0:169.254.169.254", "forbidden"), ("64:ff9b:1::a9fe:a9fe", "forbidden"),
        ("64:ff9b:1::808:808", "private"), ("2606:4700::5efe:a9fe:a9fe", "forbidden"),
        ("2606:4700::200:5efe:a00:1", "private"), ("2001:0:808:808::f7f7:f7f7", "allowed"),
        ("2001:0:808:808::5601:5601", "forbidden"),
    ],
)  # fmt: skip
def test_an_address_is_judged_by_where_it_leads(address, verdict):
    assert classify(ipaddress.ip_address(address)) == verdict


def test_private_networks_are_reached_only_where_they_are_named():
    allowed, wrong = reach(["10.0.0.0/8", "fd12::/16", "build.internal."])
    assert wrong == []
    private = ipaddress.ip_address("192.168.0.1")
    assert allowed.judge("any", ipaddress.ip_address("10.1.1.1")) == "allowed"
    assert allowed.judge("any", ipaddress.ip_address("::ffff:10.1.1.1")) == "allowed"
    assert allowed.judge("any", private) == "private"
    assert allowed.judge("Build.internal", private) == "allowed"


@pytest.mark.parametrize("allowed", [Reach(everything=True), reach(["0.0.0.0/0", "::/0", "metadata"])[0]])
def test_nothing_opens_the_metadata_service(allowed):
    assert allowed.judge("metadata", ipaddress.ip_address("169.254.169.254")) == "forbidden"
    assert fault_code("http://metadata/latest", allowed) == "forbidden_address"
    assert fault_code("http://169.254.169.254/latest", allowed) == "forbidden_address"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:3001/mcp", "http://localhost/sse", "https://mcp.example.com/mcp?x=1", "http://[::1]:80/",
        "https://bücher.example/mcp", "http://under_score.internal/", "https://93.184.216.34/", "HTTPS://EXAMPLE.COM",
    ],
)  # fmt: skip
def test_an_ordinary_url_is_fine(url):
    assert url_fault(url, Reach()) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://0x7f000001/",
        "http://017700000001/",
        "http://2130706433",
        "http://127.1/",
        "http://1.2.3/",
        "http://a.5/",
    ],
)
def test_a_number_that_only_a_resolver_understands_is_refused(url):
    assert fault_code(url, Reach()) == "forbidden_address"


@pytest.mark.parametrize(
    "url", ["", "mcp.example.com", "http://", "http://a b/", "http://-a/", "http://a..b/", "http://a:b/", "http://a\\b"]
)
def test_what_is_no_url_is_refused(url):
    assert fault_code(url, Reach()) == "bad_url"


# All the ways to write an address that somebody reads as 169.254.169.254 or another one that is never contacted.

FORBIDDEN = st.sampled_from(["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "0.0.0.0"])
WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
DOTS = st.sampled_from([".", "\u3002", "\uff0e", "\uff61"])


@st.composite
def spellings(draw: st.DrawFn) -> str:
    address = ipaddress.IPv4Address(draw(FORBIDDEN))
    if draw(st.booleans()):
        prefix = draw(
            st.sampled_from(["::ffff:", "::", "64:ff9b::", "64:ff9b:1::", "::ffff:0:", "2002:", "2606::5efe:"])
        )
        high, low = int(address) >> 16, int(address) & 0xFFFF
        inner = draw(st.sampled_from([str(address), f"{high:x}:{low:x}", f"{high:04X}:{low:04X}"]))
        return f"[2002:{high:x}:{low:x}::1]" if prefix == "2002:" else f"[{prefix}{inner}]"
    parts = _parts(int(address), draw(st.integers(1, 4)))
    written = [
        draw(st.sampled_from([f"{part}", f"{part:#x}", f"{part:#X}", f"0{part:o}", f"000{part:o}"])) for part in parts
    ]
    host = draw(DOTS).join(written) + draw(st.sampled_from(["", ".", "\u3002"]))
    return host.translate(WIDE) if draw(st.booleans()) else host


def _parts(number: int, count: int) -> list[int]:
    """The forms of inet_aton: the last part takes all the bytes that are left."""
    bytes_ = number.to_bytes(4, "big")
    return [*bytes_[: count - 1], int.from_bytes(bytes_[count - 1 :], "big")]


@given(spellings(), st.sampled_from(["http", "https"]), st.sampled_from(["", ":80", ":3001"]))
def test_no_spelling_of_a_forbidden_address_passes(host, scheme, port):
    assert url_fault(f"{scheme}://{host}{port}/latest?x=1", Reach(everything=True)) is not None


@given(
    st.text("abc0169.:/@?#[]%\\\u3002\uff0e\uff11\u2488\u00df_- fx", max_size=40),
    st.sampled_from(["http://", "https://", "HTTP://", "http:", "http:///", "//"]),
)
def test_who_connects_reads_the_host_that_was_judged(rest, scheme):
    """Two readers of one URL that disagree are how a guard is passed: what is accepted is no address that it would refuse."""
    if url_fault(scheme + rest, Reach(everything=True)) is not None:
        return
    for host in (URL(scheme + rest).host, urlsplit(scheme + rest).hostname):
        assert host
        plain = host.rstrip(".")
        assert not plain.replace(".", "").isascii() or not plain.replace(".", "").isdigit() or _allowed(plain)


def _allowed(host: str) -> bool:
    return classify(ipaddress.ip_address(host)) != "forbidden"


@given(st.ip_addresses())
def test_every_address_has_a_verdict_and_its_mapped_form_has_the_same(address):
    verdict = classify(address)
    assert verdict in ("allowed", "forbidden", "private")
    if address.version == 4:
        for form in (f"::ffff:{address}", f"64:ff9b::{address}", f"::ffff:0:{address}"):
            assert classify(ipaddress.ip_address(form)) == verdict
    assert Reach(everything=True).judge("any", address) == ("forbidden" if verdict == "forbidden" else "allowed")
