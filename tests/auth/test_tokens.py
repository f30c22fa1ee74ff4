from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey, RSAKey
from joserfc.jws import JWSRegistry

from oscar_metrics.auth.oidc_settings import Algorithm
from oscar_metrics.auth.tokens import (
    LONGEST_TOKEN,
    Fault,
    Token,
    claims_fault,
    is_subject,
    keys_of,
    read,
    signature_fault,
)
from tests.auth.making import CLAIMS, ISSUER, NOW, encoded, key, public, token

ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
SYMMETRIC = OctKey.import_key("a secret of more than thirty-two characters", {"kid": "first"})


def verdict(text: str, *keys: Any, client_id: str = "", algorithms: Any = ALGORITHMS) -> Any:
    """What is wrong with a token, or None, as who asks finds out."""
    known = keys_of(public(*(keys or (key(),))))
    found = read(text, algorithms=algorithms)
    if isinstance(found, Fault):
        return found
    fault = claims_fault(found, now=NOW, leeway_seconds=10, client_id=client_id)
    return fault or signature_fault(found, known)


def with_claims(**more: Any) -> str:
    return token({name: value for name, value in {**CLAIMS, **more}.items() if value is not ...})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_each_algorithm_is_believed_with_its_key(algorithm: str) -> None:
    assert verdict(token(algorithm=algorithm), key(algorithm)) is None
    assert verdict(token(algorithm=algorithm), key(algorithm), algorithms=()) is Fault.ALGORITHM


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_other_key_will_do(algorithm: str) -> None:
    other = key(algorithm, "second")
    forged = token(algorithm=algorithm, signer=other, header={"alg": algorithm, "kid": "first"})

    assert verdict(forged, key(algorithm)) is Fault.SIGNATURE
    for another in ALGORITHMS:
        if key(another) is not key(algorithm):
            assert verdict(token(algorithm=algorithm), key(another)) is Fault.SIGNATURE


def test_what_a_token_says() -> None:
    found = read(with_claims(aud=["a", "b"], azp="c", nbf=1.5), algorithms=ALGORITHMS)

    assert isinstance(found, Token)
    assert (found.algorithm, found.key_id, found.issuer) == ("RS256", "first", ISSUER)
    assert (found.subject, found.audiences) == ("a11ce@example.org", ("a", "b"))
    assert (found.authorized_party, found.not_before) == ("c", 1.5)
    assert (found.expires_at, found.issued_at) == (NOW + 300, NOW - 10)


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, None),
        ({"exp": NOW}, None),
        ({"exp": NOW - 9}, None),
        ({"exp": NOW - 10}, Fault.EXPIRED),
        ({"exp": 0}, Fault.EXPIRED),
        ({"exp": -1e300}, Fault.EXPIRED),
        ({"exp": ...}, Fault.MALFORMED),
        ({"exp": None}, Fault.MALFORMED),
        ({"exp": str(NOW + 300)}, Fault.MALFORMED),
        ({"exp": True}, Fault.MALFORMED),
        ({"exp": float("nan")}, Fault.MALFORMED),
        ({"exp": float("inf")}, Fault.MALFORMED),
        ({"nbf": NOW + 10}, None),
        ({"nbf": NOW + 11}, Fault.NOT_YET),
        ({"nbf": "now"}, Fault.MALFORMED),
        ({"iat": ...}, None),
        ({"iat": NOW + 300}, None),
        ({"iat": NOW + 301}, Fault.NOT_YET),
        ({"iss": ...}, Fault.MALFORMED),
        ({"iss": None}, Fault.MALFORMED),
        ({"iss": [ISSUER]}, Fault.MALFORMED),
        ({"sub": ...}, None),
        ({"sub": 5}, Fault.MALFORMED),
        ({"sub": ["a11ce"]}, Fault.MALFORMED),
        ({"sub": ""}, Fault.SUBJECT),
        ({"sub": "oscar"}, Fault.SUBJECT),
        ({"aud": 5}, Fault.MALFORMED),
        ({"azp": ["oscar"]}, Fault.MALFORMED),
    ],
)
def test_claims(claims: dict[str, Any], expected: Fault | None) -> None:
    assert verdict(with_claims(**claims)) is expected


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, None),
        ({"aud": []}, None),
        ({"azp": "other"}, None),
        ({"aud": "oscar"}, None),
        ({"aud": ["account", "oscar"], "azp": "other"}, None),
        # What Keycloak makes for a client of its own accord.
        ({"aud": "account", "azp": "oscar"}, None),
        ({"aud": ["realm-management", "account"], "azp": "oscar"}, None),
        ({"aud": "account"}, Fault.AUDIENCE),
        ({"aud": "account", "azp": "other"}, Fault.AUDIENCE),
        ({"aud": ["other", "account"], "azp": "other"}, Fault.AUDIENCE),
        ({"aud": "Oscar"}, Fault.AUDIENCE),
        ({"aud": ["oscar2", "oscar "]}, Fault.AUDIENCE),
        ({"aud": ""}, Fault.AUDIENCE),
    ],
)
def test_a_token_that_names_its_audience_must_be_for_us_or_have_been_issued_to_us(
    claims: dict[str, Any], expected: Fault | None
) -> None:
    assert verdict(with_claims(**claims), client_id="oscar") is expected
    assert verdict(with_claims(**claims)) is None


def unsigned(header: Mapping[str, Any]) -> str:
    return f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(dict(CLAIMS)).encode())}."


def signed_with_a_public_key(algorithm: str) -> str:
    """The old trick: the public key, which everybody has, taken for a shared secret."""
    pem = key().as_pem(private=False)
    signed = unsigned({"alg": algorithm, "kid": "first"})[:-1]
    # OctKey refuses to be made of one, for this very reason.
    secret = OctKey(pem, pem)
    return f"{signed}.{encoded(JWSRegistry.algorithms[algorithm].sign(signed.encode(), secret))}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (unsigned({"alg": "none"}), Fault.ALGORITHM),
        (unsigned({"alg": "none", "kid": "first"}), Fault.ALGORITHM),
        (unsigned({"alg": "None"}), Fault.ALGORITHM),
        (unsigned({"alg": ""}), Fault.ALGORITHM),
        (unsigned({"alg": "RS256"}), Fault.UNKNOWN_KEY),
        (unsigned({"alg": "RS256", "kid": "first"}), Fault.SIGNATURE),
        (unsigned({"alg": ["RS256"]}), Fault.MALFORMED),
        (unsigned({"kid": "first"}), Fault.MALFORMED),
        (token(algorithm="HS256", signer=SYMMETRIC), Fault.ALGORITHM),
        (signed_with_a_public_key("HS256"), Fault.ALGORITHM),
        (signed_with_a_public_key("HS512"), Fault.ALGORITHM),
    ],
)
def test_nothing_but_a_signature_by_an_issuers_key_counts(text: str, expected: Fault) -> None:
    assert verdict(text) is expected


def test_even_an_algorithm_let_in_by_mistake_needs_an_issuers_key() -> None:
    everything = tuple(JWSRegistry.algorithms)

    assert verdict(unsigned({"alg": "none"}), algorithms=everything) is not None
    assert verdict(signed_with_a_public_key("HS256"), algorithms=everything) is not None


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"crit": ["exp"]}, Fault.MALFORMED),
        ({"crit": []}, Fault.MALFORMED),
        ({"crit": None}, Fault.MALFORMED),
        ({"b64": False, "crit": ["b64"]}, Fault.MALFORMED),
        ({"b64": True}, Fault.MALFORMED),
        ({"kid": 1}, Fault.MALFORMED),
        # What is unknown, or says where else a key is, is of no consequence.
        ({"typ": "at+jwt", "nonce": "x"}, None),
        ({"jku": "https://evil.example/keys", "x5u": "https://evil.example/x", "x5c": ["x"]}, None),
    ],
)
def test_header(more: dict[str, Any], expected: Fault | None) -> None:
    assert verdict(token(header={"alg": "RS256", "kid": "first"} | more)) is expected


def test_a_key_that_comes_with_the_token_is_not_looked_at() -> None:
    own = key("RS256", "second")
    (jwk,) = public(own)
    for kid, expected in (("first", Fault.SIGNATURE), ("second", Fault.UNKNOWN_KEY)):
        header = {"alg": "RS256", "kid": kid, "jwk": jwk, "jku": "https://evil.example/keys"}
        assert verdict(token(signer=own, header=header)) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "not a token",
        "\N{SNOWMAN}." * 2,
        token() + ".",
        token() + "=",
        token() + "\n",
        " " + token(),
        token().replace(".", "..", 1),
        # Encrypted (five parts), and without its payload.
        "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkExMjhHQ00ifQ.a.b.c.d",
        ".".join([token().split(".")[0], "", token().split(".")[2]]),
        # JSON that is no object, not JSON at all, too deep, or not UTF-8.
        *(
            token(header=part)
            for part in (
                b"[]",
                b'["alg"]',
                b'"alg"',
                b"5",
                b"null",
                b"{",
                b"",
                b"\xff",
                b"[" * 9999,
            )
        ),
        *(token(part) for part in (b"[]", b'"a"', b"{", b"", b"\xff", b"[" * 9999)),
        token(b'{"iss":"a","exp":9e999}'),
        token(b'{"iss":"a\\ud800","exp":1900000000}'),
        token({**CLAIMS, "padding": "x" * LONGEST_TOKEN}),
    ],
)
def test_what_is_no_token(text: str) -> None:
    assert verdict(text) is Fault.MALFORMED


@pytest.mark.parametrize(
    ("header", "keys", "expected"),
    [
        ({"kid": "second"}, ("first", "second"), None),
        ({"kid": "second"}, ("first",), Fault.UNKNOWN_KEY),
        ({"kid": "first"}, ("first", "second"), Fault.SIGNATURE),
        ({"kid": ""}, ("first", "second"), Fault.UNKNOWN_KEY),
        # A token that names no key may be signed with any.
        ({}, ("first", "second"), None),
        ({"kid": None}, ("second",), None),
        ({}, ("first",), Fault.UNKNOWN_KEY),
    ],
)
def test_which_key_is_tried(
    header: dict[str, Any], keys: tuple[str, ...], expected: Fault | None
) -> None:
    text = token(signer=key("RS256", "second"), header={"alg": "RS256"} | header)
    assert verdict(text, *(key("RS256", kid) for kid in keys)) is expected


def jwk(**more: Any) -> dict[str, Any]:
    return {name: value for name, value in (public(key())[0] | more).items() if value is not ...}


@pytest.mark.parametrize(
    ("given_jwk", "expected"),
    [
        (jwk(), True),
        (jwk(use="sig", alg="RS256", key_ops=["verify"]), True),
        (jwk(use="enc"), False),
        (jwk(use=["sig"]), False),
        (jwk(kty="EC"), False),
        (jwk(kty="oct", k="AAAA"), False),
        (jwk(kty="AKP"), False),
        (jwk(kty=...), False),
        (jwk(n="AQAB"), False),
        (jwk(n="A" * 300 + "AQAB"), False),
        (jwk(n="!"), False),
        (jwk(n=5), False),
        (jwk(n=...), False),
        (jwk(e=...), False),
        (jwk(kid=5), False),
        ({}, False),
        ("key", False),
        (None, False),
    ],
)
def test_which_keys_are_taken(given_jwk: Any, expected: bool) -> None:
    assert bool(keys_of([given_jwk])) is expected
    # One that is of no use does not take the others with it.
    assert keys_of([given_jwk, *public(key("ES256"))])[-1].kid == "first"


@pytest.mark.parametrize(
    "more", [{"alg": "RS512"}, {"alg": "RSA-OAEP"}, {"key_ops": ["sign"]}, {"alg": "none"}]
)
def test_a_key_made_for_something_else_is_of_no_use(more: dict[str, Any]) -> None:
    found = read(token(), algorithms=ALGORITHMS)
    assert isinstance(found, Token)
    assert signature_fault(found, keys_of([jwk(**more)])) is Fault.SIGNATURE


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("a11ce@example.org", True),
        ("x" * 255, True),
        ("x" * 256, False),
        ("", False),
        (" ", False),
        (" a", False),
        ("a\n", False),
        ("a\x00b", False),
        ("a\N{RIGHT-TO-LEFT OVERRIDE}b", False),
        ("cluster_admin", False),
        ("oscar", False),
        ("nil", False),
        ("minio", False),
        ("oscar2", True),
    ],
)
def test_who_a_user_can_be(subject: str, expected: bool) -> None:
    assert is_subject(subject) is expected


HONEST = {algorithm: token(algorithm=algorithm) for algorithm in ("RS256", "ES256", "EdDSA")}


@given(data=st.data())
def test_no_byte_of_a_token_can_be_changed(data: st.DataObject) -> None:
    algorithm = data.draw(st.sampled_from(sorted(HONEST)))
    text = HONEST[algorithm]
    place = data.draw(st.integers(0, len(text) - 1))
    byte = chr(data.draw(st.integers(0, 127).filter(lambda code: code != ord(text[place]))))

    assert verdict(text[:place] + byte + text[place + 1 :], key(algorithm)) is not None


@given(data=st.data())
def test_no_part_of_a_token_can_be_left_out_or_put_in(data: st.DataObject) -> None:
    text = HONEST["RS256"]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    put_in = data.draw(st.text(st.characters(max_codepoint=127), max_size=5))
    changed = text[:start] + put_in + text[end:]

    assert changed == text or verdict(changed) is not None


@given(
    claims=st.dictionaries(
        st.sampled_from(["iss", "sub", "exp", "iat", "nbf", "aud", "azp", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
    )
)
def test_whatever_is_signed_by_somebody_else_is_not_believed(claims: dict[str, Any]) -> None:
    stranger = key("RS256", "second")
    text = token(claims, signer=stranger, header={"alg": "RS256", "kid": "first"})

    assert isinstance(verdict(text), Fault)


def test_a_short_key_is_not_trusted() -> None:
    with pytest.warns(UserWarning, match="2048"):
        short = RSAKey.generate_key(1024, {"kid": "first"})

    assert keys_of(public(short)) == ()
