"""What has expired is deleted at start, and now and then by whichever worker mints a token."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from django.db import DatabaseError
from django.utils import timezone
from oauth2_provider.models import clear_expired

from . import idempotency

EVERY: Final = 600.0  # seconds between two sweeps of one worker

logger = logging.getLogger(__name__)
_lock = threading.Lock()
_last = time.monotonic()  # the program that starts the workers has just swept


def sweep() -> None:
    """Delete expired tokens and stored answers."""
    clear_expired()
    idempotency.forget_expired(timezone.now())


def sweep_if_due(now: float) -> bool:
    """Sweep, unless this worker did so in the last ten minutes; `now` in seconds of the monotonic clock.

    Whether it was due. A database too busy for it is no reason to fail the request at hand: the next sweep takes all.
    """
    global _last  # noqa: PLW0603 (one clock per worker)
    with _lock:
        if now - _last < EVERY:
            return False
        _last = now
    try:
        sweep()
    except DatabaseError:
        logger.warning("expired tokens were not deleted", exc_info=True)
    return True
