"""What the server answers itself when there is no upstream (`demo: true`), as an ASGI application behind the gate."""

from __future__ import annotations

import json
from typing import Final

from .asgi import FACTS, Receive, Scope, Send, respond
from .bearer import JSON_HEADERS, Answer, error
from .decision import Facts
from .policy import DEMO_PROTECTED_PATH, Policy, Requirement

_STATUS: Final = {"/health": "alive", "/ready": "ready"}


class Demonstration:
    """`/public`, `/health` and `/ready` for everybody; `/protected` tells the caller what its token says."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, send, self._answer(scope))

    def _answer(self, scope: Scope) -> Answer:
        path = scope["path"]
        if path not in ("/public", DEMO_PROTECTED_PATH, *_STATUS):
            return error(404, "not_found", "The demonstration has /public, /protected, /health and /ready")
        if scope["method"] not in ("GET", "HEAD"):
            return error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
        if path in _STATUS:
            return _json({"status": _STATUS[path]})
        if path == "/public":
            return _json({"ok": True, "protected": False})
        need = self._policy.requirement_for(scope["method"], path)
        if not isinstance(need, Requirement):  # a rule says Public
            return _json({"ok": True, "protected": False})
        # The gate lets nobody through to here without facts; if it did, this must fail, not answer.
        facts: Facts = scope[FACTS]
        return _json(
            {
                "ok": True,
                "protected": True,
                "required_scope": " ".join(need.scopes),
                "client_id": facts.client_id,
                "sub": facts.sub,
                "scope": facts.scope,
                "exp": facts.exp if facts.exp is None else int(facts.exp),
            }
        )


def _json(document: dict[str, object]) -> Answer:
    return Answer(200, JSON_HEADERS, json.dumps(document).encode())
