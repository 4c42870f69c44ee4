"""The hourly look at each client, where it lives: changed there, lost there, or as it should be."""

from __future__ import annotations

import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, PROTECTED_SERVICE

from ..support.fake_authorization_server import Operation
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import World

HOUR = 3600.0
AUDIENCE = "https://orders.example"
KINDS = ["dynamic", "hydra", "keycloak"]
OF_DAILY_LIFE = {Operation.TOKEN, Operation.REVOKE, Operation.METADATA}


async def onboarded(kind: str = "dynamic", *, honoured: bool = True) -> World:
    world = World(kind=kind, idempotency_honoured=honoured)
    world.add(protected_service("orders", audience=AUDIENCE))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


def edited(world: World) -> None:
    """Somebody changes the only client in the server's own console."""
    (client,) = world.server.clients.values()
    if isinstance(world.server, FakeKeycloak):
        realm = world.server.realm_clients[client.client_id]
        realm.representation["name"] = "renamed"
        realm.optional.add("write")
        world.server.client_scopes[client.client_id].mappers.clear()
        world.server._take_over(client.client_id)
    else:
        client.metadata |= {"client_name": "renamed", "scope": "read write"}


def reasons(world: World) -> list[str]:
    return [reason for reason, _ in world.events()]


def message(world: World, reason: str) -> str:
    return next(text for told, text in world.events() if told == reason)


@pytest.mark.parametrize("kind", ["dynamic", "hydra"])
async def test_each_client_is_read_once_an_hour_and_nothing_is_written(kind: str) -> None:
    world = await onboarded(kind)
    for name in ("invoices", "stock"):
        world.add(protected_service(name))
    await world.later(120)  # the number of clients is told, too
    writes, before = len(world.writes()), len(world.server.requests)
    await world.later(5 * HOUR)

    asked = [seen for seen in world.server.requests[before:] if seen.operation not in OF_DAILY_LIFE]
    assert {seen.operation for seen in asked} == {Operation.READ}
    for client in world.server.clients:
        assert sum(seen.client_id == client for seen in asked) == 5, client
    assert world.writes()[writes:] == []


async def test_keycloak_is_asked_once_an_hour_for_the_client_and_for_the_client_scopes() -> None:
    world = await onboarded("keycloak")
    await world.later(120)
    writes, before = len(world.writes()), len(world.server.requests)
    await world.later(5 * HOUR)

    seen = [s for s in world.server.requests[before:] if s.operation not in OF_DAILY_LIFE]
    answered = [s.operation for s in seen if s.status == 200]  # a token that has expired costs one question more
    assert answered == [Operation.LOGIN, Operation.READ, Operation.READ] * 5
    assert world.writes()[writes:] == []


async def test_a_restart_spreads_the_looks_over_the_coming_hour() -> None:
    world = await onboarded()
    world.restart()
    await world.settle()
    await world.later(HOUR / 2 - 60)
    assert world.server.count(Operation.READ) == 0
    await world.later(120)
    assert world.server.count(Operation.READ) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_an_edited_client_is_put_right_within_the_hour_and_the_event_names_the_fields(kind: str) -> None:
    world = await onboarded(kind)
    before = next(iter(world.server.clients.values())).metadata.copy()
    credentials = world.credentials()
    edited(world)
    await world.later(HOUR)

    (client,) = world.server.clients.values()
    assert client.metadata == before
    if isinstance(world.server, FakeKeycloak):
        assert world.server.client_scopes[client.client_id].audiences == {client.client_id, AUDIENCE}
        named: tuple[str, ...] = ("name", "optionalClientScopes", "protocolMappers")
    else:
        named = ("client_name", "scope")
    assert world.credentials() == credentials
    assert all(field in message(world, "ClientDriftRepaired") for field in named)
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert "ClientUpdated" not in reasons(world)
    (entry,) = world.ledgers()
    assert entry.record.drifted == ()

    repairs = world.server.count(Operation.UPDATE)
    await world.later(3 * HOUR)
    assert world.server.count(Operation.UPDATE) == repairs


async def test_a_secret_changed_in_keycloaks_console_is_changed_back() -> None:
    world = await onboarded("keycloak")
    (client,) = world.server.clients.values()
    realm = world.server.realm_clients[client.client_id]  # type: ignore[attr-defined]
    realm.representation["secret"] = client.client_secret = "of the console"
    await world.later(HOUR)

    assert client.client_secret == world.credentials()["client_secret"]
    assert "secret" in message(world, "ClientDriftRepaired")
    assert world.credentials()["client_secret"] not in str(world.events())


@pytest.mark.parametrize("kind", [*KINDS, "register-only"])
async def test_a_lost_client_is_made_anew_and_the_pods_get_its_credentials(kind: str) -> None:
    world = await onboarded(kind, honoured=kind != "register-only")
    (lost,) = world.server.clients
    world.server.lose_client(lost)
    await world.later(HOUR)

    (client,) = world.server.clients.values()
    assert client.client_id != lost
    assert world.credentials() == {"client_id": client.client_id, "client_secret": client.client_secret}
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert lost in message(world, "ClientLost")
    (entry,) = world.ledgers()
    assert entry.record.state is State.REGISTERED
    # Where 401 is all that the server says of it, nobody can know that it is gone and not merely out of our reach.
    assert world.uncertain == (0 if kind in ("hydra", "keycloak") else 1)
    if isinstance(world.server, FakeKeycloak):
        assert lost not in world.server.client_scopes


async def test_a_client_that_lives_and_whose_handle_is_refused_stays_in_use_and_is_told() -> None:
    world = await onboarded()
    (client,) = world.server.clients.values()
    client.registration_token = "of somebody else"
    credentials = world.credentials()
    await world.later(2 * HOUR)

    assert world.credentials() == credentials
    assert world.server.created_total == 1
    assert "RegistrationHandleLost" in reasons(world)
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_answer_that_proves_nothing_changes_nothing() -> None:
    world = await onboarded()
    (client,) = world.server.clients.values()
    client.registration_token = "of somebody else"
    world.server.fail_on(Operation.TOKEN, status=403, times=None)
    before = world.credentials()
    await world.later(2 * HOUR)

    assert world.credentials() == before
    assert world.server.created_total == 1
    assert "ClientLost" not in reasons(world)


@pytest.mark.parametrize("status", [500, 503, 429, 302, 404])
async def test_a_server_in_trouble_is_no_sign_that_a_client_is_lost(status: int) -> None:
    world = await onboarded()
    world.server.fail_on(
        Operation.READ, status=status, body=b"<html>Oh no</html>", headers={"content-type": "text/html"}
    )
    await world.later(HOUR)

    assert world.server.created_total == 1
    assert world.server.count(Operation.UPDATE) == 0
    world.server.heal()
    await world.later(HOUR)
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_registration_token_that_a_read_replaces_is_stored_before_anything_else() -> None:
    world = await onboarded()
    world.server.rotates_registration_tokens_on_read = True
    await world.later(HOUR)
    edited(world)
    await world.later(HOUR)

    (client,) = world.server.clients.values()
    (entry,) = world.ledgers()
    assert entry.registration is not None
    assert entry.registration.registration_access_token == client.registration_token
    assert "ClientDriftRepaired" in reasons(world)
    assert world.uncertain == 0


async def test_a_server_that_is_down_is_not_asked_and_the_looks_do_not_pile_up() -> None:
    world = await onboarded()
    world.server.down = True
    await world.later(5 * HOUR)
    world.server.heal()
    before = world.server.count(Operation.READ)
    await world.later(600)

    assert world.server.count(Operation.READ) - before <= 1


async def test_a_suspended_service_and_one_that_is_deleted_are_not_looked_at() -> None:
    world = await onboarded()
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(suspend=True))
    edited(world)
    await world.later(3 * HOUR)

    assert world.server.count(Operation.READ) == 0


async def test_a_repair_that_the_server_refuses_is_told_and_tried_again_each_hour_only() -> None:
    world = await onboarded("hydra")
    edited(world)
    world.server.scopes = set()  # it does not know `read` any more
    await world.later(HOUR)

    assert world.condition("orders", "ClientRegistered") == ("False", "InvalidClientMetadata")
    asked = world.server.count(Operation.UPDATE)
    await world.later(HOUR / 4)
    assert world.server.count(Operation.UPDATE) == asked


async def test_what_cannot_be_read_is_published_as_a_capability() -> None:
    for kind, reads in (("register-only", False), ("dynamic", True), ("hydra", True)):
        world = await onboarded(kind, honoured=kind != "register-only")
        await world.later(60)
        published = world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")["status"]["capabilities"]
        assert published["read"] is reads, kind
        assert published["twoSecrets"] is False, kind
