"""What the server answers itself when there is no upstream (`demo: true`). Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from .bearer import JSON_HEADERS, Answer, error
from .decision import Facts
from .policy import DEMO_PROTECTED_PATH, Access, Requirement

_OPEN: Final[dict[str, dict[str, object]]] = {
    "/public": {"ok": True, "protected": False},
    "/health": {"status": "alive"},
    "/ready": {"status": "ready"},
}
_PATHS: Final = frozenset({DEMO_PROTECTED_PATH, *_OPEN})
_METHODS: Final = frozenset({"GET", "HEAD"})


class _Told(msgspec.Struct, gc=False):
    """What a caller is told of its token."""

    ok: bool
    protected: bool
    required_scope: str
    client_id: str | None
    sub: str | None
    scope: str
    exp: int | None


def demonstration(method: str, path: str, need: Requirement | Access, facts: Facts | None) -> Answer:
    """`/public`, `/health` and `/ready` for everybody; `/protected` tells the caller what its token says.

    The answer to a request that was let in; `facts` about its token, where the path needs one.
    """
    if path == DEMO_PROTECTED_PATH and type(need) is Requirement and method in _METHODS:
        # Nobody is let through to here without facts; if somebody were, this must fail, not answer.
        if facts is None:
            raise LookupError("a protected path was reached without a token")
        exp = facts.exp if facts.exp is None else int(facts.exp)
        told = _Told(True, True, " ".join(need.scopes), facts.client_id, facts.sub, facts.scope, exp)
        return Answer(200, JSON_HEADERS, _encode(told))
    if path not in _PATHS:
        return error(404, "not_found", "The demonstration has /public, /protected, /health and /ready")
    if method not in _METHODS:
        return error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
    return Answer(200, JSON_HEADERS, _encode(_OPEN.get(path, _OPEN["/public"])))  # or a rule says Public


_encode: Final = msgspec.json.Encoder().encode
