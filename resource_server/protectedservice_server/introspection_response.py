"""What an introspection response means (RFC 7662 section 2.2). Pure.

Everything that is not a clear answer is `Unavailable`: an outage is never an answer about a token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from .bearer import Header
from .decision import INACTIVE, Facts
from .question import Learnt, RefusedUs, Unavailable

LONGEST_RETRY_AFTER: Final = 300.0
"""Seconds that are passed on to callers at most."""

_DIGITS: Final = re.compile(rb"[0-9]{1,9}")

# RFC 7009 and 6750 name them; oidc-provider answers the first to anything that looks like a JWT it did not make.
_BLAMES_TOKEN: Final = frozenset({"unsupported_token_type", "invalid_token"})


def _retry_after(headers: Sequence[Header]) -> float | None:
    """Seconds; None for a date too: clocks differ, and the breaker has waits of its own."""
    values = [value.strip() for name, value in headers if name == b"retry-after"]
    if len(values) != 1 or not _DIGITS.fullmatch(values[0]):
        return None
    return min(float(values[0]), LONGEST_RETRY_AFTER)


class Response(Protocol):
    """A whole answer."""

    status: int
    content: bytes

    @property
    def headers(self) -> Sequence[Header]:
        """The names are lower case."""


def learnt(response: Response) -> Learnt:
    """What an answer means.

    Raises:
        Unavailable: nothing about the token.
    """
    status = response.status
    if status == 200:
        return Learnt(facts_of(response.content))
    if status in (401, 403):  # django-oauth-toolkit has 403 for what others call 401
        raise RefusedUs
    retry_after = _retry_after(response.headers)
    if status == 400:
        code, description = _oauth_error(response.content)
        if code in _BLAMES_TOKEN or (code == "invalid_request" and _blames_token(description)):
            return Learnt(INACTIVE, blames_token=True)
        if code in ("invalid_client", "unauthorized_client"):
            raise RefusedUs
        if code:
            # Our question is always well-formed: whatever is wrong came with the token, which anybody may send.
            raise Unavailable("status_4xx", retry_after, counts=False)
    raise Unavailable(f"status_{status // 100}xx", retry_after)


def _blames_token(description: str) -> bool:
    """Whether an `invalid_request` speaks of the token that was sent, not of a parameter that was not found."""
    words = set(re.findall(r"[a-z]+", description.lower()))
    return "token" in words and not words & {"missing", "required", "client"}


def _oauth_error(body: bytes) -> tuple[str, str]:
    document = _json(body)
    if not isinstance(document, dict):
        return "", ""
    code, description = document.get("error"), document.get("error_description")
    return (code if isinstance(code, str) else ""), (description if isinstance(description, str) else "")


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


class _Response(msgspec.Struct, gc=False):
    """The members that count, as they usually are."""

    active: bool
    scope: str | None = None
    client_id: str | None = None
    sub: str | None = None
    username: str | None = None
    aud: str | list[str] | None = None
    iss: str | None = None
    exp: int | float | None = None
    nbf: int | float | None = None


_read: Final = msgspec.json.Decoder(_Response).decode


def facts_of(body: bytes) -> Facts:
    """The facts in the body of a 200 answer.

    Raises:
        Unavailable: no JSON object, `active` absent or not a boolean, or a member of a wrong type.
    """
    try:
        response = _read(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        response = None
    if response is None or not body.isascii():  # members that do not count are not decoded, and could be no text
        response = _looked_at(body)
    if not response.active:
        return INACTIVE
    scope, scopes = _scopes(response.scope or "")
    aud = response.aud
    exp, nbf = response.exp, response.nbf
    try:
        return Facts(
            True,
            scope,
            scopes,
            _shared(response.client_id),
            response.sub,
            response.username,
            () if aud is None else _shared_audiences((aud,) if isinstance(aud, str) else tuple(aud)),
            _shared(response.iss),
            None if exp is None else float(exp),
            None if nbf is None else float(nbf),
        )
    except OverflowError:
        raise Unavailable("malformed", counts=False) from None  # about this token alone


def _looked_at(body: bytes) -> _Response:
    """The same member by member, to tell what is wrong. Of an inactive token nothing else counts.

    Raises:
        Unavailable: see `facts_of`.
    """
    document = _json(body)
    if not isinstance(document, dict):
        raise Unavailable("not_json")
    active = document.get("active")
    if not isinstance(active, bool):
        raise Unavailable("active_absent")
    if not active:
        return _Response(False)
    try:
        return msgspec.convert(document, _Response)
    except msgspec.ValidationError:
        raise Unavailable("malformed", counts=False) from None  # about this token alone


@lru_cache(maxsize=1024)
def _shared(text: str | None) -> str | None:
    """The same text as one object: thousands of remembered tokens have few different clients and issuers."""
    return text


@lru_cache(maxsize=1024)
def _scopes(text: str) -> tuple[str, frozenset[str]]:
    """The scopes in order, and as a set. Shared: thousands of remembered tokens have few different ones."""
    words = [word for word in text.split(" ") if word]
    return " ".join(words), frozenset(words)


@lru_cache(maxsize=1024)
def _shared_audiences(audiences: tuple[str, ...]) -> tuple[str, ...]:
    return audiences
