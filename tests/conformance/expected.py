"""What a front end does not keep, with the reason: the one table of expected failures.

A line is (front, test, case) -> reason; the case is the id in the test's brackets without the front, "*" for all of
them. Such a test must fail (xfail, strict): when the front learns to keep the rule, the line has to go.
"""

from __future__ import annotations

from typing import Final

UVICORN: Final = "the embedding application's own server decides this, and uvicorn lets it through"

EXPECTED: Final[dict[tuple[str, str, str], str]] = {}


def reason(front: str, test: str, case: str) -> str | None:
    """Why this test must fail for this front; None: it must pass."""
    return EXPECTED.get((front, test, case)) or EXPECTED.get((front, test, "*"))
