"""The bare granian hello: its fastest interface (RSGI), one fixed body, no check of anything."""

from __future__ import annotations

import os
from typing import Protocol

BODY = os.environ["BODY"].encode()
HEADERS = [("content-type", "application/json"), ("content-length", str(len(BODY)))]


class Answering(Protocol):
    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None: ...


async def hello(scope: object, protocol: Answering) -> None:
    del scope
    protocol.response_bytes(200, HEADERS, BODY)
