"""Somebody's application behind `Gate`, under uvicorn: python -m tests.conformance.embedded POLICY CREDENTIALS RECORD.

It writes down what reached it, one request a line, and says its port in the first line of its output.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from pathlib import Path

import uvicorn

from protectedservice_server.asgi import Gate, Message, Receive, Scope, Send

from .upstreams import Recorder


class Recording:
    """The application. The path chooses the behaviour, as at `upstreams.Recorder`."""

    def __init__(self, record: Path) -> None:
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        text = f"{scope['method']} {path} "
        if path.startswith("/early"):
            self._remember(scope, b"")
            await _answer(send, f"{text}early\n".encode())
            return
        body, more = b"", True
        while more:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                return  # given up: nothing that counts as a request
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self._remember(scope, body)
        if path.startswith("/silent"):
            while (await receive())["type"] != "http.disconnect":
                pass
        elif path.startswith("/big"):
            await _big(send)
        else:
            await _answer(send, f"{text}{len(body)}\n".encode())

    def _remember(self, scope: Scope, body: bytes) -> None:
        query = scope["query_string"].decode("latin-1")
        target = scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        fields = [(name.decode().lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        record = {"method": scope["method"], "target": target, "body": body.decode("latin-1"), "fields": fields}
        with self._record.open("a") as file:
            file.write(json.dumps(record) + "\n")


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _big(send: Send) -> None:
    headers = [(b"content-length", str(Recorder.BIG).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    piece = bytes(1024 * 1024)
    for number in range(Recorder.BIG // len(piece)):
        last = (number + 1) * len(piece) == Recorder.BIG
        await send({"type": "http.response.body", "body": piece, "more_body": not last})


def main() -> None:
    policy, credentials, record = map(Path, sys.argv[1:])
    gate = Gate(Recording(record), policy=policy, credentials=credentials)
    listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(gate, http="httptools", ws="none", lifespan="off", log_config=None)
    asyncio.run(uvicorn.Server(config).serve([listening]))


if __name__ == "__main__":
    main()
