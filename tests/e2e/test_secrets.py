"""Nothing that is said, logged or stored holds a secret.

Secrets are planted wherever one can be, and everything is made to answer and to fail.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import httpx
import msgspec
import pytest

from oscar_metrics.ledger.command_address import socket_path
from tests.auth.made_issuer import DISCOVERY, KEYS, USERINFO, MadeIssuer
from tests.auth.making import CLAIMS
from tests.auth.making import token as signed
from tests.corpus import platform
from tests.e2e.echoing import WAYS, Echo
from tests.e2e.issuing import threaded_issuer
from tests.e2e.running import command_here, command_line, started
from tests.servers.certificates import Authority
from tests.servers.kubernetes import KubeCluster

# By what it is; each is found in no other.
PLANTED = {
    name: f"pl4nted-{name}-5ec2e7"
    for name in (
        "administrator",
        "administrators-password",
        "wrong-name",
        "wrong-password",
        "client-secret",
        "issuer-subject",
        "loki-url-name",
        "loki-url-password",
        "loki-password",
        "loki-tenant",
        "prometheus-token",
        "prometheus-tenant",
        "pseudonym-key",
        "kubeconfig-token",
        "query-token",
        "bad-basic",
        "bad-bearer",
        "other-scheme",
        "body",
        "malformed",
        "setting-of-a-failed-start",
        "socket",
    )
}
FAILED_START = PLANTED["setting-of-a-failed-start"]
LOCAL = "http://127.0.0.1"
REPORTS = (
    "/system/metrics",
    "/system/metrics/",
    "/system/metrics/value?service_id=cowsay&metric=cpu-hours",
    "/system/metrics/summary",
    "/system/metrics/breakdown?group_by=service&include_users=true&include_usage=true",
    "/system/metrics/breakdown?group_by=user&format=csv",
    "/system/metrics/breakdown?group_by=country",
    "/system/metrics/owners",
    "/system/metrics/cowsay",
)
OTHERS = ("/healthz", "/readyz", "/metrics", "/schema", "/schema/openapi.json", "/", "/no/where")


class Scene(msgspec.Struct):
    """All that was said, by who said it, and every secret by its name."""

    said: dict[str, str]
    secrets: dict[str, str]
    statuses: Counter[int]
    heads_sent: list[str]


@pytest.fixture(scope="module")
def scene(cluster: KubeCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("secrets")
    certificate, keys = Authority("ours").issue(folder, "client")
    with Echo.start() as loki, Echo.start() as prometheus, threaded_issuer() as issuer:
        made = Scene(
            said={},
            secrets={
                **PLANTED,
                "services-token": platform.PLANTED_TOKEN,
                "clusters-token": cluster.user_token,
                # Pseudonyms are on: who asks is nobody by name, neither.
                "users-id": CLAIMS["sub"],
                "private-key": keys.read_text().splitlines()[1],
            },
            statuses=Counter(),
            heads_sent=[],
        )
        settings = {
            **planted_settings(folder, loki, prometheus, issuer),
            "OSCAR_METRICS_LOKI_TLS_CERTIFICATE_FILE": str(certificate),
            "OSCAR_METRICS_LOKI_TLS_KEY_FILE": str(keys),
        }
        real = {**settings, "OSCAR_METRICS_KUBERNETES": str(cluster.kubeconfig(cluster.user_token))}
        # A server that can answer, and then one whose cluster fails as the others do.
        serve_and_ask(made, "first", real, folder, [loki, prometheus], issuer)
        with Echo.start() as kubernetes:
            failing = {
                **settings,
                "OSCAR_METRICS_KUBERNETES": str(kubeconfig(folder, kubernetes)),
                "OSCAR_METRICS_LOG_JSON": "off",
            }
            echoes = [loki, prometheus, kubernetes]
            serve_and_ask(made, "second", failing, folder, echoes, issuer)
            run_commands(made, "failing", failing, folder, echoes)
            for echo in echoes:
                made.heads_sent += echo.seen
        fail_to_start(made, real, folder)
        yield made


def planted_settings(
    folder: Path, loki: Echo, prometheus: Echo, issuer: MadeIssuer
) -> dict[str, str]:
    """Settings with a secret in each place, some of them from files."""
    for name in ("administrators-password", "prometheus-token", "client-secret"):
        (folder / name).write_text(PLANTED[name] + "\n")
    user = f"{PLANTED['loki-url-name']}:{PLANTED['loki-url-password']}"
    return {
        "OSCAR_USERNAME": PLANTED["administrator"],
        "OSCAR_PASSWORD": "",
        "OSCAR_PASSWORD_FILE": str(folder / "administrators-password"),
        "OIDC_ENABLE": "true",
        "OIDC_ISSUERS": issuer.url,
        "OIDC_GROUPS": "users",
        "OIDC_SUBJECT": PLANTED["issuer-subject"],
        "OIDC_CLIENT_SECRET_FILE": str(folder / "client-secret"),
        "OSCAR_METRICS_OIDC_USER_SECONDS": "0",
        "OSCAR_METRICS_OIDC_ATTEMPTS": "1",
        "OSCAR_METRICS_OIDC_KEYS_SECONDS": "1",
        "OSCAR_METRICS_OIDC_KEYS_REFRESH_SECONDS": "1",
        "LOKI_URL": f"http://{user}@127.0.0.1:{loki.port}",
        "OSCAR_METRICS_LOKI_TENANT": PLANTED["loki-tenant"],
        "OSCAR_METRICS_LOKI_ATTEMPTS": "1",
        "PROMETHEUS_URL": f"{LOCAL}:{prometheus.port}",
        "OSCAR_METRICS_PROMETHEUS_TOKEN_FILE": str(folder / "prometheus-token"),
        "OSCAR_METRICS_PROMETHEUS_TENANT": PLANTED["prometheus-tenant"],
        "OSCAR_METRICS_PROMETHEUS_ATTEMPTS": "1",
        "OSCAR_METRICS_KUBERNETES_ATTEMPTS": "1",
        "OSCAR_METRICS_PSEUDONYMS": "on",
        "OSCAR_METRICS_PSEUDONYM_KEY": PLANTED["pseudonym-key"],
        "OSCAR_METRICS_LOG_LEVEL": "debug",
        "OSCAR_METRICS_DEADLINE_SECONDS": "5",
        "OSCAR_METRICS_LEDGER_BACKFILL_DAYS": "0",
        "OSCAR_METRICS_FAILED_LOGINS_PER_MINUTE": "60",
    }


def kubeconfig(folder: Path, kubernetes: Echo) -> Path:
    path = folder / "kubeconfig"
    entries = {
        "clusters": [{"name": "c", "cluster": {"server": f"{LOCAL}:{kubernetes.port}"}}],
        "users": [{"name": "u", "user": {"token": PLANTED["kubeconfig-token"]}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(json.dumps(entries))
    return path


def serve_and_ask(
    scene: Scene,
    name: str,
    settings: Mapping[str, str],
    folder: Path,
    echoes: list[Echo],
    issuer: MadeIssuer,
) -> None:
    """One server's life: every way its upstreams can answer, every kind of caller."""
    directory = folder / name
    directory.mkdir()
    ledger = directory / "ledger.duckdb"
    settings = {**settings, "OSCAR_METRICS_LEDGER": str(ledger)}
    good, bad = credentials(issuer)
    for number, value in enumerate((*good[1:], *bad)):
        if value and "." in value:
            # Its head is the same for all, and no secret.
            _, claims, signature = value.rpartition(" ")[2].split(".")
            scene.secrets[f"{name}-claims-{number}"] = claims
            if signature:
                scene.secrets[f"{name}-signature-{number}"] = signature
    with started(settings, directory) as (client, _):
        client.auth = None  # type: ignore[assignment]  # every request says who asks
        asking = Asking(scene, client, name)
        for way in WAYS:
            for echo in echoes:
                echo.way = way
            asking.ask(f"{way} /system/metrics/summary", good[0])
            asking.ask(f"{way} {REPORTS[4]}", good[1])
        ask_everything(asking, good, bad)
        if name == "first":
            ask_a_failing_issuer(asking, issuer, good[1])
        ask_malformed(scene, name, client.base_url.port or 0, good[0])
        run_commands(scene, name, settings, directory, echoes[:1])
        ask_the_socket(scene, name, ledger)
        asking.ask("/metrics", "")
    scene.said[f"{name} log"] = (directory / "server.log").read_text()
    scene.said[f"{name} ledger"] = ledger.read_bytes().decode("latin-1") + rows_of(ledger)


def credentials(issuer: MadeIssuer) -> tuple[list[str], list[str]]:
    """Authorization headers: the administrator's and a user's, and a lot that are wrong."""
    now = int(time.time())
    times = {"iat": now - 10, "exp": now + 3600}
    user = issuer.token(iat=times["iat"], exp=times["exp"])
    head, claims, signature = user.split(".")
    others = [
        issuer.token(iat=now - 900, exp=now - 600),
        signed({"iss": "https://pl4nted.example", "sub": "x", **times}),
        f"{head}.{claims}.{signature[::-1]}",
        f"{head}.{claims}.",
        PLANTED["bad-bearer"],
    ]
    password = PLANTED["administrators-password"]
    good = [basic(PLANTED["administrator"], password), f"Bearer {user}"]
    bad = [
        basic(PLANTED["administrator"], PLANTED["wrong-password"]),
        basic(PLANTED["wrong-name"], password),
        f"Basic {PLANTED['bad-basic']}",
        f"Basic {base64.b64encode(PLANTED['bad-basic'].encode()).decode()}",
        f"Digest username={PLANTED['other-scheme']}",
        PLANTED["other-scheme"],
        *(f"Bearer {each}" for each in others),
    ]
    return good, bad


def basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


class Asking(msgspec.Struct):
    """Asks one server, and keeps what it says."""

    scene: Scene
    client: httpx.Client
    name: str

    def ask(self, path: str, authorization: str, method: str = "GET", body: str = "") -> None:
        """`path` may begin with a word for what it is asked in."""
        where = path.rpartition(" ")[2]
        headers = {"Authorization": authorization} if authorization else {}
        answer = self.client.request(method, where, headers=headers, content=body or None)
        self.scene.statuses[answer.status_code] += 1
        said = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        number = len(self.scene.said)
        self.scene.said[f"{self.name} {number} {method} {path}"] = f"{said}\n{answer.text}"


def ask_everything(asking: Asking, good: list[str], bad: list[str]) -> None:
    planted = PLANTED["query-token"]
    for authorization in (*good, ""):
        for path in (*REPORTS, *OTHERS):
            asking.ask(path, authorization)
    for path in REPORTS:
        join = "&" if "?" in path else "?"
        for authorization in good:
            asking.ask(f"{path}{join}access_token={planted}&_token={planted}", authorization)
            asking.ask(f"{path}{join}start=soon", authorization)
            asking.ask(f"{path}{join}owner=nobody", authorization)
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        asking.ask(REPORTS[0], good[0], method, PLANTED["body"])
    for authorization in good:
        asking.ask("/system/metrics/value?service_id=&metric=cpu-hours", authorization)
        asking.ask("/system/metrics/value?service_id=other&metric=cpu-hours", authorization)
        asking.ask("/system/metrics/exposed", authorization)
    # The last ones meet the limit of log-ins that fail.
    for path in REPORTS:
        for authorization in bad:
            asking.ask(path, authorization)


def ask_a_failing_issuer(asking: Asking, issuer: MadeIssuer, user: str) -> None:
    """The issuer repeats the token it was sent, in what it says of the user and of its keys."""
    token = user.rpartition(" ")[2]
    before = dict(issuer.answers)
    said: Any = {"error": token, "sub": [token], "issuer": token, "keys": [{"kid": token}]}
    page = f"you sent {token}".encode()
    for path, status, body in (
        *((USERINFO, status, page) for status in ("200 OK", "401 No", "403 No", "500 No")),
        *((USERINFO, status, said) for status in ("200 OK", "500 No")),
        *((path, "200 OK", said) for path in (KEYS, DISCOVERY)),
        *((path, "500 No", page) for path in (KEYS, DISCOVERY)),
    ):
        issuer.says(path, body, status=status)
        if path != USERINFO:
            time.sleep(1.1)  # they are asked for again after a second
        calls = issuer.calls[path]
        asking.ask(f"issuer-{status[:3]} {REPORTS[3]}", user)
        assert issuer.calls[path] > calls
        issuer.answers.update(before)


def ask_malformed(scene: Scene, name: str, port: int, authorization: str) -> None:
    """What no client library sends."""
    planted = PLANTED["malformed"]
    lines = f"Host: x\r\nAuthorization: {authorization}\r\n"
    for number, request in enumerate(
        (
            f"GET / HTTP/1.1\r\n{lines}bad {planted}\r\n\r\n",
            f"{planted} nonsense\r\n\r\n",
            f"GET /system/metrics?token={planted}{'x' * 100_000} HTTP/1.1\r\n{lines}\r\n",
            f"GET / HTTP/1.1\r\n{lines}X-Long: {planted}{'x' * 200_000}\r\n\r\n",
            f"GET /system/metrics HTTP/1.1\r\n{lines}{lines}\r\n",
            "GET /system/metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \r\n\r\n",
            f"POST / HTTP/1.1\r\n{lines}Content-Length: nine\r\n\r\n{planted}",
            f"GET /%ff{planted} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n",
        )
    ):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
            contextlib.suppress(ConnectionError, TimeoutError),
        ):
            connection.settimeout(0.3)
            connection.sendall(request.encode("latin-1"))
            scene.said[f"{name} malformed {number}"] = ""
            while said := connection.recv(65_536):
                scene.said[f"{name} malformed {number}"] += said.decode("latin-1")


def run_commands(
    scene: Scene, name: str, settings: Mapping[str, str], directory: Path, echoes: list[Echo]
) -> None:
    """The command line, which asks the server where one holds the ledger."""
    for echo in echoes:
        echo.way = "500"
    for arguments in (
        ["check", "--json"],
        ["report", "summary"],
        ["report", "breakdown", "--json"],
        ["ledger", "show"],
    ):
        done = command_here(arguments, settings)
        assert done.stdout + done.stderr
        scene.said[f"{name} {' '.join(arguments)}"] = done.stdout + done.stderr
    for echo in echoes:
        echo.way = "json"
    # Also as a process, whatever else may write there.
    done = command_line(["check"], settings, directory)
    assert done.stdout
    scene.said[f"{name} check of json"] = done.stdout + done.stderr


def ask_the_socket(scene: Scene, name: str, ledger: Path) -> None:
    for number, request in enumerate(
        (f"{PLANTED['socket']}\n", f'{{"{PLANTED["socket"]}":1}}\n', "{}\n")
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(socket_path(ledger)))
            connection.sendall(request.encode())
            said = b""
            while chunk := connection.recv(65_536):
                said += chunk
            scene.said[f"{name} socket {number}"] = said.decode()


def rows_of(ledger: Path) -> str:
    """Every row of every table as text: what is stored may be compressed in the file."""
    with duckdb.connect(str(ledger), read_only=True) as connection:
        tables = connection.sql("select table_name from information_schema.tables").fetchall()
        return "\n".join(str(connection.table(name).fetchall()) for (name,) in tables)


def fail_to_start(scene: Scene, settings: Mapping[str, str], folder: Path) -> None:
    """One setting of each kind is wrong, and holds a secret."""
    secret = folder / "secret"
    secret.write_text(f"{FAILED_START}\n{FAILED_START}\n")
    toml = folder / "settings.toml"
    toml.write_text(f'OSCAR_PASSWORD = "{FAILED_START}\nOSCAR_USERNAME = {FAILED_START}')
    wrong = (
        {"OSCAR_METRICS_SCOPE": "none"},
        {"LOKI_URL": f"loki://me:{FAILED_START}@host"},
        {"PROMETHEUS_URL": f"http://me:{FAILED_START}@host:port"},
        {"OIDC_ISSUERS": f"https://me:{FAILED_START}@host"},
        {"OSCAR_METRICS_LOKI_TOKEN": f"{FAILED_START}\nx"},
        {"OSCAR_METRICS_LOKI_TOKEN_FILE": str(secret)},
        {"OSCAR_METRICS_LOKI_TLS_CA_FILE": str(secret)},
        {"OSCAR_METRICS_LOKI_TLS_CERTIFICATE_FILE": str(secret)},
        {"OSCAR_METRICS_PSEUDONYM_KEY": FAILED_START[:15]},
        {"OSCAR_PASSWORD_FILE": str(folder / "none")},
    )
    for number, change in enumerate(wrong):
        done = command_here(["serve"], {**settings, **change})
        assert done.returncode == 2, (change, done.stderr)
        assert next(iter(change)) in done.stderr
        scene.said[f"failed start {number}"] = done.stdout + done.stderr
    done = command_here(["--config", str(toml), "serve"], settings)
    assert done.returncode == 2
    scene.said["failed start with a file"] = done.stdout + done.stderr
    for arguments in (["--help"], ["report", "breakdown", "--help"]):
        scene.said[" ".join(arguments)] = command_here(arguments, settings).stdout
    done = command_here(["report", "summary", "--start", "soon"], settings)
    scene.said["failed report"] = done.stdout + done.stderr


def forms(secret: str) -> set[str]:
    """How a secret may be written."""
    encoded = base64.b64encode(secret.encode()).decode()
    pair = basic(PLANTED["administrator"], secret).rpartition(" ")[2]
    plain = {secret, quote(secret, safe=""), html.escape(secret), encoded, pair, secret[::-1]}
    return {form.lower() for form in plain}


def test_no_secret_is_said_logged_or_stored(scene: Scene) -> None:
    forms_of = {name: forms(secret) for name, secret in scene.secrets.items()}
    found = []
    for where, said in scene.said.items():
        lower = said.lower()
        found += [
            (name, where)
            for name, written in forms_of.items()
            if any(form in lower for form in written)
        ]
        # A part of any that begins like the planted ones would do as well.
        if "pl4nted" in lower and not any(where == place for _, place in found):
            found.append(("a part of one", where))
    assert not found, found[:20]


def test_what_was_planted_was_in_use(scene: Scene) -> None:
    sent = "\n".join(scene.heads_sent)
    for name in ("prometheus-token", "prometheus-tenant", "loki-tenant", "kubeconfig-token"):
        assert PLANTED[name] in sent
    pair = f"{PLANTED['loki-url-name']}:{PLANTED['loki-url-password']}".encode()
    assert base64.b64encode(pair).decode() in sent
    assert {200, 400, 401, 403, 404, 405, 429, 503} <= set(scene.statuses)


@pytest.mark.parametrize("server", ["first", "second"])
def test_what_went_wrong_was_logged_all_the_same(scene: Scene, server: str) -> None:
    log = scene.said[f"{server} log"]
    assert "upstream call failed" in log
    assert "report" in log
    assert "500" in log


def test_the_search_finds_what_is_there() -> None:
    pair = basic(PLANTED["administrator"], "a secret").rpartition(" ")[2]
    for said in ("a secret", "A%20SECRET", pair, f"x{base64.b64encode(b'a secret').decode()}"):
        assert any(form in said.lower() for form in forms("a secret"))
