"""The same driver, against django-oauth-toolkit as quickstart runs it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import pytest

from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.cache import Cache
from protectedservice_operator.errors import ServerUnavailable, UserMustEdit
from protectedservice_operator.registration.adopter import Adopter
from protectedservice_operator.registration.discovery import discover
from protectedservice_operator.registration.driver import (
    AttemptSpent,
    Capabilities,
    ClientMetadata,
    ClientState,
    HandleRefused,
    MetadataRejected,
    RegistrationRefused,
)
from protectedservice_operator.registration.dynamic import DynamicClientRegistration
from protectedservice_operator.registration.ledger_entries import LedgerEntries
from protectedservice_operator.registration.names import client_name, tag
from protectedservice_operator.registration.remote import Remote
from protectedservice_operator.registration.token import TokenEndpoint, TokenRefused

from ...support.authorization_server_process import AuthorizationServerProcess
from ...support.fake_cluster import FakeCluster
from .told import assert_untold, log_of

NAME = client_name("Orders", tag("cluster", "shop", "orders", "00000000-0000-0000-0000-000000000001", "0a1b2c3d"))
METADATA = ClientMetadata(NAME, ("read", "write"), audiences=("https://orders.example",))


@dataclass(frozen=True)
class Connected:
    """As the operator keeps a connection."""

    driver: DynamicClientRegistration
    tokens: TokenEndpoint
    endpoints: Endpoints


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizationServerProcess]:
    with AuthorizationServerProcess(tmp_path_factory.mktemp("authorization_server")) as process:
        yield process


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    remote = Remote("AuthorizationServer ns/as")
    yield remote
    await remote.aclose()


@pytest.fixture
async def endpoints(server: AuthorizationServerProcess, remote: Remote) -> Endpoints:
    return await discover(remote, server.issuer, Endpoints(), allow_insecure_http=True)


@pytest.fixture
def driver(server: AuthorizationServerProcess, remote: Remote, endpoints: Endpoints) -> DynamicClientRegistration:
    return DynamicClientRegistration(remote, endpoints, server.initial_access_token, idempotency_honoured=True)


@pytest.fixture
def tokens(remote: Remote, endpoints: Endpoints) -> TokenEndpoint:
    return TokenEndpoint(remote, endpoints)


async def test_a_client_with_two_audiences_gets_tokens_for_each_of_them_until_it_loses_one(
    driver: DynamicClientRegistration, tokens: TokenEndpoint
) -> None:
    audiences = ("https://orders.example", "https://stock.example")
    client = await driver.register(replace(METADATA, audiences=audiences), "two-1")
    credentials = (client.client_id, client.client_secret)
    for audience in audiences:
        token = await tokens.mint(*credentials, ("read",), audience)
        assert await tokens.introspect(*credentials, token.value) is True

    changed = await driver.update(client, replace(METADATA, audiences=audiences[:1]), "two-2")

    await tokens.mint(*credentials, ("read",), audiences[0])
    with pytest.raises(TokenRefused, match="invalid_target"):
        await tokens.mint(*credentials, ("read",), audiences[1])
    await driver.delete(changed)


async def test_a_client_lives_from_registration_to_deletion(
    server: AuthorizationServerProcess,
    driver: DynamicClientRegistration,
    tokens: TokenEndpoint,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    before = server.client_count()
    client = await driver.register(METADATA, "life-1")
    credentials = (client.client_id, client.client_secret)
    made = server.clients()[-1]
    assert (made.client_id, made.client_name) == (client.client_id, NAME)
    assert (made.scope, made.audience) == ("read write", ["https://orders.example"])

    token = await tokens.mint(*credentials, ("read",), "https://orders.example")
    assert await tokens.introspect(*credentials, token.value) is True
    assert await tokens.revoke(*credentials, token.value) is True
    assert await tokens.introspect(*credentials, token.value) is False
    with pytest.raises(TokenRefused, match="invalid_target"):
        await tokens.mint(*credentials, ("read",), "https://other.example")

    changed = await driver.update(client, replace(METADATA, scopes=("read",)), "life-2")
    assert changed.registration_access_token != client.registration_access_token
    assert changed.client_secret == client.client_secret
    with pytest.raises(TokenRefused, match="invalid_scope"):
        await tokens.mint(*credentials, ("write",))
    assert await tokens.probe(*credentials) is ClientState.ALIVE

    await driver.delete(changed)
    assert server.client_count() == before
    assert await tokens.probe(*credentials) is ClientState.REFUSED
    with pytest.raises(HandleRefused):
        await driver.delete(changed)

    secrets = [client.client_secret, token.value, server.initial_access_token]
    secrets += [str(one.registration_access_token) for one in (client, changed)]
    assert_untold(secrets, log_of(caplog), repr(client), repr(changed), repr(token))


async def test_a_client_is_proved_by_its_secret_and_by_no_other_one(
    driver: DynamicClientRegistration, tokens: TokenEndpoint, endpoints: Endpoints
) -> None:
    """As adoption asks it, of the server that answers in the order that it likes."""
    client = await driver.register(METADATA, "proved")
    connection = Connected(driver, tokens, endpoints)
    adopter = Adopter(LedgerEntries(FakeCluster(), Cache(), "protectedservice-system"))

    await adopter.prove(client, connection, "Secret shop/legacy")
    with pytest.raises(UserMustEdit, match="AdoptionNotProved") as refused:
        await adopter.prove(replace(client, client_secret="surely-not-the-secret"), connection, "Secret shop/legacy")

    assert "surely-not-the-secret" not in str(refused.value)
    with pytest.raises(UserMustEdit, match="AdoptionNotProved"):
        await adopter.prove(replace(client, client_id="nobody"), connection, "Secret shop/legacy")
    await driver.delete(client)


async def test_the_same_attempt_gives_the_same_client_and_with_other_metadata_it_is_spent(
    server: AuthorizationServerProcess, driver: DynamicClientRegistration
) -> None:
    before = server.client_count()
    first = await driver.register(METADATA, "same")
    again = await driver.register(METADATA, "same")
    with pytest.raises(AttemptSpent):
        await driver.register(replace(METADATA, scopes=("read",)), "same")

    assert again == first
    assert server.client_count() == before + 1


async def test_a_repeated_update_gets_its_lost_answer(
    server: AuthorizationServerProcess, driver: DynamicClientRegistration
) -> None:
    first = await driver.register(METADATA, "lost-1")
    fewer = replace(METADATA, scopes=("read",))
    second = await driver.update(first, fewer, "lost-2")

    assert await driver.update(first, fewer, "lost-2") == second
    with pytest.raises(HandleRefused):
        await driver.update(first, fewer, "lost-3")
    await driver.delete(second)


async def test_what_it_refuses_is_told_apart(
    server: AuthorizationServerProcess, remote: Remote, endpoints: Endpoints, driver: DynamicClientRegistration
) -> None:
    before = server.client_count()
    with pytest.raises(MetadataRejected, match="invalid_client_metadata"):
        await driver.register(replace(METADATA, scopes=("no-such-scope",)), "refused-1")
    stranger = DynamicClientRegistration(remote, endpoints, "not-the-initial-access-token")
    with pytest.raises(RegistrationRefused):
        await stranger.register(METADATA, "refused-2")

    assert server.client_count() == before


async def test_it_can_manage_clients_and_revoke(driver: DynamicClientRegistration) -> None:
    await driver.register(METADATA, "capable")

    assert driver.capabilities == Capabilities(
        register=True, idempotent_register=True, read=True, update=True, delete=True, revocation=True
    )


async def test_while_it_is_down_nothing_is_sent_and_after_it_clients_are_still_there(
    server: AuthorizationServerProcess, driver: DynamicClientRegistration, tokens: TokenEndpoint
) -> None:
    client = await driver.register(METADATA, "outage-1")
    server.stop()
    with pytest.raises(ServerUnavailable) as caught:
        await driver.register(METADATA, "outage-2")
    assert caught.value.uncertain is False
    server.start()

    assert await tokens.probe(client.client_id, client.client_secret) is ClientState.ALIVE
