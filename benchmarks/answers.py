"""Whether a candidate does its work: a fast wrong answer is not a figure."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

TIMEOUT: Final = 5.0
"""Seconds for one answer; a candidate that needs longer on an idle machine is broken."""

GOOD_TOKEN: Final = "good-abcdefghijklmnopqrstuvwxyz012345"  # noqa: S105 the stub's words
CASES: Final[Mapping[str, tuple[str | None, int]]] = {
    "no token": (None, 401),
    "inactive token": ("inactive-abcdefghijklmnopqrstuvwxyz", 401),
    "scope missing": ("scopeless-abcdefghijklmnopqrstuvwxyz", 403),
    "good token": (GOOD_TOKEN, 200),
    "good token again": (GOOD_TOKEN, 200),
}
"""What is asked, and the right status. The last finds caches that answer something else."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    challenge: str
    """`WWW-Authenticate`; empty where there is none."""
    body: bytes


Ask = Callable[[str | None], Answer]


def get(port: int, path: str, token: str | None) -> Answer:
    """One request on a connection of its own.

    Raises:
        OSError, http.client.HTTPException: no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return Answer(response.status, response.getheader("WWW-Authenticate") or "", response.read())
    finally:
        connection.close()


def faults(ask: Ask, expected: Callable[[bytes], str | None], *, authenticates: bool = True) -> tuple[str, ...]:
    """What a candidate answers wrongly, one sentence each. `expected` says what is wrong with a body; None: nothing.

    One that does not authenticate is asked with the good token only.
    """
    found: list[str] = []
    for case, (token, wanted) in CASES.items():
        if not authenticates and wanted != 200:
            continue
        try:
            answer = ask(token)
        except (OSError, http.client.HTTPException) as error:
            found.append(f"{case}: no answer ({type(error).__name__})")
            continue
        if answer.status != wanted:
            found.append(f"{case}: answered {answer.status} instead of {wanted}")
        elif wanted == 401 and not answer.challenge.lower().startswith("bearer"):
            found.append(f"{case}: 401 without WWW-Authenticate: Bearer")
        elif wanted == 200:
            wrong = expected(answer.body)
            if wrong is not None:
                found.append(f"{case}: {wrong}")
    return tuple(found)


def same_json(wanted: object) -> Callable[[bytes], str | None]:
    """A body must be this document, in whatever spelling."""

    def check(body: bytes) -> str | None:
        try:
            found = json.loads(body)
        except ValueError:
            return "the body is not JSON"
        return None if found == wanted else "the body is not the agreed document"

    return check


def same_bytes(wanted: bytes) -> Callable[[bytes], str | None]:
    """A body must be these bytes; compared by digest, so that messages stay short."""
    digest = hashlib.sha256(wanted).hexdigest()

    def check(body: bytes) -> str | None:
        found = hashlib.sha256(body).hexdigest()
        return None if found == digest else f"the body ({len(body)} bytes) is not the upstream's ({len(wanted)} bytes)"

    return check
