"""The server as a service: discovery, probes, logs, restart, start with a bad environment."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ..support.authorization_server_process import SERVE, Access, AuthorizationServerProcess
from .caller import METADATA, Caller, basic
from .conftest import ON_BOTH_DATABASES

EXPIRED = "SELECT count(*) FROM oauth2_provider_accesstoken WHERE expires < ?"


def test_discovery_document_describes_exactly_this_server(server: AuthorizationServerProcess, caller: Caller) -> None:
    headers = {"Host": "evil.example"}
    response = caller.request("GET", "/.well-known/oauth-authorization-server", headers=headers)
    methods = ["client_secret_basic", "client_secret_post"]

    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {
        "issuer": server.issuer,
        "token_endpoint": f"{server.issuer}/oauth/token",
        "introspection_endpoint": f"{server.issuer}/oauth/introspect",
        "revocation_endpoint": f"{server.issuer}/oauth/revoke",
        "registration_endpoint": f"{server.issuer}/oauth/register",
        "scopes_supported": ["admin", "orders:read", "orders:write", "read", "write"],
        "response_types_supported": [],
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_methods_supported": methods,
    }


@ON_BOTH_DATABASES
def test_probes_of_a_sound_server_are_positive(caller: Caller) -> None:
    assert caller.request("GET", "/healthz").json() == {"status": "alive"}
    assert caller.request("GET", "/readyz").json() == {"status": "ready"}


@ON_BOTH_DATABASES
def test_migration_that_is_missing_makes_the_server_unready_but_alive(
    server: AuthorizationServerProcess, caller: Caller
) -> None:
    where = "WHERE app = 'protectedservice_authorization_server'"
    [(name,)] = server.query(f"SELECT name FROM django_migrations {where}")  # noqa: S608 (a constant)
    server.query(f"UPDATE django_migrations SET name = 'other' {where}")  # noqa: S608
    unready = caller.request("GET", "/readyz")
    alive = caller.request("GET", "/healthz")
    server.query(f"UPDATE django_migrations SET name = ? {where}", name)  # noqa: S608

    assert unready.status_code == 503
    assert "protectedservice_authorization_server.0001_initial" in unready.json()["reason"]
    assert alive.status_code == 200
    assert caller.request("GET", "/readyz").status_code == 200


@ON_BOTH_DATABASES
def test_database_that_fails_is_an_outage_and_no_answer_about_a_client_or_token(
    server: AuthorizationServerProcess, caller: Caller
) -> None:
    client = caller.register()
    token = caller.token(client)
    server.query("ALTER TABLE oauth2_provider_application RENAME TO elsewhere")
    answers = [
        caller.ask_token(client),
        caller.request("POST", "/oauth/introspect", auth=basic(client), data={"token": token}),
        caller.post_registration(),
    ]
    server.query("ALTER TABLE elsewhere RENAME TO oauth2_provider_application")

    assert [(answer.status_code, answer.json()["error"]) for answer in answers] == [
        (503, "temporarily_unavailable")
    ] * 3
    assert caller.is_active(client, token)


def test_access_log_has_one_line_per_request_without_query_or_line_break(
    server: AuthorizationServerProcess, caller: Caller
) -> None:
    client = caller.register()
    token = caller.token(client)
    agent = {"User-Agent": 'protectedservice-operator/9.9 "test"'}
    caller.request("GET", "/oauth/introspect", params={"token": token}, headers=agent)
    caller.request("GET", '/no%0Asuch"path', headers=agent)
    lines = server.access_log(user_agent="protectedservice-operator/9.9", at_least=2)

    assert lines == [
        Access("GET", "/oauth/introspect", 405, agent["User-Agent"]),
        Access("GET", '/no\nsuch"path', 404, agent["User-Agent"]),
    ]
    assert token not in server.log_text()


@ON_BOTH_DATABASES
def test_clients_and_tokens_survive_sigkill_and_what_expired_is_swept_at_start(
    server: AuthorizationServerProcess, caller: Caller
) -> None:
    key = "before-the-kill"
    first = caller.post_registration(key=key)
    client = first.json()
    expired, token = caller.token(client), caller.token(client)
    now = datetime.now(UTC)
    server.query(
        "UPDATE oauth2_provider_accesstoken SET expires = ? WHERE id ="
        " (SELECT max(id) - 1 FROM oauth2_provider_accesstoken)",
        now - timedelta(hours=1),
    )
    caller.post_registration(key="swept")
    server.query("UPDATE stored_answer SET stored_at = ? WHERE key = 'swept'", now - timedelta(hours=25))
    clients = server.clients()
    server.kill()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/healthz")
    if server.database is not None:
        server.migrate()  # as the Job does before each start of a new version
    server.start()

    assert server.clients() == clients
    assert caller.is_active(client, token)
    assert not caller.is_active(client, expired)
    assert caller.post_registration(key=key).content == first.content  # the generated secret key is kept as well
    assert server.query("SELECT count(*) FROM stored_answer WHERE key = 'swept'") == [(0,)]
    assert server.query(EXPIRED, datetime.now(UTC)) == [(0,)]


SWEEPS = """
import django, time
django.setup()
from protectedservice_authorization_server import housekeeping
now = time.monotonic()
print([housekeeping.sweep_if_due(now + seconds) for seconds in (1, 601, 602, 1202)])
"""


@ON_BOTH_DATABASES
def test_running_worker_sweeps_every_ten_minutes(server: AuthorizationServerProcess, caller: Caller) -> None:
    caller.token(caller.register())
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    server.query("UPDATE oauth2_provider_accesstoken SET expires = ? WHERE scope = 'read'", an_hour_ago)
    assert server.query(EXPIRED, an_hour_ago + timedelta(seconds=1)) != [(0,)]
    environment = server.environment | {
        "DJANGO_SETTINGS_MODULE": "protectedservice_authorization_server.settings",
        "PYTHONPATH": str(SERVE.parent),
    }
    worker = subprocess.run([sys.executable, "-c", SWEEPS], env=environment, capture_output=True, text=True, check=True)

    assert worker.stdout == "[False, True, False, True]\n"
    assert server.query(EXPIRED, datetime.now(UTC)) == [(0,)]


@ON_BOTH_DATABASES
def test_migrations_make_the_tables_that_the_models_describe(server: AuthorizationServerProcess) -> None:
    command = [sys.executable, "-B", str(SERVE.with_name("manage.py")), "makemigrations", "--check", "--dry-run"]
    end = subprocess.run(
        [*command, "protectedservice_authorization_server"],
        env=server.environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (end.returncode, end.stdout) == (0, "No changes detected in app 'protectedservice_authorization_server'\n")


def test_generated_secret_key_and_database_are_for_the_server_alone(server: AuthorizationServerProcess) -> None:
    key = server.folder / "secret_key"

    assert len(key.read_text()) >= 64
    assert {stat.S_IMODE(path.stat().st_mode) for path in (key, server.database_path)} == {0o600}
    assert list(server.folder.glob(".secret_key.*")) == []


def test_request_too_large_is_refused(server: AuthorizationServerProcess, caller: Caller) -> None:
    headers = {"Authorization": f"Bearer {server.initial_access_token}"}
    body = json.dumps(METADATA | {"client_name": "n" * 70_000})

    assert caller.request("POST", "/oauth/register", headers=headers, content=body).status_code in {400, 413}


def refused_start(folder: Path, **environment: str) -> str:
    """The one line on stderr of a server that does not start."""
    variables = {f"AUTHORIZATION_SERVER_{name}": value for name, value in environment.items()}
    command = [sys.executable, "-B", str(SERVE)]
    end = subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert end.returncode == 1
    assert end.stdout == ""
    [line] = end.stderr.splitlines()
    return line


def test_empty_environment_is_told_in_one_line_with_every_fault(tmp_path: Path) -> None:
    line = refused_start(tmp_path, DATA_DIR=str(tmp_path / "absent"))

    assert line.startswith("the authorization server cannot start: ")
    assert "AUTHORIZATION_SERVER_ISSUER is not set" in line
    assert "AUTHORIZATION_SERVER_INITIAL_ACCESS_TOKEN_FILE is not set" in line
    assert "AUTHORIZATION_SERVER_DATA_DIR is not a folder" in line
    assert list(tmp_path.iterdir()) == []


def test_unusable_values_are_told_by_name_and_secrets_are_not_repeated(tmp_path: Path) -> None:
    line = refused_start(
        tmp_path,
        ISSUER="https://host/path/",
        INITIAL_ACCESS_TOKEN="hidden word",
        SECRET_KEY="hidden",
        SECRET_KEY_FILE="/absent",
        DATA_DIR=str(tmp_path),
        SCOPES="read oauth2_provider:registration",
        TOKEN_TTL="5m",
        BIND="8000",
    )

    assert "AUTHORIZATION_SERVER_ISSUER must be" in line
    assert "AUTHORIZATION_SERVER_INITIAL_ACCESS_TOKEN must be" in line
    assert "AUTHORIZATION_SERVER_SECRET_KEY and AUTHORIZATION_SERVER_SECRET_KEY_FILE are both set" in line
    assert "AUTHORIZATION_SERVER_SCOPES must be" in line
    assert "AUTHORIZATION_SERVER_TOKEN_TTL must be" in line
    assert "AUTHORIZATION_SERVER_BIND must be" in line
    assert "hidden" not in line


def test_unusable_database_is_told_by_name_and_its_password_is_not_repeated(tmp_path: Path) -> None:
    line = refused_start(
        tmp_path,
        ISSUER="https://host",
        INITIAL_ACCESS_TOKEN="token",
        DATABASE_HOST="a,b",
        DATABASE_PORT="70000",
        DATABASE_NAME="two words",
        DATABASE_PASSWORD="hidden",
        DATABASE_PASSWORD_FILE="/absent",
    )

    assert "AUTHORIZATION_SERVER_DATABASE_HOST must be" in line
    assert "AUTHORIZATION_SERVER_DATABASE_PORT must be" in line
    assert "AUTHORIZATION_SERVER_DATABASE_NAME must be" in line
    assert "AUTHORIZATION_SERVER_DATABASE_PASSWORD and AUTHORIZATION_SERVER_DATABASE_PASSWORD_FILE are both" in line
    assert "AUTHORIZATION_SERVER_SECRET_KEY or AUTHORIZATION_SERVER_SECRET_KEY_FILE is not set" in line
    assert "hidden" not in line


def test_database_settings_without_a_host_do_not_end_in_a_sqlite_file(tmp_path: Path) -> None:
    line = refused_start(
        tmp_path,
        ISSUER="https://host",
        INITIAL_ACCESS_TOKEN="token",
        DATA_DIR=str(tmp_path),
        DATABASE_PASSWORD="hidden",
    )

    assert "DATABASE_HOST is not set, but AUTHORIZATION_SERVER_DATABASE_PASSWORD" in line
    assert "hidden" not in line
    assert list(tmp_path.iterdir()) == []


def test_support_process_tells_why_the_server_did_not_start(tmp_path: Path) -> None:
    server = AuthorizationServerProcess(tmp_path, environment={"AUTHORIZATION_SERVER_SCOPES": '"'})

    with pytest.raises(RuntimeError, match="AUTHORIZATION_SERVER_SCOPES must be"):
        server.start()


def test_secrets_from_files_scopes_and_lifetime_from_the_environment_are_used(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token-from-a-file\n")
    (tmp_path / "key").write_text("key-from-a-file\n")
    server = AuthorizationServerProcess(
        tmp_path,
        environment={
            "AUTHORIZATION_SERVER_INITIAL_ACCESS_TOKEN": "",
            "AUTHORIZATION_SERVER_INITIAL_ACCESS_TOKEN_FILE": str(tmp_path / "token"),
            "AUTHORIZATION_SERVER_SECRET_KEY_FILE": str(tmp_path / "key"),
            "AUTHORIZATION_SERVER_SCOPES": "stock:count,stock:move",
            "AUTHORIZATION_SERVER_TOKEN_TTL": "7",
        },
        initial_access_token="token-from-a-file",
    )
    with server, httpx.Client(timeout=30) as http:
        caller = Caller(server, http)
        client = caller.post_registration(scope="stock:count").json()
        granted = caller.ask_token(client).json()
        refused = caller.post_registration(scope="read")

    assert (granted["scope"], granted["expires_in"]) == ("stock:count", 7)
    assert refused.status_code == 400
    assert not (tmp_path / "secret_key").exists()
