"""An authorization server's introspection endpoint with a memory. It knows its tokens, and fails on request."""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_plus

from aiohttp import web

Answer = Callable[[web.Request], web.StreamResponse]


def plain(status: int, body: str | bytes, content_type: str = "application/json", **headers: str) -> Answer:
    """A scripted answer."""
    content = body if isinstance(body, bytes) else body.encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: web.Response(status=status, body=content, content_type=content_type, headers=named)


def cut_off(request: web.Request) -> web.StreamResponse:
    """Ends the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@dataclass
class IntrospectionServer:
    """Use as an asynchronous context manager. Real HTTP on a free port of this machine."""

    client_id: str = "orders"
    client_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    authentication: str = "client_secret_basic"
    """The one way to say who one is that it takes; `none`: it refuses whoever says anything."""
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Tokens asked about with good or bad credentials, in order."""
    accepted_encodings: list[str] = field(default_factory=list)
    """`Accept-Encoding` of each question."""
    under_way: int = 0
    most_under_way: int = 0
    scripted: deque[Answer] = field(default_factory=deque)
    """Answers given first, one a question, before the memory is asked."""
    always: Answer | None = None
    """The answer to everything while it is set."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: questions wait before they are looked at."""
    port: int = 0
    tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        self.open.set()
        application = web.Application()
        application.router.add_post("/introspect", self._introspect)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.tls)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/introspect"

    def issue(self, scope: str = "read", **members: Any) -> str:
        """A token that is active from now on, with these members in its answers."""
        token = secrets.token_urlsafe(32)
        self.tokens[token] = {"active": True, "scope": scope, "client_id": "caller", **members}
        return token

    def revoke(self, token: str) -> None:
        del self.tokens[token]

    async def _introspect(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        token = str(form["token"])
        self.asked.append(token)
        self.accepted_encodings.append(request.headers.get("Accept-Encoding", ""))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        if self.scripted:
            return self.scripted.popleft()(request)
        if self.always is not None:
            return self.always(request)
        if not self._is_client(request.headers.get("Authorization", ""), dict(form)):
            return web.Response(status=403)
        return web.json_response(self.tokens.get(token, {"active": False}))

    def _is_client(self, authorization: str, form: dict[str, Any]) -> bool:
        in_form = (form.get("client_id"), form.get("client_secret"))
        match self.authentication:
            case "none":
                return not authorization and in_form == (None, None)
            case "client_secret_post":
                return not authorization and in_form == (self.client_id, self.client_secret)
        if in_form != (None, None):
            return False
        scheme, _, value = authorization.partition(" ")
        client_id, _, secret = base64.b64decode(value).decode().partition(":")
        given = (unquote_plus(client_id), unquote_plus(secret))
        return scheme == "Basic" and given == (self.client_id, self.client_secret)
