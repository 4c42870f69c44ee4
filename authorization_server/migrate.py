"""Brings the tables up to date: `python migrate.py` waits for the database, migrates, tidies and ends.

For PostgreSQL, where serve.py does not; with the same environment. Two at once take turns; a repeat changes nothing.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

import django
from django.core.management import call_command

from protectedservice_authorization_server import configuration

DEADLINE: Final = 120.0  # seconds that the database may take to answer
PAUSE: Final = 1.0  # seconds between two attempts
TURN: Final = 7_591_7592  # any number: that of the advisory lock which migrations hold


def main() -> None:
    """Exits with one line on stderr when the environment is unusable or the database does not answer."""
    try:
        configured = configuration.load(os.environ)
    except configuration.ConfigurationError as error:
        sys.exit(str(error))
    os.umask(0o077)  # a SQLite database is for this user alone
    os.environ["DJANGO_SETTINGS_MODULE"] = "protectedservice_authorization_server.settings"
    django.setup()
    # Imported late: they read Django's settings.
    from django.db import OperationalError, connection  # noqa: PLC0415

    from protectedservice_authorization_server import housekeeping  # noqa: PLC0415

    until = time.monotonic() + DEADLINE
    while True:
        try:
            connection.ensure_connection()
            break
        except OperationalError as error:
            if time.monotonic() > until:
                sys.exit(f"the database did not answer within {DEADLINE:.0f} s: {error}")
            time.sleep(PAUSE)
    if isinstance(configured.database, configuration.PostgreSQL):
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = 0; SET statement_timeout = 0")  # a migration takes as long as it takes
            cursor.execute("SELECT pg_advisory_lock(%s)", [TURN])  # until the connection ends
    call_command("migrate", verbosity=1, interactive=False)
    housekeeping.sweep()


if __name__ == "__main__":
    main()
