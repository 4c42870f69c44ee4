"""Real servers for the whole folder, one per database: starting one takes seconds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from ..support import postgresql_process
from ..support.authorization_server_process import AuthorizationServerProcess
from ..support.postgresql_process import Database, PostgreSQLProcess
from .caller import Caller

ON_BOTH_DATABASES = pytest.mark.parametrize("server", ["sqlite", "postgresql"], indirect=True)
"""What depends on the database is shown with both; everything else with SQLite."""


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQLProcess]:
    if (reason := postgresql_process.missing()) is not None:
        pytest.skip(reason)
    with PostgreSQLProcess() as process:
        yield process


@pytest.fixture(scope="package")
def servers() -> Iterator[tuple[dict[str, AuthorizationServerProcess], ExitStack]]:
    """Those that run, and what ends them."""
    with ExitStack() as stack:
        yield {}, stack


@pytest.fixture
def server(
    request: pytest.FixtureRequest,
    servers: tuple[dict[str, AuthorizationServerProcess], ExitStack],
    tmp_path_factory: pytest.TempPathFactory,
) -> AuthorizationServerProcess:
    running, stack = servers
    kind = getattr(request, "param", "sqlite")
    if kind not in running:
        folder = tmp_path_factory.mktemp("authorization_server")
        if kind == "sqlite":
            process = AuthorizationServerProcess(folder)
        else:
            postgresql: PostgreSQLProcess = request.getfixturevalue("postgresql")
            process = AuthorizationServerProcess(
                folder, database=postgresql.create_database(), environment=secret_key()
            )
            process.migrate()
        running[kind] = stack.enter_context(process)
    return running[kind]


def secret_key() -> dict[str, str]:
    return {"AUTHORIZATION_SERVER_SECRET_KEY": secrets.token_urlsafe(48)}


@pytest.fixture
def database(postgresql: PostgreSQLProcess) -> Database:
    """An empty one."""
    return postgresql.create_database()


@pytest.fixture(scope="package")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture
def caller(server: AuthorizationServerProcess, http: httpx.Client) -> Iterator[Caller]:
    """After each test, no secret of it may stand in anything the server has written."""
    caller = Caller(server, http)
    yield caller
    log = server.log_text()

    assert [secret for secret in caller.secrets if secret in log] == []
