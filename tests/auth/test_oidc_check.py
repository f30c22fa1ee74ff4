"""What `check` says of the settings and the issuers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.errors import REASON_TEXT, Reason
from oscar_metrics.findings import Level
from oscar_metrics.sources.upstream_tls import TlsSettings
from tests.auth.authorising import LIMITS, auth, settings
from tests.auth.made_issuer import DISCOVERY, KEYS, USERINFO, MadeIssuer
from tests.auth.making import NOW, key, public
from tests.servers.certificates import Authority

NOT_HTTPS = "is not https: whoever sees the traffic can take its tokens"


@pytest.fixture
async def issuer() -> AsyncIterator[MadeIssuer]:
    async with MadeIssuer.start() as made:
        # It takes no one without a token.
        made.says(USERINFO, {}, status="401 Unauthorized")
        yield made


@pytest.fixture
def authority() -> Authority:
    return Authority("issuers")


@pytest.fixture
async def https_issuer(tmp_path: Path, authority: Authority) -> AsyncIterator[MadeIssuer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue(tmp_path, "issuer"))
    async with MadeIssuer.start(context) as made:
        made.says(USERINFO, {}, status="401 Unauthorized")
        yield made


async def found(given: OidcSettings) -> list[tuple[Level, str]]:
    oidc = auth(given, lambda: NOW)
    findings = await oidc.check()
    await oidc.aclose()
    assert {finding.source for finding in findings} <= {"oidc"}
    return [(finding.level, finding.says) for finding in findings]


async def test_nobody_can_be_let_in() -> None:
    assert await found(OidcSettings(enable=True)) == [
        (Level.PROBLEM, "OIDC is on and no issuer is accepted"),
        (Level.PROBLEM, "OIDC_GROUPS is empty: no user is let in"),
    ]


async def test_an_issuer_is_named_and_users_are_not_let_in() -> None:
    assert await found(OidcSettings()) == []
    [(level, says)] = await found(OidcSettings(issuers=("https://issuer.example.org",)))
    assert level is Level.WARNING
    assert says.startswith("OIDC_ISSUERS is set and OIDC_ENABLE is not true")


async def test_an_issuer_that_can_be_used(issuer: MadeIssuer) -> None:
    assert await found(settings(issuer.url)) == [(Level.WARNING, f"{issuer.url} {NOT_HTTPS}")]


async def test_an_issuer_that_is_not_there(issuer: MadeIssuer) -> None:
    issuer.answers.clear()
    says = f"{issuer.url} does not know what was asked (wrong URL?); its users get 503"
    assert await found(settings(issuer.url)) == [(Level.PROBLEM, says)]


@pytest.mark.parametrize(
    ("path", "body", "how", "says"),
    [
        (DISCOVERY, {"issuer": "x"}, {}, "{url}: its discovery document is another issuer's"),
        (KEYS, {"keys": []}, {}, "{url} has no key that signatures can be checked with"),
        (
            KEYS,
            {"keys": public(key(), use="enc")},
            {},
            "{url} has no key that signatures can be checked with",
        ),
        (
            USERINFO,
            {},
            {"status": "404 Not Found"},
            f"the userinfo endpoint of {{url}} {REASON_TEXT[Reason.NOT_FOUND]}",
        ),
        (
            USERINFO,
            {"sub": "anybody"},
            {},
            f"the userinfo endpoint of {{url}} {REASON_TEXT[Reason.BAD_ANSWER]}",
        ),
    ],
)
async def test_what_keeps_an_issuers_users_out(
    issuer: MadeIssuer, path: str, body: Any, how: dict[str, Any], says: str
) -> None:
    issuer.says(path, body, **how)
    problems = [each for each in await found(settings(issuer.url)) if each[0] is Level.PROBLEM]
    assert problems == [(Level.PROBLEM, says.format(url=issuer.url))]


async def test_clocks_that_are_apart(issuer: MadeIssuer) -> None:
    date = {"Date": "Tue, 01 Jan 2019 00:00:00 GMT"}
    issuer.says(USERINFO, {}, status="401 Unauthorized", headers=date)
    _, (level, says) = await found(settings(issuer.url))
    assert level is Level.WARNING
    assert says.startswith(f"the clock of {issuer.url} and ours are ")


async def test_an_authority_of_ones_own(
    tmp_path: Path, authority: Authority, https_issuer: MadeIssuer
) -> None:
    url = https_issuer.url
    unknown = f"{url} could not be reached over TLS (certificate or protocol); its users get 503"
    assert await found(settings(url)) == [(Level.PROBLEM, unknown)]

    tls = TlsSettings(ca_file=str(authority.write(tmp_path / "ca.crt")))
    usable = f"{url} can be used; keys: 1"
    assert await found(settings(url, tls=tls)) == [(Level.OK, usable)]


async def test_a_discovery_document_that_breaks_its_standard(
    tmp_path: Path, authority: Authority, https_issuer: MadeIssuer
) -> None:
    tls = TlsSettings(ca_file=str(authority.write(tmp_path / "ca.crt")))
    given = settings(https_issuer.url, tls=tls, limits=LIMITS)
    for changed, level, says in (
        ({"token_endpoint": None}, Level.WARNING, "breaks its standard"),
        ({"token_endpoint": 5}, Level.WARNING, "breaks its standard"),
        ({"subject_types_supported": [{}]}, Level.WARNING, "breaks its standard"),
        ({"jwks_uri": "http://127.0.0.1/keys"}, Level.PROBLEM, "jwks_uri"),
        ({"userinfo_endpoint": "http://127.0.0.1/keys"}, Level.PROBLEM, "not https"),
    ):
        https_issuer.says(DISCOVERY, {**https_issuer.document, **changed})
        (finding,) = await found(given)
        assert finding[0] is level
        assert says in finding[1]
