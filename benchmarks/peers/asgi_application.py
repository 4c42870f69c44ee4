"""The ASGI way: our gate as middleware in front of an application of one's own."""

from __future__ import annotations

import json
import os

from protectedservice_server.asgi import FACTS, Gate, Receive, Scope, Send


async def protected(scope: Scope, receive: Receive, send: Send) -> None:
    """What the demonstration answers, written from the facts as an application would."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    facts = scope[FACTS]
    document = {
        "ok": True,
        "protected": True,
        "required_scope": "read",
        "client_id": facts.client_id,
        "sub": facts.sub,
        "scope": facts.scope,
        "exp": int(facts.exp),
    }
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


application = Gate(protected, policy=os.environ["POLICY"], credentials=os.environ["CREDENTIALS"])
