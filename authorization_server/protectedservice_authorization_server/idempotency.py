"""`Idempotency-Key`: a request repeated because its answer was lost gets that answer, and happens once.

The record of a key is made in the same transaction as the client. Of two requests at once the second waits for the
first: on SQLite for the one write lock, on PostgreSQL at the unique constraint, whichever replica they came to; if the
first is refused, the second does the work. Only successes are kept; they hold a
client secret or a registration access token and are encrypted with a key derived from SECRET_KEY.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from .errors import Refused
from .models import StoredAnswer

KEPT: Final = timedelta(hours=24)
KEY: Final = re.compile(r"[\x20-\x7e]{1,255}")


def key_of(request: HttpRequest) -> str | None:
    """The request's key, None without one. Raises Refused(400, invalid_request) for one that cannot be kept."""
    key: str | None = request.headers.get("Idempotency-Key")
    if key is not None and not KEY.fullmatch(key):
        raise Refused(400, "invalid_request", "Idempotency-Key must be 1 to 255 printable ASCII characters")
    return key


def once(
    request: HttpRequest, *, operation: str, credential: str | None, make: Callable[[], HttpResponse]
) -> HttpResponse:
    """Answer from `make`, or with what it answered to the same request in the last 24 h.

    `make` runs in a transaction which holds only if it answers below 400 and raises nothing. `credential` is the bearer
    token that a key is bound to: whoever repeats must present it again, though it may be used up by now; None binds
    the key to the operation alone, and the caller has authenticated the request already.

    Raises Refused: 400 for an unusable key, 422 for a key used before with another body, 409 for an answer that can no
    longer be decrypted.
    """
    key = key_of(request)
    now = timezone.now()
    if key is not None:
        forget_expired(now)  # not in the transaction: whoever waits for another's key must not hold other rows
    with transaction.atomic():
        record = None
        if key is not None:
            print_ = fingerprint(request.body)
            record, is_new = StoredAnswer.objects.get_or_create(
                operation=operation,
                key=key,
                credential=hashlib.sha256(credential.encode()).hexdigest() if credential is not None else "",
                defaults={"fingerprint": print_, "stored_at": now},
            )
            if not is_new:
                return _replayed(record, print_)
        response = make()
        if response.status_code >= 400:
            transaction.set_rollback(True)
        elif record is not None:
            record.status = response.status_code
            record.sealed = _vault().encrypt(response.content)
            record.save()
        return response


def forget(operation: str, *, but_key: str | None = None) -> None:
    """Drop what is kept for an operation, save under one key."""
    StoredAnswer.objects.filter(operation=operation).exclude(key=but_key or "").delete()


def forget_expired(now: datetime) -> None:
    """Drop every answer older than 24 h."""
    StoredAnswer.objects.filter(stored_at__lt=now - KEPT).delete()


def fingerprint(body: bytes) -> str:
    """Equal for bodies that mean the same: JSON by its content, anything else by its bytes."""
    with contextlib.suppress(ValueError, RecursionError):  # no JSON: `make` will refuse it
        body = json.dumps(json.loads(body), sort_keys=True).encode()
    return hashlib.sha256(body).hexdigest()


def _replayed(record: StoredAnswer, print_: str) -> HttpResponse:
    if not hmac.compare_digest(record.fingerprint, print_):
        raise Refused(422, "idempotency_key_reused", "this Idempotency-Key was used with another body: use a new one")
    try:
        content = _vault().decrypt(bytes(record.sealed))
    except InvalidToken:
        raise Refused(
            409, "idempotency_key_unreadable", "the server's secret key has changed since this key was used"
        ) from None
    return HttpResponse(
        content, status=record.status, content_type="application/json", headers={"Idempotency-Replayed": "true"}
    )


def _vault() -> Fernet:
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"stored answers").derive(
        settings.SECRET_KEY.encode()
    )
    return Fernet(base64.urlsafe_b64encode(derived))
