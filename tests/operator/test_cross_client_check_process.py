"""The cross-client check against django-oauth-toolkit as quickstart runs it."""

from __future__ import annotations

from pathlib import Path

import httpx

from ..support.authorization_server_process import AuthorizationServerProcess
from ..support.objects import protected_service
from ..support.world import World


async def test_django_oauth_toolkit_tells_one_client_about_anothers_token(tmp_path: Path) -> None:
    with AuthorizationServerProcess(tmp_path) as process:
        world = World(
            spec={
                "issuer": process.issuer,
                "allowInsecureHTTP": True,
                "registration": {
                    "dynamicClientRegistration": {"idempotencyKey": "Honoured"},
                    "credentialsSecret": {"name": "authorization-server-registration"},
                },
                "credential": {"token": process.initial_access_token},
            },
            settings={"cross_client_check": True},
        )
        world.pod_answers = lambda _: httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="test"'})
        world.add(protected_service("orders"))
        await world.later(62.0)
        await world.servers.aclose()

    assert world.server_condition("CrossClientIntrospection") == ("True", "Introspected")
    (entry,) = world.ledgers()
    assert entry.record.owner_kind == "ProtectedService"
    gone = [message for reason, message in world.events() if reason == "ClientDeleted"]
    assert len(gone) == 1
