"""Which addresses may be reached, in all the ways to write them."""

import ipaddress

import pytest

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
        ("255.255.255.255", "forbidden"), ("240.0.0.1", "forbidden"),
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
