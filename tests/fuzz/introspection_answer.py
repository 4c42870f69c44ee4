"""Introspection answers: a token counts as active only where a second JSON reader sees `active: true` as well.

Whatever cannot be trusted is `Unavailable`; no other exception may leave the reader.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from protectedservice_server import introspection_response
from protectedservice_server.decision import INACTIVE, Facts
from protectedservice_server.question import Unavailable

SEEDS: Final = (
    b"",
    b'{"active": true}',
    b'{"active": false, "scope": 7}',
    b'{"active": 1}',
    b'{"active": "true"}',
    b'{"active": true, "scope": " read  write ", "client_id": "c", "sub": "s", "username": "u", "aud": ["a", "b"],'
    b' "iss": "i", "exp": 12, "nbf": 1.5, "extra": {"x": [1, null]}}',
    b'{"active": true, "active": false}',
    b'{"active": false, "active": true}',
    b'{"\\u0061ctive": true, "sub": "\\ud83d\\ude00\\n"}',
    b'{"active": true, "exp": 1e400}',
    b'{"active": true, "exp": 1' + b"0" * 400 + b"}",
    b'{"active": true, "sub": "\xff"}',
    b'{"active": true, "sub": "\\ud800"}',
    b'\xef\xbb\xbf{"active": true}',
    b'{"active": true} x',
    b"[[[[[[[[[[",
    b"<html>",
)
WORDS: Final = (
    b'"active"', b"true", b"false", b"null", b'"scope"', b'"exp"', b'"nbf"', b'"aud"', b'"iss"', b'"sub"',
    b'"client_id"', b'"username"', b"{", b"}", b"[", b"]", b":", b",", b"1e999", b"-0", b"NaN", b"\\u0000", b"\\ud800",
    b'"', b"\\", b"\x00", b"Infinity",
)  # fmt: skip

_TEXTS: Final = ("client_id", "sub", "username", "iss")


def check(data: bytes) -> None:
    """`data` is the body of a 200 answer."""
    try:
        facts = introspection_response.facts_of(data)
    except Unavailable:
        assert not _plainly_good(data), "a plain answer was not understood"
        return
    document = _second_reading(data)
    assert isinstance(document, dict), "no other reader sees an object"
    if not facts.active:
        assert facts == INACTIVE
        assert document["active"] is False
        return
    assert document["active"] is True, "let in without a JSON true"
    _compare(facts, document)


def _plainly_good(data: bytes) -> bool:
    return re.fullmatch(rb'[ \n]*\{"active": ?(true|false)(, ?"(sub|scope)": ?"[a-z ]*")?\}[ \n]*', data) is not None


def _compare(facts: Facts, document: dict[str, Any]) -> None:
    words = [word for word in (document.get("scope") or "").split(" ") if word]
    assert (facts.scope, facts.scopes) == (" ".join(words), frozenset(words))
    for name in _TEXTS:
        text = getattr(facts, name)
        assert text == document.get(name)
        assert text is None or text.encode("utf-8") is not None  # no lone surrogate: it could not be forwarded
    audience = document.get("aud")
    assert list(facts.aud) == ([] if audience is None else [audience] if isinstance(audience, str) else audience)
    for name in ("exp", "nbf"):
        seconds, said = getattr(facts, name), document.get(name)
        assert (seconds is None) == (said is None)
        if seconds is not None and said is not None:
            assert math.isfinite(seconds), "a time that never comes"
            assert seconds == float(said)


def _second_reading(data: bytes) -> Any:
    """The same bytes by the standard library, made as strict as RFC 8259."""
    return json.loads(data.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")
