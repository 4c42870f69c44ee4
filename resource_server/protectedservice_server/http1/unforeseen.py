"""What is logged of a failure that nobody foresaw."""

from __future__ import annotations

import logging
import traceback

logger = logging.getLogger(__name__)


def log_bug(what: str, bug: Exception) -> None:
    """Log where it happened and what kind it is, but not its text: that may quote a request."""
    logger.error(what, extra={"cause": type(bug).__name__, "frames": traceback.format_tb(bug.__traceback__)})
