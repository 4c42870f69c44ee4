"""What a view raises becomes an answer of OAuth: a race or an outage is 503, a bad value 400, only a bug is 500."""

from __future__ import annotations

import json
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.exceptions import ObjectDoesNotExist
from django.db import DatabaseError, DataError, IntegrityError, InternalError, OperationalError, ProgrammingError
from django.http import HttpRequest, HttpResponse

from protectedservice_authorization_server.errors import Refused


@pytest.fixture(scope="module")
def answers() -> Any:
    """The middleware. Django wants to know its applications before a model may be imported."""
    if not settings.configured:
        settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"])
        django.setup()
    from protectedservice_authorization_server.middleware import Answers  # noqa: PLC0415

    return Answers(lambda _: HttpResponse())


@pytest.mark.parametrize(
    ("raised", "status", "error"),
    [
        pytest.param(ObjectDoesNotExist("AccessToken"), 503, "temporarily_unavailable", id="its client was deleted"),
        pytest.param(IntegrityError("foreign key"), 503, "temporarily_unavailable", id="its client is gone"),
        pytest.param(OperationalError("deadlock"), 503, "temporarily_unavailable", id="a deadlock"),
        pytest.param(ProgrammingError("no table"), 503, "temporarily_unavailable", id="not migrated yet"),
        pytest.param(InternalError("aborted"), 503, "temporarily_unavailable", id="a transaction that was given up"),
        pytest.param(DatabaseError("no rows"), 503, "temporarily_unavailable", id="an update that met no row"),
        pytest.param(DataError("NUL"), 400, "invalid_request", id="a value that cannot be kept"),
        pytest.param(Refused(401, "invalid_client", "who are you"), 401, "invalid_client", id="a refusal"),
    ],
)
def test_what_a_view_raises_is_answered_as_oauth(answers: Any, raised: Exception, status: int, error: str) -> None:
    answer = answers.process_exception(HttpRequest(), raised)

    assert answer is not None
    assert (answer.status_code, json.loads(answer.content)["error"]) == (status, error)


def test_a_bug_stays_a_bug(answers: Any) -> None:
    assert answers.process_exception(HttpRequest(), KeyError("x")) is None
