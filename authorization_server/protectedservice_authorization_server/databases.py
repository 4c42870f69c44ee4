"""Django's settings for either database: the one place, with idempotency.py, that knows which one it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .configuration import PostgreSQL

PATIENCE: Final = 20  # seconds that a request waits for another's lock before it is 503


def settings_of(database: Path | PostgreSQL) -> dict[str, Any]:
    """An entry of DATABASES."""
    return _postgresql(database) if isinstance(database, PostgreSQL) else _sqlite(database)


def _sqlite(folder: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "db.sqlite3"),
        "CONN_MAX_AGE": 60,
        "OPTIONS": {
            "timeout": PATIENCE,  # for the one writer
            # A deferred transaction that turns to writing later fails at once with "database is locked".
            "transaction_mode": "IMMEDIATE",
            # NORMAL loses nothing when the process dies, only (the latest) when the machine does.
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
        },
    }


def _postgresql(database: PostgreSQL) -> dict[str, Any]:
    sessions = {
        "lock_timeout": f"{PATIENCE}s",
        "statement_timeout": f"{PATIENCE + 5}s",
        # A replica whose node was lost must not hold its locks for ever.
        "idle_in_transaction_session_timeout": f"{PATIENCE + 10}s",
    }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": database.host,
        "PORT": database.port,
        "NAME": database.name,
        "USER": database.user,
        "PASSWORD": database.password,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,  # a connection that the database has dropped costs no request
        "OPTIONS": {
            "connect_timeout": 2,  # seconds; below the patience of the probe of /readyz
            "tcp_user_timeout": 10_000,  # milliseconds without an acknowledgement
            "application_name": "authorization-server",
            "options": " ".join(f"-c {name}={value}" for name, value in sessions.items()),
        },
    }
