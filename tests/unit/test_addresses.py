from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.auth.addresses import Proxies, counted_as

PROXIES = Proxies(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])
PROXY, STRANGER = "10.1.1.1", "203.0.113.9"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        # Who is no proxy is taken at their address, whatever they say.
        (STRANGER, [], STRANGER),
        (STRANGER, ["1.2.3.4"], STRANGER),
        # A proxy is believed: the right-most that is none itself.
        (PROXY, [], PROXY),
        (PROXY, ["1.2.3.4"], "1.2.3.4"),
        (PROXY, ["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
        (PROXY, ["9.9.9.9, 1.2.3.4, 10.2.2.2"], "1.2.3.4"),
        (PROXY, ["9.9.9.9", "1.2.3.4", "10.2.2.2, 192.0.2.1"], "1.2.3.4"),
        (PROXY, ["1.2.3.4,10.2.2.2"], "1.2.3.4"),
        (PROXY, ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        # Garbage ends what is believed.
        (PROXY, [""], PROXY),
        (PROXY, ["unknown"], PROXY),
        (PROXY, ["1.2.3.4, _hidden, 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["1.2.3.4, , 10.2.2.2"], "10.2.2.2"),
        (PROXY, ["1.2.3.4, 10.2.2.2,"], PROXY),
        (PROXY, ["1.2.3.256"], PROXY),
        (PROXY, ["9.9.9.9 1.2.3.4"], PROXY),
        (PROXY, [f"fe80::1%{'x' * 100}"], PROXY),
        # The ways an address is written.
        (PROXY, ["1.2.3.4:5678"], "1.2.3.4"),
        (PROXY, ["1.2.3.4:"], PROXY),
        (PROXY, ["1.2.3.4:http"], PROXY),
        (PROXY, ["[2001:db8::1]"], "2001:db8::1"),
        (PROXY, ["[2001:db8::1]:443"], "2001:db8::1"),
        (PROXY, ["[2001:db8::1"], PROXY),
        (PROXY, ["[2001:db8::1]443x"], PROXY),
        (PROXY, ["fe80::1%eth0"], "fe80::1"),
        # IPv4 in IPv6, as a socket for both gives it.
        ("::ffff:203.0.113.9", [], STRANGER),
        ("::ffff:10.1.1.1", ["::ffff:1.2.3.4"], "1.2.3.4"),
        (PROXY, ["1.2.3.4, ::ffff:10.2.2.2"], "1.2.3.4"),
    ],
)
def test_the_address_of_a_caller(peer: str, forwarded: list[str], address: str) -> None:
    assert str(PROXIES.address(peer, forwarded)) == address


def test_without_proxies_nobody_is_believed() -> None:
    assert str(Proxies([]).address("127.0.0.1", ["1.2.3.4"])) == "127.0.0.1"


def test_a_peer_without_an_address_is_nobody() -> None:
    assert PROXIES.address("", ["1.2.3.4"]) is None
    assert counted_as(PROXIES.address("a.sock", [])) == ""


def test_a_row_of_proxies_has_an_end() -> None:
    row = ["1.2.3.4", *["10.2.2.2"] * 20_000]
    assert str(PROXIES.address(PROXY, [", ".join(row)])) == "10.2.2.2"


@given(st.lists(st.text(max_size=20)), st.sampled_from([STRANGER, PROXY, "", "x"]))
def test_no_header_is_a_failure(forwarded: list[str], peer: str) -> None:
    address = PROXIES.address(peer, forwarded)
    if peer == STRANGER:
        assert str(address) == STRANGER


@given(st.lists(st.ip_addresses().map(str), max_size=4))
def test_what_is_left_of_the_caller_changes_nothing(before: list[str]) -> None:
    forwarded = ", ".join([*before, STRANGER, "10.2.2.2"])
    assert str(PROXIES.address(PROXY, [forwarded])) == STRANGER


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
    ],
)
def test_of_ipv6_a_network_counts(address: str, counted: str) -> None:
    assert counted_as(PROXIES.address(address, [])) == counted
