"""What an exception or a log tells its reader, for searches after secrets."""

from __future__ import annotations

import base64
import traceback
from collections.abc import Iterable
from urllib.parse import quote_plus

import pytest


def told(error: BaseException) -> str:
    """Everything that a log could show of an exception: text, attributes, traceback and what it was raised from."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None:
        chain.append(current)
        current = current.__cause__ or current.__context__
    parts = ["".join(traceback.format_exception(error))]
    parts += [f"{link} {link!r} {link.args!r} {vars(link)!r}" for link in chain]
    return "\n".join(parts)


def assert_untold(secrets: Iterable[str], *texts: str) -> None:
    """None of the secrets stands in any of the texts, in any form in which it travels."""
    for secret in secrets:
        for form in (secret, quote_plus(secret), base64.b64encode(secret.encode()).decode().rstrip("=")):
            for text in texts:
                assert form not in text


def log_of(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(f"{record.name} {record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
