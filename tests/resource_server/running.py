"""The service on a real port of this machine, in the test's own event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from uvicorn.server import ServerState

from protectedservice_server import policy_file
from protectedservice_server.application import Application
from protectedservice_server.credentials import Credentials
from protectedservice_server.http_front import BoundedProtocol, http_server
from protectedservice_server.introspection import Introspection
from protectedservice_server.metrics import Metrics

from ..support.introspection_server import IntrospectionServer


@dataclass
class Service:
    """A service under test."""

    port: int
    metrics: Metrics
    reread: list[Credentials]
    """What the next readings of the credentials folder bring; the last one stays."""
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
async def service(server: IntrospectionServer, **changes: Any) -> AsyncIterator[Service]:
    """The service with the policy of `policy_text`, until the block ends."""
    policy = policy_file.parse(policy_text(server, **changes))
    held = Credentials(server.client_id, server.client_secret)
    reread = [held]
    metrics = Metrics()
    introspection = Introspection(policy, held, lambda: reread.pop(0) if len(reread) > 1 else reread[0])
    application = Application(policy, introspection, metrics)
    # The front as the process has it, but without uvicorn's loop around it: its ending takes 0.2 s in each test.
    config = http_server(application, 5).config
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: BoundedProtocol(config, state, {}, loop), "127.0.0.1", 0)
    try:
        yield Service(listening.sockets[0].getsockname()[1], metrics, reread, application.forget)
    finally:
        listening.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await application.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 what it waits for is another's state, which has no event
            await asyncio.sleep(0)


def behind(url: str, **more: Any) -> dict[str, Any]:
    """Changes of a policy: an upstream of this machine instead of the demonstration."""
    return {"demo": None, "upstream": {"url": url, "allowLoopback": True, **more}}
