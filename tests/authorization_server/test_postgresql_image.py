"""postgresql/start.sh, which is all that our PostgreSQL image runs, with the PostgreSQL of this machine."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from ..contract.schema import ROOT
from ..support.postgresql_process import DEADLINE, Database, as_servant, binaries, give_to_servant, missing
from ..support.process import PAUSE, free_port

NAME = "authorization_server"

if (reason := missing()) is not None:
    pytest.skip(reason, allow_module_level=True)


class Image:
    """What a container of it has: a volume, a Secret, a port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.script, self.password_file = folder / "start.sh", folder / "password"
        shutil.copyfile(ROOT / "postgresql/start.sh", self.script)
        give_to_servant(folder)

    def set_password(self, password: str) -> None:
        self.password_file.write_text(password)
        give_to_servant(self.password_file)

    def popen(self) -> subprocess.Popen[bytes]:
        environment = {
            "PATH": f"{binaries()}:{os.environ['PATH']}",
            "DATA_FOLDER": str(self.folder / "data"),
            "PASSWORD_FILE": str(self.password_file),
            "PGPORT": str(self.port),
            "LANG": "C.UTF-8",
        }
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                ["bash", self.script], env=environment, cwd=self.folder, stdout=log, stderr=log, **as_servant()
            )

    @contextmanager
    def running(self, password: str) -> Iterator[Database]:
        process = self.popen()
        database = Database("127.0.0.1", self.port, NAME, NAME, password)
        try:
            until = time.monotonic() + DEADLINE
            while not self._answers(database):
                assert process.poll() is None, self.log()
                assert time.monotonic() < until, self.log()
                time.sleep(PAUSE)
            yield database
        finally:
            process.send_signal(signal.SIGINT)  # the image's STOPSIGNAL
            assert process.wait(DEADLINE) == 0

    def log(self) -> str:
        return (self.folder / "log").read_text()

    @staticmethod
    def _answers(database: Database) -> bool:
        try:
            database.query("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture
def image() -> Iterator[Image]:
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # not under pytest's, which only root may enter
    yield Image(folder)
    shutil.rmtree(folder)


def test_data_outlive_restarts_and_the_password_is_that_of_the_secret_at_each_start(image: Image) -> None:
    first, second = secrets.token_urlsafe(24), "it's " + secrets.token_urlsafe(24)
    image.set_password(first)
    with image.running(first) as database:
        database.query("CREATE TABLE kept (value text)")
        database.query("INSERT INTO kept VALUES (?)", "of before")
    image.set_password(second)
    with image.running(second) as database:
        assert database.query("SELECT value FROM kept") == [("of before",)]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            Database("127.0.0.1", image.port, NAME, NAME, first).query("SELECT 1")
        with pytest.raises(psycopg.OperationalError):  # the superuser has no password
            Database("127.0.0.1", image.port, NAME, "postgres", second).query("SELECT 1")
        assert database.query("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]

    assert first not in image.log()
    assert second not in image.log()


def test_a_first_start_that_was_killed_half_way_begins_anew(image: Image) -> None:
    password = secrets.token_urlsafe(24)
    image.set_password(password)
    half = image.folder / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("half")
    give_to_servant(half, half / "PG_VERSION")

    with image.running(password) as database:
        assert database.query("SELECT current_database()") == [(NAME,)]


def test_without_a_password_it_does_not_start(image: Image) -> None:
    image.set_password("")

    assert image.popen().wait(DEADLINE) == 1
    assert "remedy: mount the Secret" in image.log()
    assert not (image.folder / "data").exists()
