"""How the country of a call is decided: its label, else its IP, else what is known of the user."""

from __future__ import annotations

import errno
import io
import ipaddress
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from socket import AF_INET, inet_pton

import geoip2.database
import maxminddb
import msgspec

from oscar_metrics.facts import CountryFrom, Roster
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Unavailable
from oscar_metrics.sources.country_names import country_code
from oscar_metrics.timerange import DAY_NS, SECOND_NS

_ORIGIN = "geoip"
_SETTING = "OSCAR_METRICS_GEOIP_DATABASE"
# GeoLite2-City is 60 MB; ten times that is no country database.
_MOST_BYTES = 600 * 1024 * 1024
# Addresses of each family looked up before a database is trusted: a tenth of a second.
_LOOKED_AROUND = 300
# What damaged data may end in, beside the reader's own error.
_BROKEN = (ValueError, TypeError, LookupError, RecursionError, OverflowError, MemoryError)
_NO_LABEL = frozenset({"", "-", "unknown"})
# Callers and networks remembered at a time; at some 120 bytes each, 2 MB and 8 MB.
_CACHED_IPS = 16_384
_CACHED_NETWORKS = 65_536
# Networks change hands; past this age countries begin to be wrong in number.
_OLD_NS = 60 * DAY_NS
# First octets under which every IPv4 address is public: asking `ipaddress` costs ten times more.
_PUBLIC_OCTETS = frozenset(range(1, 224)) - {10, 100, 127, 169, 172, 192, 198, 203}


class Countries:
    """Decides the country of calls, with the GeoIP database and the roster as they are now."""

    def __init__(self, geoip: GeoIP, roster: Roster) -> None:
        # Of an address, its country or blank; None where there is no database.
        self.of_ip: Callable[[str], str] | None = geoip.lookup()
        self._users = roster.users
        # Of those asked about: to look at all 200,000 of a roster takes half a second.
        self._of_user: dict[str, tuple[str, CountryFrom]] = {}

    def decide(self, label: str, ip: str, user: str) -> tuple[str, CountryFrom]:
        """The country of one call (blank: nobody knows), and what said so."""
        label = self.of_label(label)
        return self.settle(label, "" if label or self.of_ip is None else self.of_ip(ip), user)

    def settle(self, label: str, ip_country: str, user: str) -> tuple[str, CountryFrom]:
        """The same from a label that went through `of_label` and a country from `of_ip`."""
        if label:
            return label, CountryFrom.LABEL
        if ip_country:
            return ip_country, CountryFrom.GEOIP
        found = self._of_user.get(user)
        if found is None:
            known = self._users.get(user)
            code = "" if known is None else self.of_label(known.country)
            found = (code, known.country_from) if known and code else ("", CountryFrom.NOTHING)
            self._of_user[user] = found
        return found

    @staticmethod
    def of_label(label: str) -> str:
        """The ISO 3166-1 alpha-2 code of a code or a name; as it is where it cannot be mapped."""
        label = label.strip()
        return "" if label.lower() in _NO_LABEL else country_code(label)


class _Database(msgspec.Struct, frozen=True, kw_only=True):
    """An opened country database."""

    lookup: _Lookup
    kind: str
    built_ns: int


class GeoIP:
    """The operator's database of countries by IP, or why there is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._database: _Database | None = None
        self._why_not = f"no GeoIP database is configured ({_SETTING})"
        self.refresh()

    @classmethod
    def open(cls, path: Path | None) -> GeoIP:
        """The database at `path`; never raises, `outcome` says what became of it."""
        return cls(path)

    def refresh(self) -> None:
        """Open the file again when it changed; one that cannot be read leaves none."""
        if self._path is None:
            return
        version = _version(self._path)
        if version is not None and version == self._version:
            return
        self._version = version
        self._database, self._why_not = _open(self._path)

    def outcome(self) -> Ok[GeoIP] | Unavailable:
        """Whether countries can be told by IP."""
        if self._database is None:
            return Unavailable(origin=_ORIGIN, notes=(self._why_not,))
        return Ok(facts=self, origin=_ORIGIN, last_updated_ns=self._database.built_ns)

    def lookup(self) -> Callable[[str], str] | None:
        """A function from a client's address, maybe with a port, to its country's code or blank.

        It stays with the database of now; None where there is none.
        """
        database = self._database
        if database is None:
            return None
        database.lookup.begin()
        return database.lookup.country_of

    def check(self, now_ns: int) -> list[Finding]:
        """What an operator should know of the database."""
        if self._path is None:
            return [
                _finding(
                    Level.WARNING,
                    "no GeoIP database is configured: countries come from labels and the roster",
                    f"set {_SETTING} to a GeoLite2-Country.mmdb or the like",
                )
            ]
        self.refresh()
        if self._database is None:
            return [_finding(Level.PROBLEM, self._why_not, f"correct {_SETTING}")]
        days = max(0, now_ns - self._database.built_ns) // DAY_NS
        says = f"{self._database.kind}, built {days} days ago"
        if now_ns - self._database.built_ns > _OLD_NS:
            return [_finding(Level.WARNING, says, "update the database: networks change hands")]
        return [_finding(Level.OK, says)]


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source="country-attribution", level=level, says=says, change=change)


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _open(path: Path) -> tuple[_Database | None, str]:
    try:
        content = _content(path)
    except FileNotFoundError:
        return None, f"the GeoIP database does not exist ({_SETTING})"
    except OSError:
        return None, f"the GeoIP database cannot be read: no permission, or no file ({_SETTING})"
    if len(content) > _MOST_BYTES:
        return None, f"the GeoIP database is larger than {_MOST_BYTES} bytes ({_SETTING})"
    try:
        with geoip2.database.Reader(io.BytesIO(content), mode=maxminddb.MODE_FD) as reader:
            metadata = reader.metadata()
        _look_around(content)
    except (maxminddb.InvalidDatabaseError, *_BROKEN):
        return None, f"the GeoIP database is broken or not of the MMDB format ({_SETTING})"
    kind = metadata.database_type
    if not any(word in kind for word in ("Country", "City", "Enterprise")):
        return None, f"the GeoIP database holds no countries ({_SETTING})"
    # The reader under geoip2 is several times as fast, having no models to fill.
    database = _Database(
        lookup=_Lookup(_fast_reader(content)),
        kind=kind,
        built_ns=metadata.build_epoch * SECOND_NS,
    )
    return database, ""


def _content(path: Path) -> bytes:
    """A regular file's bytes, at most one more than may be; a pipe would be waited for."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _look_around(content: bytes) -> None:
    """Look a few hundred addresses up with the careful reader; raises where one breaks.

    The fast one is written in C and ends the process on data that make no sense.
    """
    dice = random.Random(0)
    with maxminddb.open_database(io.BytesIO(content), maxminddb.MODE_FD) as careful:
        bits = 32 if careful.metadata().ip_version == 4 else 128
        for _ in range(_LOOKED_AROUND):
            careful.get(ipaddress.IPv4Address(dice.getrandbits(32)))
            if bits == 128:
                # 2000::/3 is what is given out.
                careful.get(ipaddress.IPv6Address(1 << 125 | dice.getrandbits(125)))


def _fast_reader(content: bytes) -> maxminddb.Reader:
    """A reader of a copy of our own: the file may be cut under a map of it, which is fatal."""
    copy = os.memfd_create("geoip")
    try:
        with os.fdopen(os.dup(copy), "wb") as file:
            file.write(content)
        return maxminddb.open_database(f"/proc/self/fd/{copy}")
    finally:
        os.close(copy)


class _Lookup:
    """Countries by address in one database, remembered by address and by network.

    What `country_of` gives is never another than `look_up`'s.
    """

    def __init__(self, reader: maxminddb.Reader) -> None:
        self._reader = reader
        self._by_ip: dict[str, str] = {}
        # By the first two or three bytes of IPv4 networks that lie in one country.
        self._by_network: dict[bytes, str] = {}
        self._callers_repeat = True

    def begin(self) -> None:
        """Assume again, for a new report, that its callers repeat."""
        if not self._callers_repeat:
            self._by_ip.clear()
            self._callers_repeat = True

    def country_of(self, ip: str) -> str:
        """The code of an address's country, blank where it has none or is no address."""
        callers_repeat = self._callers_repeat
        if callers_repeat:
            country = self._by_ip.get(ip)
            if country is not None:
                return country
        try:
            address = inet_pton(AF_INET, ip.strip())
        except (OSError, ValueError):
            address = b""
        networks = self._by_network
        country = networks.get(address[:2])
        if country is None:
            country = networks.get(address[:3])
            if country is None:
                country = self._learn(ip, address)
        if callers_repeat:
            # Where nearly every caller is another, remembering each of them only costs.
            self._by_ip[ip] = country
            self._callers_repeat = len(self._by_ip) < _CACHED_IPS
        return country

    def _learn(self, ip: str, address: bytes) -> str:
        country, prefix = self.look_up(without_port(ip))
        if address and address[0] in _PUBLIC_OCTETS and prefix <= 24:
            if len(self._by_network) >= _CACHED_NETWORKS:
                self._by_network.clear()
            self._by_network[address[: 2 if prefix <= 16 else 3]] = country
        return country

    def look_up(self, address: str) -> tuple[str, int]:
        """The country of an address, and the length in bits of the network it is known by."""
        try:
            record, prefix = self._reader.get_with_prefix_len(address)
            if not isinstance(record, dict) or not is_public(address):
                return "", prefix
        except (ValueError, maxminddb.InvalidDatabaseError):
            return "", 128
        country = record.get("country")
        code = country.get("iso_code") if isinstance(country, dict) else None
        return code.upper() if isinstance(code, str) and code.isalpha() else "", prefix


def without_port(ip: str) -> str:
    """The address in `1.2.3.4`, `1.2.3.4:55`, `::1`, `[::1]` or `[::1]:55`."""
    ip = ip.strip()
    if ip.startswith("["):
        return ip[1:].partition("]")[0]
    return ip.partition(":")[0] if ip.count(":") == 1 else ip


def is_public(address: str) -> bool:
    """Whether an address belongs to somebody; raises ValueError for what is no address."""
    parsed = ipaddress.ip_address(address)
    return parsed.is_global and not parsed.is_multicast
