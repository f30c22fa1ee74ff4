"""How the country of a call is decided: its label, else its IP, else what the roster says."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path

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
_NO_LABEL = frozenset({"", "-", "unknown"})
# Callers known by IP at a time; at some 120 bytes each, 8 MB.
_CACHED_IPS = 65_536
# Networks change hands; past this age countries begin to be wrong in number.
_OLD_NS = 60 * DAY_NS
# First octets under which every IPv4 address is public: asking `ipaddress` costs ten times more.
_PUBLIC_OCTETS = frozenset(map(str, range(1, 224))) - frozenset(
    ("10", "100", "127", "169", "172", "192", "198", "203")
)


class Countries:
    """Decides the country of calls, with the GeoIP database and the roster as they are now."""

    def __init__(self, geoip: GeoIP, roster: Roster) -> None:
        # Of an address, its country or blank; None where there is no database.
        self.of_ip: Callable[[str], str] | None = geoip.lookup()
        self._of_user = {
            user.id: code for user in roster.values() if (code := self.of_label(user.country))
        }

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
        if country := self._of_user.get(user):
            return country, CountryFrom.ROSTER
        return "", CountryFrom.NOTHING

    @staticmethod
    def of_label(label: str) -> str:
        """The ISO 3166-1 alpha-2 code of a code or a name; as it is where it cannot be mapped."""
        label = label.strip()
        return "" if label.lower() in _NO_LABEL else country_code(label)


class _Database(msgspec.Struct, frozen=True, kw_only=True):
    """An opened country database."""

    reader: maxminddb.Reader
    kind: str
    built_ns: int
    countries: dict[str, str]


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
        known = database.countries

        def country_of(ip: str) -> str:
            country = known.get(ip)
            if country is None:
                if len(known) >= _CACHED_IPS:
                    known.clear()
                country = known[ip] = _look_up(database.reader, ip)
            return country

        return country_of

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
        reader = geoip2.database.Reader(path)
    except FileNotFoundError:
        return None, f"the GeoIP database does not exist ({_SETTING})"
    except OSError:
        return None, f"the GeoIP database cannot be read: no permission, or no file ({_SETTING})"
    except (maxminddb.InvalidDatabaseError, ValueError):
        return None, f"the GeoIP database is broken or not of the MMDB format ({_SETTING})"
    with reader:
        metadata = reader.metadata()
    kind = metadata.database_type
    if not any(word in kind for word in ("Country", "City", "Enterprise")):
        return None, f"the GeoIP database holds no countries ({_SETTING})"
    try:
        # The reader under geoip2 is several times as fast, having no models to fill.
        database = _Database(
            reader=maxminddb.open_database(path),
            kind=kind,
            built_ns=metadata.build_epoch * SECOND_NS,
            countries={},
        )
    except (OSError, maxminddb.InvalidDatabaseError, ValueError):
        return None, f"the GeoIP database changed while it was being opened ({_SETTING})"
    return database, ""


def _look_up(reader: maxminddb.Reader, ip: str) -> str:
    address = without_port(ip)
    try:
        record = reader.get(address)
        if not isinstance(record, dict) or not _is_public(address):
            return ""
    except (ValueError, maxminddb.InvalidDatabaseError):
        return ""
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else None
    return code.upper() if isinstance(code, str) and code.isalpha() else ""


def without_port(ip: str) -> str:
    """The address in `1.2.3.4`, `1.2.3.4:55`, `::1`, `[::1]` or `[::1]:55`."""
    ip = ip.strip()
    if ip.startswith("["):
        return ip[1:].partition("]")[0]
    return ip.partition(":")[0] if ip.count(":") == 1 else ip


def _is_public(address: str) -> bool:
    """Whether an address belongs to somebody; raises ValueError for what is no address."""
    if address.count(".") == 3 and address.partition(".")[0] in _PUBLIC_OCTETS:
        return True
    parsed = ipaddress.ip_address(address)
    return parsed.is_global and not parsed.is_multicast
