"""Probes. `/healthz`: this process answers. `/readyz`: the database answers and has every table."""

from __future__ import annotations

import functools

from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse


def alive(_: HttpRequest) -> JsonResponse:
    """Asks nothing of anybody: a restart would not cure a database."""
    return JsonResponse({"status": "alive"})


def ready(_: HttpRequest) -> JsonResponse:
    """503 with the reason while requests would fail."""
    try:
        missing = _known_migrations() - set(MigrationRecorder(connection).applied_migrations())
    except DatabaseError as error:
        return JsonResponse({"status": "unready", "reason": f"the database does not answer: {error}"}, status=503)
    if missing:
        names = sorted(f"{app}.{name}" for app, name in missing)
        return JsonResponse({"status": "unready", "reason": f"migrations not applied: {' '.join(names)}"}, status=503)
    return JsonResponse({"status": "ready"})


@functools.cache
def _known_migrations() -> frozenset[tuple[str, str]]:
    """What this program needs; read from its own files, once."""
    return frozenset(MigrationLoader(None).disk_migrations)
