"""The gate as middleware in an application of one's own, called as an ASGI server calls it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from protectedservice_server.asgi import FACTS, Gate, Message, Receive, Scope, Send
from protectedservice_server.decision import Facts
from protectedservice_server.faults import PolicyError

from ..support.introspection_server import IntrospectionServer
from .running import policy_text
from .server_process import credentials_folder


class OwnApplication:
    """Somebody's application: remembers what reached it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"own"})


@pytest.fixture
async def gate(server: IntrospectionServer, tmp_path: Path) -> AsyncIterator[Gate]:
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(server, demo=None))
    folder = credentials_folder(tmp_path / "credentials", server.client_id, server.client_secret)
    made = Gate(OwnApplication(), policy=policy, credentials=str(folder))
    yield made
    await made.close()


async def call(gate: Gate, scope: dict[str, Any]) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await gate(scope, receive, send)
    return sent


def http(path: str, token: str | None = None, **more: Any) -> dict[str, Any]:
    headers = [] if token is None else [(b"Authorization", f"Bearer {token}".encode())]
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, **more}


def application_of(gate: Gate) -> OwnApplication:
    inner = gate._app
    assert isinstance(inner, OwnApplication)
    return inner


async def test_the_application_gets_good_requests_with_the_facts(gate: Gate, server: IntrospectionServer) -> None:
    sent = await call(gate, http("/orders", server.issue(sub="alice")))
    facts = application_of(gate).scopes[0][FACTS]

    assert sent[0]["status"] == 200
    assert isinstance(facts, Facts)
    assert (facts.client_id, facts.sub, facts.scopes) == ("caller", "alice", frozenset({"read"}))


@pytest.mark.parametrize("path", ["/", "/public", "/health", "/docs"])
async def test_no_path_is_open_in_front_of_an_application(gate: Gate, path: str) -> None:
    sent = await call(gate, http(path))

    assert sent[0]["status"] == 401
    assert application_of(gate).scopes == []


async def test_facts_that_somebody_else_put_into_the_scope_do_not_count(gate: Gate) -> None:
    sent = await call(gate, {**http("/"), FACTS: Facts(active=True)})

    assert sent[0]["status"] == 401


async def test_a_server_without_raw_path_is_served_by_what_it_decoded(gate: Gate, server: IntrospectionServer) -> None:
    token = server.issue()

    assert (await call(gate, http("/orders", token)))[0]["status"] == 200
    assert (await call(gate, http("/a/../b", token)))[0]["status"] == 400
    assert (await call(gate, http("/x", token, raw_path=b"/a%2fb")))[0]["status"] == 400


async def test_websockets_are_refused(gate: Gate) -> None:
    sent = await call(gate, {"type": "websocket", "path": "/", "headers": []})

    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert application_of(gate).scopes == []


async def test_an_unknown_kind_of_scope_is_an_error_and_not_a_way_in(gate: Gate) -> None:
    with pytest.raises(RuntimeError, match="webtransport"):
        await call(gate, {"type": "webtransport"})

    assert application_of(gate).scopes == []


async def test_the_lifespan_passes_and_closes_the_connections(gate: Gate, server: IntrospectionServer) -> None:
    await call(gate, http("/orders", server.issue()))
    held = gate._introspection.pool.open
    sent = await call(gate, {"type": "lifespan"})

    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert held == 1
    assert gate._introspection.pool.open == 0


# The ended loops leave their connections to the garbage collector: nothing can be closed in them any more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_each_request_may_run_in_a_loop_of_its_own_as_in_test_clients(
    gate: Gate, server: IntrospectionServer
) -> None:
    hanging, statuses = server.issue(), []
    server.open.clear()
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(asyncio.run, asyncio.wait_for(call(gate, http("/orders", hanging)), 0.05))
    server.open.set()
    for token in (hanging, server.issue()):
        sent = await asyncio.to_thread(asyncio.run, asyncio.wait_for(call(gate, http("/orders", token)), 10))
        statuses.append(sent[0]["status"])
    await gate.close()
    gc.collect()

    assert statuses == [200, 200]


async def test_a_policy_with_a_backend_is_refused(server: IntrospectionServer, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(policy_text(server))

    with pytest.raises(PolicyError, match="demo: unknown key"):
        Gate(OwnApplication(), policy=policy, credentials=tmp_path)
