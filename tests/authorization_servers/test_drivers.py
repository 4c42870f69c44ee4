"""The same driver flow, against real servers: register, mint, introspect, revoke, update, probe, delete."""

from __future__ import annotations

import base64
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from protectedservice_operator.authorization_server import AuthorizationServer, Endpoints
from protectedservice_operator.registration.credential import Credential
from protectedservice_operator.registration.discovery import discover
from protectedservice_operator.registration.driver import (
    ClientGone,
    ClientMetadata,
    ClientState,
    Driver,
    HandleRefused,
    Registration,
)
from protectedservice_operator.registration.kinds import (
    admin_api_exposed,
    make_driver,
    make_token_endpoint,
    required_endpoints,
)
from protectedservice_operator.registration.names import client_id, client_name, tag
from protectedservice_operator.registration.remote import Remote
from protectedservice_operator.registration.token import TokenEndpoint, TokenRefused
from protectedservice_server import policy
from protectedservice_server.credentials import Credentials
from protectedservice_server.decision import Facts
from protectedservice_server.introspection import Introspection
from protectedservice_server.policy import ClientAuthentication

from ..operator.registration.told import assert_untold, log_of
from ..support.asking import ask
from ..support.keycloak_process import KeycloakProcess
from ..support.objects import authorization_server
from .conftest import Real

pytestmark = pytest.mark.slow

AUDIENCE = "https://orders.example"
TAG = tag("cluster", "shop", "orders", "00000000-0000-0000-0000-000000000001", "0a1b2c3d")
METADATA = ClientMetadata(client_name("Orders", TAG), ("read", "write"), audiences=(AUDIENCE,), tag=TAG)


@dataclass
class Talk:
    """One connection to a real server, as the operator makes it."""

    real: Real
    server: AuthorizationServer
    endpoints: Endpoints
    driver: Driver
    tokens: TokenEndpoint

    def chosen(self, attempt: str) -> Registration | None:
        if not self.driver.capabilities.caller_chosen_id:
            return None
        return Registration(client_id("uid", attempt), f"secret-{attempt}-with-odd-characters-+%&:/ ")

    def count(self) -> int:
        assert self.real.client_ids is not None
        return len(self.real.client_ids())


@pytest.fixture
async def talk(real: Real) -> AsyncIterator[Talk]:
    body = authorization_server(**real.spec)
    body["metadata"] |= {"uid": "uid-of-the-server", "resourceVersion": "1", "generation": 1}
    server = AuthorizationServer.parse(body)
    data = {key: base64.b64encode(value.encode()).decode() for key, value in real.credential.items()}
    remote = Remote(f"AuthorizationServer {server.reference}")
    endpoints = await discover(
        remote,
        server.issuer,
        server.endpoints,
        allow_insecure_http=server.allow_insecure_http,
        required=required_endpoints(server),
    )
    driver = make_driver(server, remote, endpoints, Credential.of({"data": data}))
    yield Talk(real, server, endpoints, driver, make_token_endpoint(server, remote, endpoints))
    await remote.aclose()


async def test_a_client_lives_from_registration_to_deletion(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = await talk.driver.register(METADATA, "life-1", talk.chosen("life-1"))
    credentials = (client.client_id, client.client_secret)

    token = await talk.tokens.mint(*credentials, ("read",), AUDIENCE)
    assert await talk.tokens.introspect(*credentials, token.value) is True
    assert await talk.tokens.revoke(*credentials, token.value) is True
    assert await talk.tokens.introspect(*credentials, token.value) is False
    assert await talk.tokens.probe(*credentials) is ClientState.ALIVE

    fewer = replace(METADATA, scopes=("write",), audiences=("https://other.example",))
    changed = await talk.driver.update(client, fewer, "life-2")
    with pytest.raises(TokenRefused, match="invalid_scope"):
        await talk.tokens.mint(*credentials, ("read",))
    token = await talk.tokens.mint(*credentials, ("write",), "https://other.example")
    assert await talk.tokens.introspect(*credentials, token.value) is True

    await talk.driver.delete(changed)
    assert await talk.tokens.probe(*credentials) is ClientState.REFUSED
    if talk.driver.capabilities.caller_chosen_id:
        await talk.driver.delete(changed)
        with pytest.raises(ClientGone):
            await talk.driver.update(changed, METADATA, "life-3")
    else:
        with pytest.raises(HandleRefused):
            await talk.driver.delete(changed)

    public = {"client_id", "username"}
    secrets = [client.client_secret, token.value]
    secrets += [value for name, value in talk.real.credential.items() if name not in public]
    secrets += [one.registration_access_token for one in (client, changed) if one.registration_access_token]
    assert_untold(secrets, log_of(caplog), repr(client), repr(changed), repr(token))


async def test_the_audience_of_a_token_is_the_service_s(talk: Talk) -> None:
    client = await talk.driver.register(METADATA, "audience", talk.chosen("audience"))
    token = await talk.tokens.mint(client.client_id, client.client_secret, ("read",), AUDIENCE)
    method = ClientAuthentication(talk.server.introspection_authentication)
    facts = await introspection(str(talk.endpoints.introspection), method, client, token.value)
    await talk.driver.delete(client)

    assert facts.active
    assert AUDIENCE in facts.aud
    assert facts.scopes == {"read"}


async def introspection(url: str, method: ClientAuthentication, client: Registration, token: str) -> Facts:
    """What the resource server learns, with its own code."""
    server = policy.AuthorizationServer(url, client_authentication=method)
    held = Credentials(client.client_id, client.client_secret)
    asking = Introspection(policy.Policy(policy.Requirement(("read",)), server), held, lambda: held)
    try:
        return (await ask(asking, token)).facts
    finally:
        await asking.close()


async def test_one_attempt_makes_one_client_however_often_it_is_repeated(talk: Talk) -> None:
    chosen = talk.chosen("repeat")
    if chosen is None:
        pytest.skip("this server chooses the ids itself: each POST makes a client")
    before = talk.count()
    for _ in range(3):
        await talk.driver.register(METADATA, "repeat", chosen)
    other = replace(METADATA, scopes=("write",), client_name="another name", audiences=())
    await talk.driver.register(other, "repeat", chosen)

    assert talk.count() == before + 1
    with pytest.raises(TokenRefused, match="invalid_scope"):
        await talk.tokens.mint(chosen.client_id, chosen.client_secret, ("read",))

    await talk.driver.delete(chosen)
    assert talk.count() == before


async def test_what_is_published_of_it_is_what_it_can_do(talk: Talk) -> None:
    client = await talk.driver.register(METADATA, "capable", talk.chosen("capable"))
    found = talk.driver.capabilities
    await talk.driver.delete(client)

    assert (found.register, found.update, found.delete, found.revocation) == (True, True, True, True)
    assert found.caller_chosen_id is (talk.real.kind != "oidc-provider")
    assert admin_api_exposed(talk.server, talk.endpoints) is (True if talk.real.kind == "hydra" else None)


async def test_keycloak_lets_a_client_introspect_a_caller_s_token_once_the_caller_has_its_client_scope(
    talk: Talk,
) -> None:
    if not isinstance(talk.real.process, KeycloakProcess):
        pytest.skip("only Keycloak asks for the introspecting client in the token's audience")
    keycloak = talk.real.process
    service = await talk.driver.register(METADATA, "service", talk.chosen("service"))
    caller = await talk.driver.register(replace(METADATA, audiences=()), "caller", talk.chosen("caller"))
    path = f"/{keycloak.realm}/clients"

    token = await talk.tokens.mint(caller.client_id, caller.client_secret, ("read",))
    assert await talk.tokens.introspect(service.client_id, service.client_secret, token.value) is False

    (found,) = keycloak.admin("GET", f"{path}?clientId={caller.client_id}")
    scopes = keycloak.admin("GET", f"/{keycloak.realm}/client-scopes")
    own = next(scope["id"] for scope in scopes if scope["name"] == service.client_id)
    keycloak.admin("PUT", f"{path}/{found['id']}/default-client-scopes/{own}")
    token = await talk.tokens.mint(caller.client_id, caller.client_secret, ("read",))
    assert await talk.tokens.introspect(service.client_id, service.client_secret, token.value) is True

    # or the operator names the service's client to the caller's, as it does for a ServiceClient
    keycloak.admin("DELETE", f"{path}/{found['id']}/default-client-scopes/{own}")
    calling = replace(METADATA, audiences=(AUDIENCE, "https://stock.example"), peers=(service.client_id,))
    await talk.driver.update(caller, calling, "caller")
    token = await talk.tokens.mint(caller.client_id, caller.client_secret, ("read",))
    assert await talk.tokens.introspect(service.client_id, service.client_secret, token.value) is True

    await talk.driver.delete(service)
    await talk.driver.delete(caller)
    assert keycloak.client_scopes() == []
