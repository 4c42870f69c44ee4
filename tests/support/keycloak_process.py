"""A real Keycloak as a local process, fetched once by Maven, with its data in memory and a realm of our own.

with KeycloakProcess(tmp_path) as keycloak:
    keycloak.issuer, keycloak.admin_url, keycloak.realm, keycloak.user
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import Any, Self

import httpx

from .process import Process, cache_folder, free_port, run

VERSION = "26.7.3"
ARTIFACT = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
FETCH_DEADLINE = 600.0  # seconds for 160 MB
START_DEADLINE = 300.0  # seconds: it builds itself at its first start, on two busy cores


def missing() -> str | None:
    """Why Keycloak cannot be run here, or None."""
    needed = ["java"] if _home().exists() else ["java", "mvn", "unzip"]
    absent = [name for name in needed if shutil.which(name) is None]
    return f"Keycloak is fetched by Maven and runs on Java, and there is no `{'`, `'.join(absent)}`" if absent else None


def _home() -> Path:
    return cache_folder(f"keycloak-{VERSION}") / f"keycloak-{VERSION}"


def fetch() -> Path:
    """Its folder, fetched now if it never was. Raises RuntimeError with Maven's words."""
    home = _home()
    if not home.exists():
        folder = home.parent
        maven = ["mvn", "-q", "-B"]
        run([*maven, f"{PLUGIN}:get", f"-Dartifact={ARTIFACT}", "-Dtransitive=false"], folder, deadline=FETCH_DEADLINE)
        run([*maven, f"{PLUGIN}:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"], folder, deadline=60.0)
        unpacked = folder / "unpacked"
        archive = folder / f"keycloak-quarkus-dist-{VERSION}.zip"
        run(["unzip", "-q", "-o", str(archive), "-d", str(unpacked)], folder, deadline=120.0)
        archive.unlink()
        (unpacked / home.name).rename(home)
    return home


class KeycloakProcess(Process):
    """See the module. The realm has the client scopes `read` and `write`."""

    def __init__(self, folder: Path) -> None:
        port, management = free_port(), free_port()
        self.admin_url, self.realm = f"http://127.0.0.1:{port}", "shop"
        self.issuer = f"{self.admin_url}/realms/{self.realm}"
        self.user = ("admin", secrets.token_urlsafe(16))
        # A copy of its own: a start rewrites the installation, and two tests may run at once.
        home = folder / "keycloak"
        shutil.copytree(fetch(), home, symlinks=True)
        command = [
            "nice", str(home / "bin" / "kc.sh"), "start-dev", "--db=dev-mem", "--http-host=127.0.0.1",
            f"--http-port={port}", f"--http-management-port={management}", "--health-enabled=true",
        ]  # fmt: skip
        environment = {
            "KC_BOOTSTRAP_ADMIN_USERNAME": self.user[0],
            "KC_BOOTSTRAP_ADMIN_PASSWORD": self.user[1],
            "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m",
        }
        ready = f"http://127.0.0.1:{management}/health/ready"
        super().__init__(folder, command, ready, deadline=START_DEADLINE, environment=environment)

    def __enter__(self) -> Self:
        super().__enter__()
        realm = {"realm": self.realm, "enabled": True, "accessTokenLifespan": 300, "sslRequired": "none"}
        self.admin("POST", "", realm)
        for name in ("read", "write"):
            scope = {"name": name, "protocol": "openid-connect", "attributes": {"include.in.token.scope": "true"}}
            self.admin("POST", f"/{self.realm}/client-scopes", scope)
        return self

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the admin API, as its administrator; `path` comes after `/admin/realms`."""
        login = {"grant_type": "password", "client_id": "admin-cli", "username": self.user[0], "password": self.user[1]}
        url = f"{self.admin_url}/realms/master/protocol/openid-connect/token"
        token = httpx.post(url, data=login, timeout=60).raise_for_status().json()["access_token"]
        answer = httpx.request(
            method,
            f"{self.admin_url}/admin/realms{path}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
        ).raise_for_status()
        return answer.json() if answer.content else None

    def service_account(self, client_id: str) -> tuple[str, str]:
        """Make a client of the realm that may manage clients, as an operator should have."""
        secret = secrets.token_urlsafe(16)
        client = {"clientId": client_id, "secret": secret, "publicClient": False, "serviceAccountsEnabled": True}
        self.admin("POST", f"/{self.realm}/clients", client)
        (made,) = self.admin("GET", f"/{self.realm}/clients?clientId={client_id}")
        account = self.admin("GET", f"/{self.realm}/clients/{made['id']}/service-account-user")
        (management,) = self.admin("GET", f"/{self.realm}/clients?clientId=realm-management")
        role = self.admin("GET", f"/{self.realm}/clients/{management['id']}/roles/manage-clients")
        mapping = f"/{self.realm}/users/{account['id']}/role-mappings/clients/{management['id']}"
        self.admin("POST", mapping, [role])
        return client_id, secret

    def client_ids(self) -> list[str]:
        """The operator's clients."""
        found = self.admin("GET", f"/{self.realm}/clients?max=1000")
        return [client["clientId"] for client in found if client["clientId"].startswith("psvc-")]

    def client_scopes(self) -> list[str]:
        """The operator's client scopes."""
        found = self.admin("GET", f"/{self.realm}/client-scopes")
        return [scope["name"] for scope in found if scope["name"].startswith("psvc-")]
