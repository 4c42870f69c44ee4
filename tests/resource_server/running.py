"""The service on a real port of this machine, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from protectedservice_server import policy_file
from protectedservice_server.credentials import Credentials
from protectedservice_server.http1.limits import Limits
from protectedservice_server.http1.server import HttpServer
from protectedservice_server.http1.ticker import Ticker
from protectedservice_server.introspection import Introspection
from protectedservice_server.metrics import Metrics
from protectedservice_server.service import Service

from ..support.introspection_server import IntrospectionServer


@dataclass
class Running:
    """A service under test."""

    port: int
    metrics: Metrics
    reread: list[Credentials]
    """What the next readings of the credentials folder bring; the last one stays."""
    front: HttpServer
    forget: Callable[[str], None]

    def metric(self, name: str, **labels: str) -> float:
        """One sample out of the exposition, 0 where there is none."""
        families = text_string_to_metric_families(self.metrics.exposition().decode())
        samples = [s for family in families for s in family.samples if s.name == name and s.labels == labels]
        return samples[0].value if samples else 0.0


def policy_text(server: IntrospectionServer, **changes: Any) -> str:
    """A policy in front of the demonstration, with these fields changed; None takes one out."""
    document: dict[str, Any] = {
        "scopes": ["read"],
        "demo": True,
        "authorizationServers": [
            {"issuer": "http://as.test", "allowInsecureHTTP": True, "endpoints": {"introspection": server.url}}
        ],
        **changes,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None})


@asynccontextmanager
async def service(
    server: IntrospectionServer, *, limits: Limits | None = None, tls: ssl.SSLContext | None = None, **changes: Any
) -> AsyncIterator[Running]:
    """The service with the policy of `policy_text`, until the block ends."""
    policy = policy_file.parse(policy_text(server, **changes))
    held = Credentials(server.client_id, server.client_secret)
    reread = [held]
    metrics = Metrics()
    introspection = Introspection(policy, held, lambda: reread.pop(0) if len(reread) > 1 else reread[0])
    ticker = Ticker()
    handler = Service(policy, introspection, metrics, ticker)
    front = HttpServer(handler, ticker=ticker, limits=limits, refused=handler.refused, tls=tls)
    metrics.watch_connections(lambda: front.open, lambda: front.busy)
    metrics.watch_load(lambda: front.overloads, lambda: front.backlog.bytes)
    listening = socket.create_server(("127.0.0.1", 0))
    await front.start(listening)
    try:
        yield Running(listening.getsockname()[1], metrics, reread, front, handler.forget)
    finally:
        front.close()
        await handler.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 what it waits for is another's state, which has no event
            await asyncio.sleep(0)


def behind(url: str, **more: Any) -> dict[str, Any]:
    """Changes of a policy: an upstream of this machine instead of the demonstration."""
    return {"demo": None, "upstream": {"url": url, "allowLoopback": True, **more}}
