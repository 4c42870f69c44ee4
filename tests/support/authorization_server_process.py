"""The real authorization server (`authorization_server/`) as a local process: `serve.py` under gunicorn.

    with AuthorizationServerProcess(tmp_path) as server:
        authorization = f"Bearer {server.initial_access_token}"
        httpx.post(f"{server.url}/oauth/register", headers={"Authorization": authorization}, json={...})

One object is one database and one port for its whole life: `stop` or `kill`, then `start`, is a restart. The database
is SQLite in the folder, unless it is given: then several objects are replicas that share it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from .postgresql_process import Database
from .process import free_port

SERVE = Path(__file__).parents[2] / "authorization_server" / "serve.py"
DEADLINE = 30.0  # seconds to get ready or to end, on a machine that is busy with other tests
PAUSE = 0.05  # seconds between two looks


@dataclass(frozen=True)
class Client:
    """A client as the database has it."""

    client_id: str
    client_name: str
    scope: str
    audience: list[str]


@dataclass(frozen=True)
class Access:
    """One line of the access log."""

    method: str
    path: str
    status: int
    user_agent: str | None


class AuthorizationServerProcess:
    """A server that keeps its data in `folder`. Not started yet: use `start` or `with`."""

    def __init__(
        self,
        folder: Path,
        *,
        initial_access_token: str | None = None,
        environment: Mapping[str, str] | None = None,
        database: Database | None = None,
    ) -> None:
        """`environment` adds to what the server is started with or replaces it; an empty value removes a variable.

        A given `database` has its tables from `migrate`, and the environment needs AUTHORIZATION_SERVER_SECRET_KEY.
        """
        self.folder = folder
        self.database = database
        self.port = free_port()  # kept over restarts, so the server cannot bind port 0 itself
        self.url = f"http://127.0.0.1:{self.port}"
        self.issuer = (environment or {}).get("AUTHORIZATION_SERVER_ISSUER", self.url)
        self.initial_access_token = initial_access_token or secrets.token_urlsafe(24)
        self.database_path = folder / "db.sqlite3"
        self._output = folder / "stdout.log"
        self._errors = folder / "stderr.log"
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What `serve.py` is started with: nothing of the caller's own settings."""
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONDONTWRITEBYTECODE": "1",
            "AUTHORIZATION_SERVER_ISSUER": self.issuer,
            "AUTHORIZATION_SERVER_INITIAL_ACCESS_TOKEN": self.initial_access_token,
            **(self.database.environment if self.database else {"AUTHORIZATION_SERVER_DATA_DIR": str(self.folder)}),
            "AUTHORIZATION_SERVER_BIND": f"127.0.0.1:{self.port}",
            **self._environment,
        }
        return {name: value for name, value in variables.items() if value}

    def migrate(self) -> str:
        """What migrate.py writes. Raises RuntimeError with its words when it fails."""
        done = subprocess.run(
            [sys.executable, str(SERVE.with_name("migrate.py"))],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"migrate.py ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def start(self, *, path: str = "/readyz") -> None:
        """Start, and return when `path` says so. Raises RuntimeError with the log when the process ends instead."""
        if self._process is not None:
            raise RuntimeError("the authorization server runs already")
        with self._output.open("ab") as output, self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(SERVE)],
                env=self.environment,
                stdout=output,
                stderr=errors,
                cwd=self.folder,
                start_new_session=True,  # `kill` must reach the workers, and nobody else
            )
        if not self._wait_until(lambda: self._answers(path)):
            self.kill()
            raise RuntimeError(f"the authorization server did not get ready:\n{self.log_text()}")

    def stop(self) -> None:
        """SIGTERM, and wait. Does nothing when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._process = None

    def kill(self) -> None:
        """SIGKILL to the master and its workers at once, as when a pod's process is killed from its node."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE)
        self._process = None

    def clients(self) -> list[Client]:
        """Every client in the database, oldest first. Works while the server is down."""
        rows = self.query(
            "SELECT a.client_id, a.name, p.scope, p.audience FROM oauth2_provider_application a"
            " LEFT JOIN client_policy p ON p.application_id = a.id ORDER BY a.id"
        )
        return [Client(row[0], row[1], row[2] or "", _list(row[3])) for row in rows]

    def client_count(self) -> int:
        """How many clients there are in the database."""
        return len(self.clients())

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one SQL statement in the server's database, `?` for each parameter, and commit. Times are in UTC."""
        if self.database is not None:
            return self.database.query(statement, *parameters)
        values = [
            value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value for value in parameters
        ]
        with closing(sqlite3.connect(self.database_path, timeout=DEADLINE)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    def access_log(self, *, user_agent: str = "", at_least: int = 0) -> list[Access]:
        """The requests so far of the user agents that start so, oldest first.

        A line is written after its answer is sent: `at_least` waits for so many lines. Raises TimeoutError.
        """

        def lines() -> list[Access]:
            found = [json.loads(line) for line in self._output.read_text().splitlines() if line.endswith("}")]
            accesses = [Access(x["method"], x["path"], x["status"], x["user_agent"]) for x in found]
            return [access for access in accesses if (access.user_agent or "").startswith(user_agent)]

        if not self._wait_until(lambda: len(lines()) >= at_least):
            raise TimeoutError(f"the access log holds {len(lines())} lines of {user_agent!r}, not {at_least}")
        return lines()

    def log_text(self) -> str:
        """Everything the server has written so far, access log included: the place to search for secrets."""
        return self._output.read_text() + self._errors.read_text()

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(f"{self.url}{path}", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def _wait_until(self, condition: Callable[[], bool]) -> bool:
        """Whether it came true before the deadline and before the process ended."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                return False
            time.sleep(PAUSE)
        return True


def _list(column: Any) -> list[str]:
    """A JSON column: text in SQLite, parsed already from PostgreSQL."""
    found: list[str] = json.loads(column or "[]") if isinstance(column, str | None) else column
    return found
