"""Authorization headers: what is taken for a token is one, and nothing that is one is turned away."""

from __future__ import annotations

from typing import Final

from protectedservice_server import bearer
from protectedservice_server.decision import Reason

SEEDS: Final = (
    b"",
    b"Bearer abc",
    b"bEaReR  aZ09-._~+/==  ",
    b"\tBearer abc\t",
    b"Basic YTpi",
    b"Bearer\tabc",
    b"Bearer a b",
    b"Bearer =",
    b"Bearer abc\nBearer abc",
    b"Bearer \xc3\xa4",
    b"Bearer " + b"a" * bearer.LONGEST_TOKEN,
)
WORDS: Final = (b"Bearer ", b"bearer\t", b"=", b"==", b" ", b"\n", b"\x00", b",", b"~", b"Basic ", b"Bearer")

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/")


def check(data: bytes) -> None:
    """The lines of `data` are the values of all Authorization headers of a request; no data is no header."""
    values = data.split(b"\n")[:4] if data else []
    found = bearer.token_of(values)
    if not values:
        assert found is Reason.MISSING
    elif len(values) > 1:
        assert found is Reason.MALFORMED
    elif isinstance(found, Reason):
        assert found in (Reason.MISSING, Reason.MALFORMED), found
        assert not _plainly_good(values[0]), "a good token was turned away"
        scheme = values[0].strip(b" \t").split(b" ")[0].lower()
        assert found is Reason.MALFORMED or scheme != b"bearer", "a Bearer header was not seen"
    else:
        token = found.encode("ascii")
        assert _is_b64token(token), "not a token68 of RFC 6750 section 2.1"
        assert len(token) <= bearer.LONGEST_TOKEN
        scheme, between, rest = values[0].strip(b" \t").partition(b" ")
        assert scheme.lower() == b"bearer"
        assert between
        assert rest.replace(b" ", b"") == token, "the token is not what was sent"


def _is_b64token(token: bytes) -> bool:
    body = token.rstrip(b"=")
    return bool(body) and _LETTERS.issuperset(body)


def _plainly_good(value: bytes) -> bool:
    token = value[7:]
    return value[:7].lower() == b"bearer " and len(token) <= bearer.LONGEST_TOKEN and _is_b64token(token)
