"""What a front end does not keep, with the reason: the one table of expected failures.

A line is (front, test, case) -> reason; the case is the id in the test's brackets without the front, "*" for all of
them. Such a test must fail (xfail, strict; but see SOMETIMES): when the front learns to keep the rule, the line has to
go.
"""

from __future__ import annotations

from typing import Final

UVICORN: Final = "the embedding application's own server decides this, and uvicorn lets it through"


ENDS: Final = "test_a_request_ends_where_every_reader_sees_its_end"
APART: Final = "test_the_same_holds_when_each_byte_comes_in_a_packet_of_its_own"

_MIDDLEWARE: Final = (
    "TE.TE, identity, chunked",
    "TE.TE, gzip, chunked",
    "TE.TE, a comma before",
    "TE.TE, two lines, identity and chunked",
    "chunk size, an extension",
    "chunk size, an extension without a value",
    "chunk end, the last chunk has an extension",
    "head, 1000 fields",
    "head, one field of 300 KB",
    "head, a name of 300 KB",
    "head, 64 fields of 8 KB",
    "request line, HTTP/0.9 with fields",
    "request line, HTTP/0.9 by its number",
    "request line, HTTP/2.0",
    "request line, another protocol",
    "request line, ICE",
    "request line, a fragment",
    "request line, CONNECT of a path",
    "an offered upgrade with a length",
    "an offered upgrade with chunks",
)

# What an application gets to see of a head, its own server has accepted.
_MIDDLEWARE_ELSEWHERE: Final[dict[str, tuple[str, ...]]] = {
    "test_a_target_that_is_no_path_is_refused": ("ftp://svc/a",),
    "test_a_host_that_names_no_one_place_is_400": (
        "none",
        "two that are the same",
        "two that differ",
        "with a path",
        "with a user",
        "with a space",
        "a list",
        "a port that is no number",
        "half of an IPv6 address",
        "a backslash",
        "a fragment",
        "a URL",
    ),
    "test_http_1_0_is_never_sent_an_interim_answer": ("*",),
    "test_what_routes_or_authorizes_is_nothing_in_a_trailer": (
        "Authorization",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "X-Auth-Subject",
        "Cookie",
    ),
    "test_a_path_reaches_the_upstream_as_it_was_sent_or_not_at_all": (
        "origin-'/a#b'",
        "origin-'/a#/../b'",
        "origin-'/a?b#c'",
        "absolute-'/a#b'",
        "absolute-'/a#/../b'",
        "absolute-'/a?b#c'",
    ),
}

# Uvicorn waits for ever, for a body as for a caller; how long its application may take is the application's to say.
_MIDDLEWARE_WAITS: Final = (
    "test_a_body_that_stops_coming_is_408",
    "test_a_caller_who_reads_nothing_of_its_answer_is_dropped",
    "test_an_upstream_that_never_answers_is_504",
)

EXPECTED: Final[dict[tuple[str, str, str], str]] = {
    **{("middleware", ENDS, case): UVICORN for case in _MIDDLEWARE},
    **{("middleware", test, case): UVICORN for test, cases in _MIDDLEWARE_ELSEWHERE.items() for case in cases},
    **{("middleware", test, "*"): UVICORN for test in _MIDDLEWARE_WAITS},
    # What is long is not sent byte by byte.
    **{("middleware", APART, case): UVICORN for case in _MIDDLEWARE if not case.startswith("head, ")},
}

SOMETIMES: Final[frozenset[tuple[str, str, str]]] = frozenset(
    ("middleware", APART, f"an offered upgrade with {framing}") for framing in ("chunks", "a length")
)
"""Lines whose tests may also pass: how the machine puts bytes into packets decides, and that is not ours to choose."""


def reason(front: str, test: str, case: str) -> str | None:
    """Why this test must fail for this front; None: it must pass."""
    return EXPECTED.get((front, test, case)) or EXPECTED.get((front, test, "*"))
