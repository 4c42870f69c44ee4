"""What holds for every answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from django.contrib.auth.models import AnonymousUser
from django.db import DataError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from django.http import HttpRequest, HttpResponse, JsonResponse

from .errors import Refused

logger = logging.getLogger(__name__)

OUTAGES: Final = (OperationalError, InterfaceError, ProgrammingError)
"""ProgrammingError is PostgreSQL's word for a table that is not there (yet); SQLite's is OperationalError."""


class Answers:
    """Nothing of OAuth is cached, refusals become documents, and a failing database is an outage: 503, not 500."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.user = AnonymousUser()  # nobody logs in here, and the toolkit's registration views ask who did
        response = self.get_response(request)
        if request.path.startswith("/oauth/"):
            response["Cache-Control"] = "no-store"
            response["Pragma"] = "no-cache"
        return response

    def process_exception(self, _: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for what the views raise; None leaves a programming error to Django (500)."""
        if isinstance(exception, Refused):
            return exception.response()
        if isinstance(exception, OUTAGES):
            logger.error("the database does not answer: %s", exception)
            return _unavailable("the database does not answer")
        if isinstance(exception, IntegrityError):  # a client was deleted while it asked for a token
            return _unavailable("another request changed the same client at the same moment: try again")
        if isinstance(exception, DataError):  # PostgreSQL keeps no NUL, and no text longer than its column
            return Refused(400, "invalid_request", "a value is too long or holds a NUL character").response()
        return None


def _unavailable(description: str) -> HttpResponse:
    document = {"error": "temporarily_unavailable", "error_description": description}
    return JsonResponse(document, status=503, headers={"Retry-After": "1"})
