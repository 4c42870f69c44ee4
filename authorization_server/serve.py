# mypy: allow-subclassing-any
"""The whole server in one command: `python serve.py` checks the environment, migrates, tidies and serves.

With PostgreSQL it only serves, and is ready once migrate.py has run: replicas that start at once must not all migrate.

gunicorn runs in this very process, which has Django loaded already; its workers are forks of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Final

import django
from django.core.management import call_command
from gunicorn.app.base import BaseApplication

from protectedservice_authorization_server import configuration

WORKERS: Final = 2
THREADS: Final = 4  # per worker; one peer that dawdles must not take a worker from the rest
KEEP_ALIVE: Final = 75  # seconds; longer than clients keep idle connections, so that it is they who close them
GRACE: Final = 10  # seconds for running requests at SIGTERM


class Server(BaseApplication):
    """gunicorn around our WSGI application."""

    def __init__(self, bind: str, application: Any) -> None:
        self._bind, self._application = bind, application
        super().__init__()

    def load_config(self) -> None:
        """Settings by name; nothing from files or GUNICORN_CMD_ARGS."""
        settings = {
            "bind": self._bind,
            "workers": WORKERS,
            "worker_class": "gthread",
            "threads": THREADS,
            "keepalive": KEEP_ALIVE,
            "graceful_timeout": GRACE,
            "control_socket_disable": True,  # it would be a file in $HOME, and the root file system is read-only
            # Memory, where there is: a heartbeat file on a slow disk can stall a worker.
            "worker_tmp_dir": "/dev/shm" if os.access("/dev/shm", os.W_OK) else None,  # noqa: S108 (Linux's own name)
            "accesslog": "-",
            "logger_class": "protectedservice_authorization_server.access_log.AccessLog",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Called in each worker after the fork."""
        return self._application


def main() -> None:
    """Serve until SIGTERM. Exits with one line on stderr when the environment is unusable."""
    try:
        configured = configuration.load(os.environ)
    except configuration.ConfigurationError as error:
        sys.exit(str(error))
    os.umask(0o077)  # the database and its journal are for this user alone
    os.environ["DJANGO_SETTINGS_MODULE"] = "protectedservice_authorization_server.settings"
    django.setup()
    # Imported late: they read Django's settings.
    from django.core.wsgi import get_wsgi_application  # noqa: PLC0415
    from django.db import connections  # noqa: PLC0415

    from protectedservice_authorization_server import housekeeping  # noqa: PLC0415

    if isinstance(configured.database, Path):
        call_command("migrate", verbosity=0, interactive=False)
        housekeeping.sweep()
    application = get_wsgi_application()
    connections.close_all()  # a SQLite connection must not be carried across a fork
    Server(configured.bind, application).run()


if __name__ == "__main__":
    main()
