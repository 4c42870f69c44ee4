"""The middleware in a real application: Starlette, served by uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from protectedservice_server.asgi import FACTS, Gate
from protectedservice_server.decision import Facts

from ..support.introspection_server import IntrospectionServer
from .running import policy_text
from .server_process import credentials_folder
from .wire import ask


async def orders(request: Request) -> JSONResponse:
    facts: Facts = request.scope[FACTS]
    body = await request.body()
    return JSONResponse({"client_id": facts.client_id, "sub": facts.sub, "body": body.decode()})


@pytest.fixture
async def port(server: IntrospectionServer, tmp_path: Path) -> AsyncIterator[int]:
    """The port of the application."""
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(server, demo=None))
    folder = credentials_folder(tmp_path / "credentials", server.client_id, server.client_secret)
    application = Starlette(
        routes=[Route("/orders", orders, methods=["GET", "POST"])],
        middleware=[Middleware(Gate, policy=policy, credentials=folder)],
    )
    running = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, lifespan="on"))
    task = asyncio.create_task(running.serve())
    async with asyncio.timeout(10):
        while not running.started:  # noqa: ASYNC110 uvicorn has no event for it
            await asyncio.sleep(0)
    yield running.servers[0].sockets[0].getsockname()[1]
    running.should_exit = True
    await task


async def test_the_application_serves_holders_of_a_good_token_and_knows_them(
    server: IntrospectionServer, port: int
) -> None:
    token = server.issue(sub="alice")
    without = await ask(port, "/orders")
    good = await ask(port, "/orders", method="POST", token=token, body=b"two")
    lacking = await ask(port, "/orders", token=server.issue("write"))
    unknown = await ask(port, "/orders", token="unknown")

    assert [answer.status for answer in (without, good, lacking, unknown)] == [401, 200, 403, 401]
    assert good.json() == {"client_id": "caller", "sub": "alice", "body": "two"}
    assert without.value("www-authenticate") == 'Bearer realm="protectedservice", scope="read"'


async def test_neither_its_own_404_nor_its_docs_are_seen_without_a_token(
    server: IntrospectionServer, port: int
) -> None:
    assert (await ask(port, "/nowhere")).status == 401
    assert (await ask(port, "/nowhere", token=server.issue())).status == 404
