"""Whether what is known of a token is enough for what a request needs. Pure.

Facts and verdicts are kept apart: facts come from the authorization server and may be remembered; the verdict is
worked out anew for each request, because time passes and requirements differ.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from .policy import Requirement, ScopeMatch


class Reason(StrEnum):
    """Why a request was let in or not. The values are the metric's label and never change."""

    # That of the text: Enum's own is computed in Python, and each request is counted by its reason.
    __hash__ = str.__hash__

    OK = "ok"
    OPEN = "open"  # the path needs no token: a rule says Public, or it is a demonstration route
    DENIED = "denied"  # a rule says Deny
    MISSING = "missing"  # no token was sent
    MALFORMED = "malformed"  # the Authorization header or the request itself cannot be read in one way only
    INACTIVE = "inactive"  # the authorization server says so: unknown, expired or revoked
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    SCOPE = "scope"
    AS_UNAVAILABLE = "as_unavailable"  # no answer that could be trusted
    AS_REFUSED_US = "as_refused_us"  # the server's own credentials are not accepted


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What an introspection answer says of a token (RFC 7662 section 2.2).

    A million of them are remembered, so each costs 100 bytes, and the garbage collector, which would stop the service
    for 100 ms, does not look at them: none can be part of a cycle.
    """

    active: bool
    scope: str = ""
    scopes: frozenset[str] = frozenset()
    client_id: str | None = None
    sub: str | None = None
    username: str | None = None
    aud: tuple[str, ...] = ()
    iss: str | None = None
    exp: float | None = None
    """Seconds since 1970, like nbf."""
    nbf: float | None = None


INACTIVE = Facts(active=False)


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What was decided about a request; `facts` are there iff `reason` is OK. `retry_after` is in seconds."""

    reason: Reason
    facts: Facts | None = None
    retry_after: int = 1


# Looked up once: what an enumeration's member costs to reach by its name is a tenth of this whole decision.
_OK: Final = Reason.OK
_ANY: Final = ScopeMatch.ANY


def decide(facts: Facts, requirement: Requirement, issuer: str | None, now: float) -> Reason:
    """`Reason.OK`, or the first of the reasons to refuse.

    `now` is the wall clock in seconds since 1970. No leeway is given: the authorization server has judged the times
    already, and this clock can only shorten what it granted. `issuer` is compared where both it and the answer's `iss`
    exist; an audience that is asked for and not answered is a refusal.
    """
    if not facts.active:
        return Reason.INACTIVE
    if facts.exp is not None and now >= facts.exp:
        return Reason.EXPIRED
    if facts.nbf is not None and now < facts.nbf:
        return Reason.NOT_YET_VALID
    if issuer is not None and facts.iss is not None and facts.iss != issuer:
        return Reason.ISSUER
    if requirement.audience is not None and requirement.audience not in facts.aud:
        return Reason.AUDIENCE
    held = facts.scopes
    if requirement.match is _ANY:
        enough = not held.isdisjoint(requirement.scopes)
    else:
        enough = held.issuperset(requirement.scopes)
    return _OK if enough else Reason.SCOPE
