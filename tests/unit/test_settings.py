from __future__ import annotations

from pathlib import Path

import pytest

from oscar_metrics.errors import SettingsError
from oscar_metrics.settings import ALIASES, NAMES, SECRETS, Settings, load

DOCS = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def at(settings: Settings, path: str) -> object:
    value: object = settings
    for part in path.split("."):
        value = getattr(value, part)
    return value


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
        ("OSCAR_METRICS_LOG_JSON", "false", "log_json", False),
        ("OSCAR_METRICS_LOG_FILES", "/logs/*", "log_files.pattern", "/logs/*"),
        ("OSCAR_METRICS_LOKI_PAGE_LINES", "100", "loki.page_lines", 100),
        ("OSCAR_METRICS_LEDGER", "off", "ledger.file", "off"),
        ("OSCAR_METRICS_LEDGER_RETRY_MINUTES", "7", "ledger.retry_minutes", 7),
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
        ({"OSCAR_METRICS_LOG_LEVEL": "loud"}, "OSCAR_METRICS_LOG_LEVEL", "loud"),
        ({"OSCAR_METRICS_LOG_FLIES": "x"}, "OSCAR_METRICS_LOG_FLIES", "OSCAR_METRICS_LOG_FILES"),
        ({"OSCAR_PASSWORD_FILE": "/nowhere/at/all"}, "OSCAR_PASSWORD_FILE", "cannot read"),
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
        ({"OSCAR_PASSWORD_FILE": "/dev/zero"}, "OSCAR_PASSWORD_FILE", "cannot read"),
    ],
)
def test_a_bad_one_is_named_with_what_was_expected(
    environ: dict[str, str], name: str, expected: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    assert caught.value.setting == name
    assert expected in str(caught.value)


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
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, name: str, expected: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load({}, file)
    assert caught.value.setting == name
    assert expected in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        load({}, tmp_path / "none.toml")


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_is_also_read_from_a_file_and_never_shown(name: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hush-hush\n")
    settings = load({f"{name}_FILE": str(file)})
    assert all(at(settings, path) == "hush-hush" for path in NAMES[name])
    if name != "OSCAR_USERNAME":
        assert "hush-hush" not in repr(settings)


@pytest.mark.parametrize("name", [*NAMES, *ALIASES])
def test_every_name_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCS
    if name in NAMES:
        default = str(at(Settings(), NAMES[name][0]))
        line = next(line for line in DOCS.splitlines() if line.startswith(f"| `{name}`"))
        if default and "{{" not in default:
            assert default.lower().removesuffix(".0") in line.replace(",", "").lower()
