"""A real Keycloak with the realms of realms.py: tokens, log-outs, new keys, outages."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.servers import realms
from tests.servers.build import program
from tests.servers.process import Process, ServerError, free_port

_ADMIN = "admin"
_ADMIN_PASSWORD = "only for a test"
_START_TIMEOUT_SECONDS = 180

# Compiled lightly, since most of its life is starting, and with little memory.
_JAVA_OPTIONS = (
    "-Xmx384m -XX:MaxMetaspaceSize=256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    " -XX:+ExitOnOutOfMemoryError -XX:-UsePerfData -Dfile.encoding=UTF-8"
)


class Keycloak:
    """A running Keycloak at `url`, with its own realms, sessions and keys."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        home = _home(directory / "keycloak")
        command: list[str | Path] = [
            home / "bin/kc.sh",
            "start",
            "--optimized",
            "--import-realm",  # those that are there already stay as they are
            "--cache=local",
            "--http-enabled=true",
            "--http-host=127.0.0.1",
            f"--http-port={port}",
            f"--hostname={self.url}",
        ]
        environment = {
            "KC_BOOTSTRAP_ADMIN_USERNAME": _ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": _ADMIN_PASSWORD,
            "JAVA_OPTS": f"{_JAVA_OPTIONS} -Djava.io.tmpdir={shlex.quote(str(home / 'tmp'))}",
            "JAVA_OPTS_APPEND": "",
            "DEBUG": "false",
        }
        self._process = Process(
            "keycloak", command, directory / "keycloak.log", environment=environment
        )

    @classmethod
    @contextmanager
    def start(cls, directory: Path) -> Iterator[Keycloak]:
        """Start Keycloak with its data under `directory` and stop it at the end.

        Raises ServerError with the end of the log if it does not come up.
        """
        keycloak = cls(directory)
        try:
            keycloak.restart()
            yield keycloak
        finally:
            keycloak.stop()
            keycloak._client.close()

    def stop(self) -> None:
        """Stop Keycloak, suspended or not; realms, keys and sessions stay in its folder."""
        self._process.stop()

    def restart(self) -> None:
        """Start Keycloak again on the same port, and stop it before that if it runs."""
        self.stop()
        self._process.start(self._ready, timeout_seconds=_START_TIMEOUT_SECONDS)

    def suspend(self) -> None:
        """Let it hang: connections are taken, and nothing is answered until `resume`."""
        self._process.suspend()

    def resume(self) -> None:
        """Let a suspended Keycloak go on; what was asked in between is answered."""
        self._process.resume()

    def issuer(self, realm: str) -> str:
        """Return the realm's issuer, the `iss` of its tokens."""
        return f"{self.url}/realms/{realm}"

    def subject(self, realm: str, user: str) -> str:
        """Return the user's `sub`."""
        return realms.PEOPLE[realm][user].subject

    def token(self, realm: str, user: str, client: str = "oscar") -> str:
        """Log the user in and return the access token; clients and lifespans are in realms.py.

        Raises ServerError if Keycloak refuses.
        """
        return self._token(realm, user, realms.PASSWORD, client)

    def logout(self, realm: str, user: str) -> None:
        """End the user's sessions: userinfo refuses the tokens given until now."""
        path = f"/admin/realms/{realm}/users"
        (found,) = self.administer("GET", path, params={"username": user, "exact": "true"})
        self.administer("POST", f"{path}/{found['id']}/logout")

    def rotate_keys(self, realm: str, *, retire: bool = False) -> str:
        """Have the realm sign with a new RSA key, and return its id (`kid`).

        The older ones are still published, unless they are to `retire`: then they are gone, and
        Keycloak itself refuses what they signed.
        """
        path = f"/admin/realms/{realm}/components"
        parent = self.administer("GET", f"/admin/realms/{realm}")["id"]
        providers = self.administer("GET", path, params={"type": realms.KEY_PROVIDER})
        older = [provider for provider in providers if provider["providerId"] == "rsa"]
        priority = max(int(provider["config"]["priority"][0]) for provider in older) + 1
        new = realms.rsa_key("rsa", priority=priority)
        self.administer(
            "POST", path, json={**new, "parentId": parent, "providerType": realms.KEY_PROVIDER}
        )
        if retire:
            for provider in older:
                self.administer("DELETE", f"{path}/{provider['id']}")
        kid: str = self.administer("GET", f"/admin/realms/{realm}/keys")["active"]["RS256"]
        return kid

    @contextmanager
    def reached_by(self, realm: str, url: str) -> Iterator[str]:
        """Have the realm take `url`, a way to this server, for its address; gives its issuer.

        Tokens and the discovery document name that address until the block ends. They are to be
        asked for in the block: those from before name the other.
        """
        path = f"/admin/realms/{realm}"
        attributes = self.administer("GET", path)["attributes"]
        self.administer("PUT", path, json={"attributes": {**attributes, "frontendUrl": url}})
        try:
            yield f"{url}/realms/{realm}"
        finally:
            self.administer("PUT", path, json={"attributes": {**attributes, "frontendUrl": ""}})

    def administer(self, method: str, path: str, **parts: Any) -> Any:
        """Return what the admin API answers, decoded, or None if it has nothing to say."""
        token = self._token("master", _ADMIN, _ADMIN_PASSWORD, "admin-cli")
        answer = self._client.request(
            method, path, headers={"Authorization": f"Bearer {token}"}, **parts
        )
        if not answer.is_success:
            raise ServerError(f"keycloak refused: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def _token(self, realm: str, user: str, password: str, client: str) -> str:
        answer = self._client.post(
            f"/realms/{realm}/protocol/openid-connect/token",
            data={
                "grant_type": "password",
                "client_id": client,
                "username": user,
                "password": password,
                "scope": "openid",
            },
        )
        if answer.status_code != httpx.codes.OK:
            raise ServerError(f"keycloak gave no token: {answer.status_code} {answer.text}")
        token: str = answer.json()["access_token"]
        return token

    def _ready(self) -> bool:
        configuration = "/.well-known/openid-configuration"
        return all(
            self._client.get(f"/realms/{realm}{configuration}").status_code == httpx.codes.OK
            for realm in realms.PEOPLE
        )


def _home(home: Path) -> Path:
    """Make a home of its own that shares the installed programs and none of the data."""
    installed = program("keycloak").parents[1]
    imports = home / "data/import"
    imports.mkdir(parents=True)
    (home / "tmp").mkdir()
    for realm in realms.PEOPLE:
        (imports / f"{realm}.json").write_text(json.dumps(realms.representation(realm), indent=2))
    for shared in ("lib", "conf", "providers", "themes"):
        (home / shared).symlink_to(installed / shared)
    # A copy: the script takes the folder above its own for the home, through links.
    (home / "bin").mkdir()
    shutil.copy(installed / "bin/kc.sh", home / "bin/kc.sh")
    return home
