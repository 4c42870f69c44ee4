"""The token out of the headers, and the answers of RFC 6750. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from .decision import Reason
from .policy import Requirement

LONGEST_TOKEN: Final = 16 * 1024
"""Bytes. Real tokens are below 4 KiB; what is longer only costs memory and a call."""

REALM: Final = "protectedservice"

# What nearly all callers send; the rest is looked at word by word.
_USUAL: Final = re.compile(rb"Bearer ([A-Za-z0-9\-._~+/]+=*)")
_B64TOKEN: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 section 2.1
_QUOTED: Final = re.compile(r'(["\\])')

Header = tuple[bytes, bytes]


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole answer of the server itself."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


def token_of(values: Sequence[bytes]) -> str | Reason:
    """The token in the values of all `Authorization` headers of a request, or `MISSING` or `MALFORMED`.

    Schemes compare without regard to case (RFC 9110 section 11.1). More than one header is malformed whatever they
    hold: which of them counts would be a guess.
    """
    if not values:
        return Reason.MISSING
    if len(values) > 1:
        return Reason.MALFORMED
    usual = _USUAL.fullmatch(values[0])
    if usual is not None and len(values[0]) <= LONGEST_TOKEN:
        return usual[1].decode("ascii")
    value = values[0].strip(b" \t")
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() != b"bearer":
        # A tab after the scheme is a Bearer header written wrongly, not another scheme.
        return Reason.MALFORMED if re.match(rb"bearer\s", value, re.IGNORECASE) else Reason.MISSING
    token = rest.strip(b" ")
    if len(token) > LONGEST_TOKEN or not _B64TOKEN.fullmatch(token):
        return Reason.MALFORMED
    return token.decode("ascii")


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    error: str
    description: str
    challenge: bool = True
    """Whether WWW-Authenticate is sent, and with what the error code is told."""


_REFUSALS: Final = {
    Reason.MISSING: _Refusal(401, "", "A bearer token is required"),
    Reason.MALFORMED: _Refusal(400, "invalid_request", "The Authorization header is malformed, repeated or too long"),
    Reason.INACTIVE: _Refusal(401, "invalid_token", "The access token is unknown, expired or revoked"),
    Reason.EXPIRED: _Refusal(401, "invalid_token", "The access token has expired"),
    Reason.NOT_YET_VALID: _Refusal(401, "invalid_token", "The access token is not valid yet"),
    Reason.ISSUER: _Refusal(401, "invalid_token", "The access token comes from another issuer"),
    Reason.AUDIENCE: _Refusal(401, "invalid_token", "The access token is not meant for this service"),
    Reason.SCOPE: _Refusal(403, "insufficient_scope", "The access token lacks a scope that this request needs"),
    # No challenge: no token would help.
    Reason.DENIED: _Refusal(403, "access_denied", "This service does not serve the request", False),
    # RFC 6749 section 4.1.2.1 has the word. Both outages look alike from outside: callers cannot help either.
    Reason.AS_UNAVAILABLE: _Refusal(
        503, "temporarily_unavailable", "The access token cannot be checked at the moment", False
    ),
    Reason.AS_REFUSED_US: _Refusal(
        503, "temporarily_unavailable", "The access token cannot be checked at the moment", False
    ),
}


def refuse(reason: Reason, requirement: Requirement, retry_after: int = 1) -> Answer:
    """The answer for `reason`. `retry_after` (seconds) is told where the fault is not the caller's."""
    refusal = _REFUSALS[reason]
    headers: list[Header] = []
    if refusal.challenge:
        headers.append(
            (b"www-authenticate", challenge(requirement, refusal.error, refusal.description).encode("ascii"))
        )
    if refusal.status == 503:
        headers.append((b"retry-after", str(retry_after).encode("ascii")))
    # Without a token there is no error code in the challenge (RFC 6750 section 3.1); the body still needs a word.
    return error(refusal.status, refusal.error or "unauthorized", refusal.description, *headers)


def error(status: int, code: str, description: str, *headers: Header) -> Answer:
    """An answer with a JSON body `{"error", "error_description"}` that no cache may keep."""
    body = json.dumps({"error": code, "error_description": description}).encode()
    return Answer(status, (*JSON_HEADERS, *headers), body)


JSON_HEADERS: Final[tuple[Header, ...]] = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


def challenge(requirement: Requirement, code: str = "", description: str = "") -> str:
    """The value of WWW-Authenticate (RFC 6750 section 3); without `code` neither it nor the description is in it."""
    parts = [("realm", REALM)]
    if code:
        parts += [("error", code), ("error_description", description)]
    parts.append(("scope", " ".join(requirement.scopes)))
    if requirement.resource_metadata is not None:
        parts.append(("resource_metadata", requirement.resource_metadata))
    return "Bearer " + ", ".join(f"{name}={_quoted(value)}" for name, value in parts)


def _quoted(value: str) -> str:
    escaped = _QUOTED.sub(r"\\\1", value)
    return f'"{escaped}"'
