from __future__ import annotations

import itertools
import re
from pathlib import Path

import msgspec
import pytest

from oscar_metrics.errors import SettingsError
from oscar_metrics.settings import ALIASES, LISTS, NAMES, SECRETS, SWITCHES, WATCHED, Settings, load

DOCS = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def at(settings: Settings, path: str) -> object:
    value: object = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value


def structs_of(struct: msgspec.Struct) -> list[msgspec.Struct]:
    """A struct, and every one within it."""
    values = [getattr(struct, name) for name in struct.__struct_fields__]
    inner = [structs_of(value) for value in values if isinstance(value, msgspec.Struct)]
    return [struct, *itertools.chain.from_iterable(inner)]


def test_nothing_set_is_the_defaults() -> None:
    assert load({}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "path", "expected"),
    [
        ("OSCAR_USERNAME", "admin", "username", "admin"),
        ("OSCAR_SERVICE_PORT", " 9000 ", "port", 9000),
        ("LOKI_URL", "http://loki", "loki.url", "http://loki"),
        ("LOKI_EXPOSED_APP_LABEL", "traefik", "loki.exposed_app", "traefik"),
        ("LOKI_EXPOSED_APP", "traefik", "pod_logs.exposed_app", "traefik"),
        ("OSCAR_NAMESPACE", "platform", "pod_logs.namespace", "platform"),
        ("INGRESS_HOST", "example.org", "log_files.ingress_host", "example.org"),
        ("OSCAR_METRICS_DEADLINE_SECONDS", "2.5", "deadline_seconds", 2.5),
        ("OSCAR_METRICS_DEADLINE_MOST_SECONDS", "60", "deadline_most_seconds", 60),
        ("OSCAR_METRICS_GRACE_SECONDS", "0", "grace_seconds", 0),
        ("OSCAR_METRICS_LOG_JSON", "false", "log_json", False),
        ("OSCAR_METRICS_LOG_FILES", "/logs/*", "log_files.pattern", "/logs/*"),
        ("OSCAR_METRICS_LOKI_PAGE_LINES", "100", "loki.page_lines", 100),
        ("OSCAR_METRICS_LEDGER", "off", "ledger.file", "off"),
        ("OSCAR_METRICS_LEDGER_RETRY_MINUTES", "7", "ledger.retry_minutes", 7),
        ("OIDC_GROUPS", " a , ,b,", "oidc.groups", ("a", "b")),
        ("OIDC_ISSUERS", "https://i/realms/a", "oidc.issuers", ("https://i/realms/a",)),
        ("USERS_ADMIN", ",", "oidc.users_admin", ()),
        ("OSCAR_METRICS_OIDC_ALGORITHMS", "ES256,RS256", "oidc.algorithms", ("ES256", "RS256")),
        ("OSCAR_METRICS_OIDC_USER_SECONDS", "30", "oidc.user_seconds", 30),
        ("OSCAR_METRICS_OIDC_CONCURRENCY", "3", "oidc.limits.concurrency", 3),
        ("OSCAR_METRICS_SCOPE", "visible", "access.scope", "visible"),
        ("OSCAR_METRICS_PSEUDONYMS", "off", "access.pseudonyms", False),
        (
            "OSCAR_METRICS_TRUSTED_PROXIES",
            "10.0.0.0/8,::1",
            "access.trusted_proxies",
            ("10.0.0.0/8", "::1"),
        ),
        ("OSCAR_METRICS_CORS_ORIGINS", "off", "access.cors_origins", ("off",)),
        (
            "OSCAR_METRICS_CORS_ORIGINS",
            "https://a.example.org, http://[::1]:5173",
            "access.cors_origins",
            ("https://a.example.org", "http://[::1]:5173"),
        ),
    ],
)
def test_a_name_sets_its_place(name: str, value: str, path: str, expected: object) -> None:
    assert at(load({name: value}), path) == expected


@pytest.mark.parametrize(
    ("environ", "name", "expected"),
    [
        ({"OSCAR_SERVICE_PORT": "70000"}, "OSCAR_SERVICE_PORT", "<= 65535"),
        ({"OSCAR_METRICS_DEADLINE_SECONDS": "soon"}, "OSCAR_METRICS_DEADLINE_SECONDS", "a number"),
        ({"OSCAR_METRICS_LOG_JSON": "maybe"}, "OSCAR_METRICS_LOG_JSON", "true or false"),
        ({"OSCAR_SERVICE_PORT": "eighty"}, "OSCAR_SERVICE_PORT", "a whole number"),
        ({"OSCAR_METRICS_DEADLINE_SECONDS": "0"}, "OSCAR_METRICS_DEADLINE_SECONDS", ">= 0.1"),
        (
            {"OSCAR_METRICS_LOG_LEVEL": "loud"},
            "OSCAR_METRICS_LOG_LEVEL",
            "'loud': expected debug, error, info, warning",
        ),
        (
            {"OSCAR_METRICS_SCOPE": "all"},
            "OSCAR_METRICS_SCOPE",
            "'all': expected owned, visible",
        ),
        (
            {"OSCAR_METRICS_OIDC_ALGORITHMS": "HS256"},
            "OSCAR_METRICS_OIDC_ALGORITHMS",
            "'HS256': expected ES256, ES384",
        ),
        ({"OSCAR_METRICS_LOG_FLIES": "x"}, "OSCAR_METRICS_LOG_FLIES", "OSCAR_METRICS_LOG_FILES"),
        ({"OSCAR_PASSWORD_FILE": "/nowhere/at/all"}, "OSCAR_PASSWORD_FILE", "no such file"),
        ({"LOKI_URL": "loki:3100"}, "LOKI_URL", "http"),
        ({"PROMETHEUS_URL": "ftp://x"}, "PROMETHEUS_URL", "http"),
        ({"PROMETHEUS_URL": "http://[bad"}, "PROMETHEUS_URL", "http"),
        ({"PROMETHEUS_URL": "http://host:port"}, "PROMETHEUS_URL", "http"),
        ({"LOKI_URL": "http://xn--"}, "LOKI_URL", "http"),
        ({"OSCAR_METRICS_LOKI_TOKEN": "hush\nhush"}, "OSCAR_METRICS_LOKI_TOKEN", "printable"),
        ({"OSCAR_METRICS_LOKI_CONCURRENCY": "0"}, "OSCAR_METRICS_LOKI_CONCURRENCY", ">= 1"),
        (
            {"OSCAR_METRICS_PROMETHEUS_TIMEOUT_SECONDS": "nan"},
            "OSCAR_METRICS_PROMETHEUS_TIMEOUT_SECONDS",
            ">= 0.01",
        ),
        ({"OSCAR_METRICS_LOG_FILES_READERS": "-1"}, "OSCAR_METRICS_LOG_FILES_READERS", ">= 1"),
        ({"OSCAR_PASSWORD_FILE": "/dev/zero"}, "OSCAR_PASSWORD_FILE", "expected a text file"),
        ({"OIDC_ENABLE": "true"}, "OIDC_ISSUERS", "URLs of the issuers"),
        ({"OIDC_ENABLE": "perhaps"}, "OIDC_ENABLE", "true or false"),
        ({"OIDC_ISSUERS": "https://a,keycloak"}, "OIDC_ISSUERS", "number 2"),
        ({"OIDC_ISSUERS": "https://me:PLANTED@a"}, "OIDC_ISSUERS", "without user"),
        ({"OIDC_ISSUERS": "https://a?b=c"}, "OIDC_ISSUERS", "number 1"),
        ({"OIDC_ISSUERS": "https://a/b https://c/d"}, "OIDC_ISSUERS", "number 1"),
        ({"OIDC_ISSUERS": "https://a,https://b;https://c"}, "OIDC_ISSUERS", "number 2"),
        ({"OIDC_ISSUERS": "https://a\\b"}, "OIDC_ISSUERS", "number 1"),
        ({"OSCAR_USERNAME": "me:you"}, "OSCAR_USERNAME", "no colon"),
        ({"OSCAR_PASSWORD": "\udcff"}, "OSCAR_PASSWORD", "UTF-8"),
        ({"OIDC_GROUPS": "a,\udcff"}, "OIDC_GROUPS", "UTF-8"),
        ({"OSCAR_METRICS_OIDC_ALGORITHMS": "none"}, "OSCAR_METRICS_OIDC_ALGORITHMS", "none"),
        ({"OSCAR_METRICS_SCOPE": "all"}, "OSCAR_METRICS_SCOPE", "all"),
        ({"OSCAR_METRICS_PSEUDONYMS": "on"}, "OSCAR_METRICS_PSEUDONYM_KEY", "16 characters"),
        ({"OSCAR_METRICS_PSEUDONYM_KEY": "PLANTED"}, "OSCAR_METRICS_PSEUDONYM_KEY", "too short"),
        ({"OSCAR_METRICS_COUNTRY_USERS_LEAST": "-1"}, "OSCAR_METRICS_COUNTRY_USERS_LEAST", ">= 0"),
        ({"OSCAR_METRICS_TRUSTED_PROXIES": "proxy"}, "OSCAR_METRICS_TRUSTED_PROXIES", "'proxy'"),
        ({"OSCAR_METRICS_TRUSTED_PROXIES": "10.0.0.1/8"}, "OSCAR_METRICS_TRUSTED_PROXIES", "/8"),
        ({"OSCAR_METRICS_CORS_ORIGINS": "*,http://a"}, "OSCAR_METRICS_CORS_ORIGINS", "alone"),
        *(
            ({"OSCAR_METRICS_CORS_ORIGINS": bad}, "OSCAR_METRICS_CORS_ORIGINS", "as browsers")
            for bad in (
                "a.example.org",
                "https://a/",
                "https://A",
                "https://a:443",
                "http://a:70000",
                "https://*.a",
                "null",
            )
        ),
    ],
)
def test_a_bad_one_is_named_with_what_was_expected(
    environ: dict[str, str], name: str, expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert caught.value.setting == name
    assert expected in str(caught.value)
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "OSCAR_METRICS_SERVICE_HOST",
        "OSCAR_METRICS_SERVICE_PORT",
        "OSCAR_METRICS_SERVICE_PORT_HTTP",
        "OSCAR_METRICS_PORT",
        "OSCAR_METRICS_PORT_8080_TCP",
        "OSCAR_METRICS_PORT_8080_TCP_ADDR",
        "OSCAR_METRICS_OTHER_SERVICE_HOST",
    ],
)
def test_what_kubernetes_injects_for_services_is_passed_over(name: str) -> None:
    assert load({name: "tcp://10.0.0.1:8080"}) == Settings()


def test_a_port_that_is_an_address_is_kubernetes_own() -> None:
    assert load({"OSCAR_SERVICE_PORT": "tcp://10.0.0.1:8080"}).port == 8080


def test_the_route_kind_decides_where_the_gateways_log_is_looked_for() -> None:
    kind = {"EXPOSED_SERVICES_ROUTE_KIND": "httproute"}
    assert load(kind).loki.exposed_namespace == "traefik"
    assert load(kind).pod_logs.exposed_app == "traefik"
    there = load({**kind, "HTTPROUTE_GATEWAY_NAMESPACE": "edge", "LOKI_EXPOSED_APP": "proxy"})
    assert (there.loki.exposed_namespace, there.loki.exposed_app) == ("edge", "proxy")
    assert load({}).loki.exposed_namespace == "ingress-nginx"


def test_blank_is_unset() -> None:
    assert load(dict.fromkeys(NAMES, "  ")) == Settings()


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('LOKI_URL = "http://file"\nOSCAR_SERVICE_PORT = 9000\nINGRESS_HOST = ""\n')
    settings = load({"LOKI_URL": "http://environment"}, file)
    assert (settings.loki.url, settings.port) == ("http://environment", 9000)


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ('LOKI_ULR = "x"', "LOKI_ULR", "did you mean LOKI_URL"),
        ("not toml", "--config", "not TOML"),
        ("OSCAR_SERVICE_PORT = [1]", "OSCAR_SERVICE_PORT", "a whole number"),
        ("OIDC_GROUPS = [1]", "OIDC_GROUPS", "a text"),
        ("OSCAR_PASSWORD_FILE = 1", "OSCAR_PASSWORD_FILE", "cannot read"),
        ('OSCAR_PASSWORD_FILE = "/nowhere"', "OSCAR_PASSWORD_FILE", "cannot read"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, name: str, expected: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load({}, file)
    assert caught.value.setting == name
    assert expected in str(caught.value)


def test_a_settings_file_has_lists_switches_and_files_of_secrets_too(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush-hush\n")
    file = tmp_path / "settings.toml"
    file.write_text(
        f"""
        OIDC_ENABLE = true
        OIDC_ISSUERS = [" https://a ", "", "https://b"]
        OIDC_GROUPS = "x, y"
        USERS_ADMIN = []
        OSCAR_METRICS_LOG_JSON = "off"
        OSCAR_PASSWORD_FILE = "{secret}"
        """
    )
    settings = load({}, file)
    assert settings.oidc.enable
    assert settings.oidc.issuers == ("https://a", "https://b")
    assert settings.oidc.groups == ("x", "y")
    assert settings.oidc.users_admin == ()
    assert not settings.log_json
    assert settings.password == "hush-hush"


@pytest.mark.parametrize("name", sorted(SWITCHES - {"OIDC_ENABLE", "OSCAR_METRICS_PSEUDONYMS"}))
def test_a_switch_is_on_or_off_or_true_or_false(name: str) -> None:
    for text, expected in {"on": True, "TRUE": True, "Off": False, "false": False}.items():
        assert at(load({name: text}), NAMES[name][0]) is expected


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load({}, tmp_path / "none.toml")


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_is_also_read_from_a_file_and_never_shown(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    secret = "PLANTED-PLANTED-PLANTED"
    if name == "OSCAR_METRICS_CACHE":
        secret = f"redis://:{secret}@redis"
    file.write_text(f"{secret}\n")
    settings = load({f"{name}_FILE": str(file)})
    if name in WATCHED:
        assert at(settings, NAMES[f"{name}_FILE"][0]) == str(file)
        settings = load({name: secret, f"{name}_FILE": "/nowhere"})
        assert at(settings, NAMES[f"{name}_FILE"][0]) == ""
    assert all(at(settings, path) == secret for path in NAMES[name])
    if name != "OSCAR_USERNAME":
        assert "PLANTED" not in "".join(map(repr, structs_of(settings)))


@pytest.mark.parametrize("name", sorted(WATCHED))
def test_a_secret_and_its_file_are_one_setting_to_the_environment(
    name: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'{name} = "from-file"')
    credentials = load({f"{name}_FILE": "/run/secret"}, file)
    assert at(credentials, NAMES[name][0]) == ""
    assert at(credentials, NAMES[f"{name}_FILE"][0]) == "/run/secret"
    file.write_text(f'{name}_FILE = "/run/secret"')
    credentials = load({name: "from-environment"}, file)
    assert at(credentials, NAMES[name][0]) == "from-environment"
    assert at(credentials, NAMES[f"{name}_FILE"][0]) == ""
    assert at(load({}, file), NAMES[f"{name}_FILE"][0]) == "/run/secret"


@pytest.mark.parametrize("name", [*NAMES, *ALIASES])
def test_every_name_is_documented_with_its_default(name: str) -> None:
    assert f"`{name}`" in DOCS
    if name in ALIASES:
        return
    line = next(line for line in DOCS.splitlines() if line.startswith(f"| `{name}`"))
    _, _, default, meaning, _ = re.split(r"(?<!\\)\|", line)
    value = at(Settings(), NAMES[name][0])
    if name in LISTS:
        assert "a list" in meaning.lower()
        value = ", ".join(value) if isinstance(value, tuple) else ""
    elif name in SWITCHES:
        value = "on|true" if value else "off|false"
    expected = str(value).lower().removesuffix(".0")
    if "{{" not in expected:
        assert default.strip(" `").lower() in expected.split("|")
    assert len(meaning.strip()) > 10
