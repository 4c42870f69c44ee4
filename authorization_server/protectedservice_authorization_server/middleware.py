"""What holds for every answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError
from django.http import HttpRequest, HttpResponse, JsonResponse

from .errors import Refused

logger = logging.getLogger(__name__)

MOVED: Final = (IntegrityError, ObjectDoesNotExist)
"""A client was deleted while it asked for a token: the row of the token, or of the client, cannot be had any more. The
toolkit looks a token up again that it has just stored, and its client's deletion may have taken it along."""

OUTAGES: Final = (DatabaseError, InterfaceError)
"""The rest: a table that is not there (yet), a deadlock, a transaction that was given up, a database that is away."""


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
        if isinstance(exception, MOVED):
            logger.warning("two requests met at one client: %s", exception)
            return _unavailable("another request changed the same client at the same moment: try again")
        if isinstance(exception, DataError):  # PostgreSQL keeps no NUL, and no text longer than its column
            return Refused(400, "invalid_request", "a value is too long or holds a NUL character").response()
        if isinstance(exception, OUTAGES):
            logger.error("the database does not answer: %s", exception)
            return _unavailable("the database does not answer")
        return None


def _unavailable(description: str) -> HttpResponse:
    document = {"error": "temporarily_unavailable", "error_description": description}
    return JsonResponse(document, status=503, headers={"Retry-After": "1"})
