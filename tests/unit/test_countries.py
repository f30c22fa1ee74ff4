import ipaddress
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from oscar_metrics.facts import CountryFrom, Roster, RosterUser
from oscar_metrics.findings import Level
from oscar_metrics.outcome import Ok, Unavailable
from oscar_metrics.sources.countries import _PUBLIC_OCTETS, Countries, GeoIP, without_port
from oscar_metrics.sources.country_names import country_code
from oscar_metrics.timerange import DAY_NS


def write_database(
    path: Path, networks: dict[str, str], *, kind: str = "GeoLite2-Country", version: int = 6
) -> Path:
    writer = MMDBWriter(version, kind, ipv4_compatible=version == 6)
    for network, country in networks.items():
        writer.insert_network(IPSet([network]), {"country": {"iso_code": country}})
    made = path.with_suffix(".new")
    writer.to_db_file(str(made))
    made.replace(path)
    return path


bytes_ = st.sampled_from([0, 1, 127, 128, 255])


@pytest.fixture
def database(tmp_path: Path) -> Path:
    networks = {"79.0.0.0/8": "ES", "2a00::/16": "FR", "10.0.0.0/8": "XX", "100.64.0.0/10": "XX"}
    return write_database(tmp_path / "countries.mmdb", networks)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("79.1.1.1", "ES"),
        (" 79.1.1.1:4711 ", "ES"),
        ("2a00::1", "FR"),
        ("[2a00::1]:80", "FR"),
        ("[2a00::1]", "FR"),
        ("8.8.8.8", ""),
        # private and shared addresses have no country, whatever the database holds
        ("10.0.0.1", ""),
        ("100.64.0.1:80", ""),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("fe80::1%eth0", ""),
        ("", ""),
        ("-", ""),
        ("79.1.1", ""),
        ("not an address", ""),
    ],
)
def test_the_country_of_an_address_is(database: Path, ip: str, expected: str) -> None:
    country_of = GeoIP.open(database).lookup()
    assert country_of is not None
    assert country_of(ip) == expected
    assert country_of(ip) == expected


@pytest.mark.parametrize(
    "ip",
    [
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "100::1",
        "2001:db8::1",
        "fc00::1",
        "fe80::1",
        "ff02::1",
    ],
)
def test_private_and_reserved_addresses_have_no_country_on_any_way(tmp_path: Path, ip: str) -> None:
    networks = {"::/1": "XX", "8000::/1": "XX"}
    geoip = GeoIP.open(write_database(tmp_path / "all.mmdb", networks))
    countries = Countries(geoip, Roster(users={"eve": RosterUser(id="eve", country="PT")}))
    assert countries.of_ip is not None
    assert countries.of_ip("9.9.9.9") == "XX"
    for form in (ip, f" {ip} ", f"[{ip}]:80" if ":" in ip else f"{ip}:80"):
        assert countries.of_ip(form) == ""
        assert countries.decide("", form, "nobody") == ("", CountryFrom.NOTHING)
        assert countries.decide("-", form, "eve") == ("PT", CountryFrom.ROSTER)


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("1.2.3.4:55", "1.2.3.4"),
        ("1.2.3.4", "1.2.3.4"),
        ("[::1]:55", "::1"),
        ("::1", "::1"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_a_port_is_no_part_of_an_address(ip: str, expected: str) -> None:
    assert without_port(ip) == expected


def test_what_is_taken_for_public_unasked_is_public() -> None:
    for octet in _PUBLIC_OCTETS:
        for rest in ("0.0.0", "0.2.1", "88.99.1", "168.0.1", "255.255.255"):
            assert ipaddress.ip_address(f"{octet}.{rest}").is_global


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.builds("79.{}.{}.0/{}".format, bytes_, bytes_, st.integers(8, 32)),
        st.sampled_from(["ES", "FR", "PT"]),
        max_size=6,
    ),
    st.lists(st.builds("79.{}.{}.{}".format, bytes_, bytes_, bytes_), max_size=40),
    st.sampled_from([4, 6]),
)
def test_what_is_remembered_of_networks_is_what_a_look_up_says(
    tmp_path: Path, networks: dict[str, str], ips: list[str], version: int
) -> None:
    sizes = sorted(networks.items(), key=lambda item: int(item[0].partition("/")[2]))
    path = write_database(tmp_path / "n.mmdb", dict(sizes), version=version)
    geoip = GeoIP.open(path)
    assert geoip._database is not None
    lookup = geoip._database.lookup
    for ip in ips:
        assert lookup.country_of(ip) == lookup.look_up(ip)[0]


def test_a_country_is_what_the_label_says_else_the_address_else_what_is_known_of_the_user(
    database: Path,
) -> None:
    roster = {
        "ada": RosterUser(id="ada", country="portugal"),
        "bob": RosterUser(id="bob", country="unknown"),
        "eve": RosterUser(id="eve", country="fr", country_from=CountryFrom.CLAIM),
    }
    countries = Countries(GeoIP.open(database), Roster(users=roster))
    assert countries.decide("italy", "79.1.1.1", "ada") == ("IT", CountryFrom.LABEL)
    assert countries.decide("-", "79.1.1.1", "ada") == ("ES", CountryFrom.GEOIP)
    assert countries.decide("", "10.1.1.1", "ada") == ("PT", CountryFrom.ROSTER)
    assert countries.decide("", "10.1.1.1", "eve") == ("FR", CountryFrom.CLAIM)
    assert countries.decide("", "79.1.1.1", "eve") == ("ES", CountryFrom.GEOIP)
    assert countries.decide("", "10.1.1.1", "bob") == ("", CountryFrom.NOTHING)
    assert countries.decide("", "", "") == ("", CountryFrom.NOTHING)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ES", "ES"),
        ("es", "ES"),
        ("ESP", "ES"),
        ("Spain", "ES"),
        ("united states", "US"),
        ("Czech Republic", "CZ"),
        ("Czechia", "CZ"),
        ("Russia", "RU"),
        ("South Korea", "KR"),
        ("Turkey", "TR"),
        ("Türkiye", "TR"),
        ("The Netherlands", "NL"),
        ("Iran", "IR"),
        ("Vietnam", "VN"),
        ("Taiwan", "TW"),
        ("Bolivia", "BO"),
        ("Ivory Coast", "CI"),
        ("Kosovo", "XK"),
        ("UK", "GB"),
        ("Atlantis", "Atlantis"),
        ("", ""),
    ],
)
def test_a_name_or_code_of_a_country_maps_to(text: str, expected: str) -> None:
    assert country_code(text) == expected


def asn(path: Path) -> None:
    write_database(path, {"79.0.0.0/8": "ES"}, kind="GeoLite2-ASN")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda _: None, "does not exist"),
        (Path.mkdir, "no permission, or no file"),
        (os.mkfifo, "no permission, or no file"),
        (lambda path: path.write_bytes(b""), "broken or not of the MMDB format"),
        (lambda path: path.write_bytes(os.urandom(5000)), "broken or not of the MMDB format"),
        (asn, "holds no countries"),
    ],
)
def test_a_database_of_no_use_is_said_and_never_raises(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    path = tmp_path / "countries.mmdb"
    make(path)
    geoip = GeoIP.open(path)
    outcome = geoip.outcome()
    assert isinstance(outcome, Unavailable)
    assert says in outcome.notes[0]
    assert "OSCAR_METRICS_GEOIP_DATABASE" in outcome.notes[0]
    assert str(tmp_path) not in outcome.notes[0]
    assert geoip.lookup() is None
    assert [finding.level for finding in geoip.check(0)] == [Level.PROBLEM]


def test_no_database_is_a_note_and_a_warning() -> None:
    outcome = GeoIP.open(None).outcome()
    assert isinstance(outcome, Unavailable)
    assert "OSCAR_METRICS_GEOIP_DATABASE" in outcome.notes[0]
    assert [finding.level for finding in GeoIP.open(None).check(0)] == [Level.WARNING]


def test_a_truncated_database_never_raises(database: Path) -> None:
    whole = database.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 50)):
        database.with_suffix(".cut").write_bytes(whole[:size])
        country_of = GeoIP.open(database.with_suffix(".cut")).lookup()
        assert country_of is None or country_of("79.1.1.1") in ("ES", "")


def test_a_replaced_database_is_opened_again_and_reports_in_flight_keep_theirs(
    database: Path,
) -> None:
    geoip = GeoIP.open(database)
    before = geoip.lookup()
    write_database(database, {"79.0.0.0/8": "PT"})
    geoip.refresh()
    after = geoip.lookup()
    assert before is not None
    assert after is not None
    assert (before("79.2.2.2"), after("79.2.2.2")) == ("ES", "PT")
    database.unlink()
    geoip.refresh()
    assert isinstance(geoip.outcome(), Unavailable)


def test_an_old_database_is_a_warning(database: Path) -> None:
    geoip = GeoIP.open(database)
    outcome = geoip.outcome()
    assert isinstance(outcome, Ok)
    assert outcome.last_updated_ns is not None
    built_ns = outcome.last_updated_ns
    assert [f.level for f in geoip.check(built_ns + 59 * DAY_NS)] == [Level.OK]
    assert [f.level for f in geoip.check(built_ns + 61 * DAY_NS)] == [Level.WARNING]


def test_a_damaged_database_is_told_before_it_ends_the_process(tmp_path: Path) -> None:
    networks = {f"{first}.0.0.0/8": "ES" for first in range(20, 90)}
    write_database(tmp_path / "whole.mmdb", networks)
    content = bytearray((tmp_path / "whole.mmdb").read_bytes())
    metadata = content.rindex(b"\xab\xcd\xefMaxMind.com")
    for at in range(0, metadata, 3):
        content[at] ^= 0xFF
    (tmp_path / "damaged.mmdb").write_bytes(content)
    outcome = GeoIP.open(tmp_path / "damaged.mmdb").outcome()
    assert isinstance(outcome, Unavailable)
    assert "broken" in outcome.notes[0]


def test_a_database_cut_short_while_it_is_used_is_still_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "countries.mmdb"
    write_database(path, {"79.0.0.0/8": "ES"})
    lookup = GeoIP.open(path).lookup()
    path.write_bytes(b"")
    assert lookup is not None
    assert lookup("79.1.2.3") == "ES"
