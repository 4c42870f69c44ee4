"""What the server answers itself when there is no upstream (`demo: true`). Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from .bearer import JSON_HEADERS, Answer, error
from .decision import Facts
from .policy import DEMO_PROTECTED_PATH, Policy

_STATUS: Final = {"/health": "alive", "/ready": "ready"}


class Demonstration:
    """`/public`, `/health` and `/ready` for everybody; `/protected` tells the caller what its token says."""

    def __init__(self, policy: Policy) -> None:
        self._scopes = " ".join(policy.requirement.scopes)

    def answer(self, method: str, path: str, facts: Facts | None) -> Answer:
        """The answer to a request that was let in; `facts` about its token, where the path needs one."""
        if path not in ("/public", DEMO_PROTECTED_PATH, *_STATUS):
            return error(404, "not_found", "The demonstration has /public, /protected, /health and /ready")
        if method not in ("GET", "HEAD"):
            return error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
        if path in _STATUS:
            return _json({"status": _STATUS[path]})
        if path == "/public":
            return _json({"ok": True, "protected": False})
        # Nobody is let through to here without facts; if somebody were, this must fail, not answer.
        if facts is None:
            raise LookupError("a protected path was reached without a token")
        return _json(
            {
                "ok": True,
                "protected": True,
                "required_scope": self._scopes,
                "client_id": facts.client_id,
                "sub": facts.sub,
                "scope": facts.scope,
                "exp": facts.exp if facts.exp is None else int(facts.exp),
            }
        )


_encode: Final = msgspec.json.Encoder().encode


def _json(document: dict[str, object]) -> Answer:
    return Answer(200, JSON_HEADERS, _encode(document))
