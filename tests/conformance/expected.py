"""What a front end does not keep, with the reason: the one table of expected failures.

A line is (front, test, case) -> reason; the case is the id in the test's brackets without the front, "*" for all of
them. Such a test must fail (xfail, strict): when the front learns to keep the rule, the line has to go.
"""

from __future__ import annotations

from typing import Final

UVICORN: Final = "the embedding application's own server decides this, and uvicorn lets it through"

FRONT: Final = "today's front (docs/promises.md, Not yet); the one in http1/ must keep it"
PARSER: Final = "llhttp takes other protocols' names for HTTP, and httptools does not tell which one stood there"

ENDS: Final = "test_a_request_ends_where_every_reader_sees_its_end"
AGREES: Final = "test_a_real_upstream_agrees_where_each_request_ends"
APART: Final = "test_the_same_holds_when_each_byte_comes_in_a_packet_of_its_own"

_OWN: Final = {
    "chunk size, an extension": f"extensions are ignored: {FRONT}",
    "chunk size, an extension without a value": f"extensions are ignored: {FRONT}",
    "chunk end, the last chunk has an extension": f"extensions are ignored: {FRONT}",
    "CL, spaces around": f"answered 500: {FRONT}",
    "CL, a tab after": f"answered 500: {FRONT}",
    "request line, a fragment": f"forwarded without it: {FRONT}",
    "request line, CONNECT of a path": f"forwarded: {FRONT}",
    "request line, another protocol": PARSER,
    "request line, ICE": PARSER,
}
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

EXPECTED: Final[dict[tuple[str, str, str], str]] = {
    **{("own", test, case): why for test in (ENDS, APART) for case, why in _OWN.items()},
    **{(kind, AGREES, case): why for kind in ("nginx", "node") for case, why in _OWN.items()},
    **{("middleware", ENDS, case): UVICORN for case in _MIDDLEWARE},
    # What is long is not sent byte by byte.
    **{("middleware", APART, case): UVICORN for case in _MIDDLEWARE if not case.startswith("head, ")},
}


def reason(front: str, test: str, case: str) -> str | None:
    """Why this test must fail for this front; None: it must pass."""
    return EXPECTED.get((front, test, case)) or EXPECTED.get((front, test, "*"))
