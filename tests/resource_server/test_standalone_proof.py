"""401, 200, 401 with the two real programs side by side, on one machine, without Kubernetes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx

from ..support.authorization_server_process import AuthorizationServerProcess
from ..support.echo_upstream import EchoUpstream
from .running import behind
from .server_process import credentials_folder, started
from .wire import ask

AUDIENCE = "https://orders.example"


def register(server: AuthorizationServerProcess, scope: str) -> dict[str, Any]:
    """A client of its own (RFC 7591)."""
    answer = httpx.post(
        f"{server.url}/oauth/register",
        headers={"Authorization": f"Bearer {server.initial_access_token}"},
        json={
            "client_name": "orders",
            "grant_types": ["client_credentials"],
            "response_types": [],
            "redirect_uris": [],
            "token_endpoint_auth_method": "client_secret_basic",
            "scope": scope,
            "audience": [AUDIENCE],
        },
    )
    assert answer.status_code == 201, answer.text
    registered: dict[str, Any] = answer.json()
    return registered


def mint(server: AuthorizationServerProcess, client: dict[str, Any], scope: str, *, audience: bool = True) -> str:
    answer = httpx.post(
        f"{server.url}/oauth/token",
        auth=(client["client_id"], client["client_secret"]),
        data={"grant_type": "client_credentials", "scope": scope, **({"resource": AUDIENCE} if audience else {})},
    )
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


def revoke(server: AuthorizationServerProcess, client: dict[str, Any], token: str) -> None:
    answer = httpx.post(
        f"{server.url}/oauth/revoke", auth=(client["client_id"], client["client_secret"]), data={"token": token}
    )
    assert answer.status_code == 200, answer.text


async def test_only_holders_of_a_good_token_reach_the_upstream_until_it_is_revoked(tmp_path: Path) -> None:
    with AuthorizationServerProcess(tmp_path) as server:
        client = register(server, "read write")
        token = mint(server, client, "read")
        async with EchoUpstream() as upstream:
            policy = tmp_path / "policy.yaml"
            policy.write_text(
                json.dumps(
                    {
                        "scopes": ["read"],
                        "audience": AUDIENCE,
                        "validation": {"maxRevocationDelay": "0s", "timeout": "10s"},
                        "authorizationServers": [
                            {
                                "issuer": server.issuer,
                                "allowInsecureHTTP": True,
                                "endpoints": {"introspection": f"{server.url}/oauth/introspect"},
                            }
                        ],
                        "upstream": behind(upstream.url)["upstream"],
                    }
                )
            )
            folder = credentials_folder(tmp_path / "credentials", client["client_id"], client["client_secret"])
            with started(policy, folder) as process:
                without = await ask(process.port, "/orders")
                good = await ask(process.port, "/orders", token=token)
                lacking = await ask(process.port, "/orders", token=mint(server, client, "write"))
                aimless = await ask(process.port, "/orders", token=mint(server, client, "read", audience=False))
                registration = await ask(process.port, "/orders", token=client["registration_access_token"])
                revoke(server, client, token)
                revoked = await ask(process.port, "/orders", token=token)
                server.stop()
                outage = await ask(process.port, "/orders", token=token)
                process.process.terminate()
                status, log = await asyncio.to_thread(process.ended)

    assert (without.status, good.status, revoked.status) == (401, 200, 401)
    assert (lacking.status, aimless.status, registration.status) == (403, 401, 401)
    assert outage.status == 503
    assert status == 0
    assert [seen.values("x-auth-client-id") for seen in upstream.seen] == [[client["client_id"]]]
    secrets = [token, client["client_secret"], client["registration_access_token"]]
    assert not [secret for secret in secrets if secret in log or secret in repr(upstream.seen)]
