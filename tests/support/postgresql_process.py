"""A real PostgreSQL as a local process: a cluster of its own in a new folder, on a free port of the loopback interface.

    with PostgreSQLProcess() as postgresql:
        database = postgresql.create_database()

PostgreSQL refuses to run as root: there it runs as the user `postgres`, whom Debian's package makes, or as `nobody`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from .process import PAUSE, free_port

DEADLINE: Final = 60.0  # seconds for each of: making the cluster, starting it, ending it
USER: Final = "authorization_server"


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL of this machine: on PATH, or where Debian keeps them."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else None


def missing() -> str | None:
    """Why it cannot be run here, or None."""
    if binaries() is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and _servant() is None:
        return "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`"
    return None


@dataclass(frozen=True)
class Database:
    """One database, as the authorization server is told of it."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of `authorization_server/`."""
        values = {"HOST": self.host, "PORT": self.port, "NAME": self.name, "USER": self.user}
        variables = {f"AUTHORIZATION_SERVER_DATABASE_{name}": str(value) for name, value in values.items()}
        return variables | {"AUTHORIZATION_SERVER_DATABASE_PASSWORD": self.password}

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement, `?` for each parameter, and commit."""
        with psycopg.connect(
            host=self.host, port=self.port, dbname=self.name, user=self.user, password=self.password, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.replace("?", "%s").encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []


class PostgreSQLProcess:
    """See the module. `stop` and `start` are a restart: port, databases and passwords stay."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # not under pytest's, which only root may enter
        self.port = free_port()
        self._password = secrets.token_urlsafe(24)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def create_database(self) -> Database:
        """A new, empty one."""
        name = f"test_{secrets.token_hex(6)}"
        self._at("postgres").query(f"CREATE DATABASE {name}")
        return self._at(name)

    def start(self) -> None:
        """Start, and return when it takes connections. Raises RuntimeError with its log when it ends instead."""
        with (self.folder / "log").open("ab") as log:
            options = ["-D", str(self.folder / "data"), "-p", str(self.port), "-k", "", "-h", "127.0.0.1"]
            self._process = subprocess.Popen(
                [self._program("postgres"), *options],
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **as_servant(),
            )  # fmt: skip
        until = time.monotonic() + DEADLINE
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(PAUSE)

    def stop(self) -> None:
        """End at once every connection, then the process. Does nothing when it does not run."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGINT)
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(DEADLINE)
        self._process = None

    def log_text(self) -> str:
        """Everything it has written."""
        return (self.folder / "log").read_text()

    def _make(self) -> None:
        password = self.folder / "password"  # neither an argument, which is public, nor /dev/stdin, which is root's
        password.touch(0o600)
        password.write_text(self._password)
        give_to_servant(self.folder, password)
        options = ["--username", USER, "--auth", "scram-sha-256", "--pwfile", str(password), "--no-sync", "-E", "UTF8"]
        made = subprocess.run(
            [self._program("initdb"), "-D", self.folder / "data", *options],
            capture_output=True, text=True, cwd=self.folder, timeout=DEADLINE, check=False,
            **as_servant(),
        )  # fmt: skip
        password.unlink()
        if made.returncode != 0:
            raise RuntimeError(f"initdb ended with {made.returncode}:\n{made.stderr}")
        with (self.folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nshared_buffers = 16MB\nlog_statement = none\n")

    def _at(self, name: str) -> Database:
        return Database("127.0.0.1", self.port, name, USER, self._password)

    def _answers(self) -> bool:
        try:
            self._at("postgres").query("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _program(self, name: str) -> str:
        folder = binaries()
        assert folder is not None, missing()
        return str(folder / name)


def _servant() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as when we are root; None to run it as ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def give_to_servant(*paths: Path) -> None:
    """Make them belong to the user that PostgreSQL runs as."""
    if (servant := _servant()) is not None:
        for path in paths:
            os.chown(path, servant.pw_uid, servant.pw_gid)


def as_servant() -> dict[str, Any]:
    """Arguments of Popen: to run as that user."""
    servant = _servant()
    return {} if servant is None else {"user": servant.pw_uid, "group": servant.pw_gid, "extra_groups": []}
