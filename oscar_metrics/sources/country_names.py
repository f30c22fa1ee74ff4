"""Country names and codes as logs carry them, to ISO 3166-1 alpha-2. Pure."""

from __future__ import annotations

from functools import lru_cache

import pycountry

# Names in use (GeoLite2's and everyday English) that ISO 3166 does not list, lower case.
_ALSO = {
    "bolivia": "BO",
    "bonaire, sint eustatius, and saba": "BQ",
    "bosnia": "BA",
    "british virgin islands": "VG",
    "brunei": "BN",
    "burma": "MM",
    "cape verde": "CV",
    "congo republic": "CG",
    "democratic republic of the congo": "CD",
    "dr congo": "CD",
    "east timor": "TL",
    "el": "GR",
    "england": "GB",
    "falkland islands": "FK",
    "federated states of micronesia": "FM",
    "great britain": "GB",
    "hashemite kingdom of jordan": "JO",
    "heard island and mcdonald islands": "HM",
    "holland": "NL",
    "iran": "IR",
    "ivory coast": "CI",
    "kosovo": "XK",
    "laos": "LA",
    "macau": "MO",
    "macedonia": "MK",
    "micronesia": "FM",
    "moldova": "MD",
    "north korea": "KP",
    "palestine": "PS",
    "palestinian territory": "PS",
    "pitcairn islands": "PN",
    "republic of korea": "KR",
    "republic of lithuania": "LT",
    "republic of moldova": "MD",
    "republic of the congo": "CG",
    "russia": "RU",
    "saint barthelemy": "BL",
    "saint helena": "SH",
    "saint martin": "MF",
    "scotland": "GB",
    "sint maarten": "SX",
    "south korea": "KR",
    "st kitts and nevis": "KN",
    "st vincent and grenadines": "VC",
    "swaziland": "SZ",
    "syria": "SY",
    "são tomé and príncipe": "ST",
    "taiwan": "TW",
    "tanzania": "TZ",
    "the bahamas": "BS",
    "the gambia": "GM",
    "the netherlands": "NL",
    "turkey": "TR",
    "türkiye": "TR",
    "u.s. minor outlying islands": "UM",
    "u.s. outlying islands": "UM",
    "u.s. virgin islands": "VI",
    "uk": "GB",
    "us virgin islands": "VI",
    "vatican city": "VA",
    "venezuela": "VE",
    "vietnam": "VN",
    "wales": "GB",
    # Of no ISO standing, but the code everybody uses, GeoLite2 too.
    "xk": "XK",
    "åland": "AX",
}


def known_country_code(text: str) -> str:
    """The alpha-2 code of a country's code or English name; blank where it is no country's."""
    code = country_code(text.strip())
    return code if code in _ALSO.values() or pycountry.countries.get(alpha_2=code) else ""


# Labels come from log transports, so their number is not ours to trust.
@lru_cache(maxsize=2048)
def country_code(text: str) -> str:
    """The alpha-2 code of a country's code or English name; `text` itself where there is none."""
    if code := _ALSO.get(text.lower()):
        return code
    try:
        found = pycountry.countries.lookup(text)
    except LookupError:
        return text
    return str(found.alpha_2)
