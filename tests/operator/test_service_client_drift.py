"""The hourly look at each ServiceClient's client, where it lives: changed there, lost there, or as it should be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import EVENT, SERVICE_CLIENT, Key

from ..support.fake_authorization_server import Client, Operation
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import protected_service, service_client
from ..support.world import World, condition

HOUR = 3600.0
AUDIENCE = "https://orders.example"
CREDENTIALS = "shop-oauth2-caller"
KINDS = ["dynamic", "hydra", "keycloak"]
OF_DAILY_LIFE = {Operation.TOKEN, Operation.REVOKE, Operation.METADATA}


async def calling(kind: str = "dynamic", *, honoured: bool = True) -> World:
    world = World(kind=kind, idempotency_honoured=honoured)
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(service_client("shop"))
    await world.settle()
    assert told(world, "Ready") == ("True", "Ready")
    return world


def told(world: World, type_: str) -> tuple[str, str] | None:
    return condition(world.cluster.read(SERVICE_CLIENT, "tenant", "shop"), type_)


def client(world: World) -> Client:
    """The one of `shop`."""
    (found,) = (one for one in world.server.clients.values() if one.client_id == in_use(world))
    return found


def in_use(world: World) -> str:
    return world.credentials(CREDENTIALS)["client_id"]


def events(world: World) -> Iterator[tuple[str, str]]:
    """(reason, message) of the Events about `shop`."""
    for event in world.cluster.objects(EVENT):
        if event["involvedObject"]["kind"] == "ServiceClient":
            yield event["reason"], event["message"]


def edited(world: World) -> None:
    """Somebody changes the caller's client in the server's own console."""
    found = client(world)
    if isinstance(world.server, FakeKeycloak):
        realm = world.server.realm_clients[found.client_id]
        realm.representation["name"] = "renamed"
        realm.optional.add("write")
        world.server.client_scopes[found.client_id].mappers.clear()
        world.server._take_over(found.client_id)
    else:
        found.metadata |= {"client_name": "renamed", "scope": "read write"}


@pytest.mark.parametrize("kind", ["dynamic", "hydra"])
async def test_each_client_is_read_once_an_hour_and_nothing_is_written(kind: str) -> None:
    world = await calling(kind)
    for name in ("basket", "till"):
        world.add(service_client(name))
    await world.later(120)  # the number of clients is told, too
    writes, before = len(world.writes()), len(world.server.requests)
    await world.later(5 * HOUR)

    asked = [seen for seen in world.server.requests[before:] if seen.operation not in OF_DAILY_LIFE]
    assert {seen.operation for seen in asked} == {Operation.READ}
    assert len(world.server.clients) == 4
    for client_id in world.server.clients:
        assert sum(seen.client_id == client_id for seen in asked) == 5, client_id
    assert world.writes()[writes:] == []


async def test_a_restart_spreads_the_looks_at_many_callers_evenly_over_the_coming_hour() -> None:
    world = World()
    for number in range(20):
        world.add(service_client(f"shop-{number}", scopes=["read"]))
    await world.later(61)
    draws = iter([(number + 0.5) / 20 for number in range(20)])
    world.look_jitter = lambda: next(draws, 0.5)
    world.restart()
    await world.settle()
    counts = []
    for _ in range(4):
        before = world.server.count(Operation.READ)
        await world.later(HOUR / 4)
        counts.append(world.server.count(Operation.READ) - before)

    assert counts == [5, 5, 5, 5]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_edited_client_is_put_right_within_the_hour_and_the_event_names_the_fields(kind: str) -> None:
    world = await calling(kind)
    before, credentials = client(world).metadata.copy(), world.credentials(CREDENTIALS)
    service = world.credentials()["client_id"]
    edited(world)
    await world.later(HOUR)

    assert client(world).metadata == before
    if isinstance(world.server, FakeKeycloak):
        found = client(world).client_id
        assert world.server.client_scopes[found].audiences == {found, AUDIENCE, service}
        named: tuple[str, ...] = ("name", "optionalClientScopes", "protocolMappers")
    else:
        named = ("client_name", "scope")
    assert world.credentials(CREDENTIALS) == credentials
    (message,) = (text for reason, text in events(world) if reason == "ClientDriftRepaired")
    assert all(field in message for field in named)
    assert told(world, "Ready") == ("True", "Ready")

    repairs = world.server.count(Operation.UPDATE)
    await world.later(3 * HOUR)
    assert world.server.count(Operation.UPDATE) == repairs


@pytest.mark.parametrize("kind", [*KINDS, "register-only"])
async def test_a_lost_client_is_made_anew_and_its_secret_follows(kind: str) -> None:
    world = await calling(kind, honoured=kind != "register-only")
    lost = in_use(world)
    world.server.lose_client(lost)
    await world.later(HOUR)

    assert in_use(world) != lost
    assert world.credentials(CREDENTIALS)["client_secret"] == client(world).client_secret
    assert len(world.server.clients) == 2
    assert any(reason == "ClientLost" and lost in text for reason, text in events(world))
    assert told(world, "Ready") == ("True", "Ready")
    assert {entry.record.state for entry in world.ledgers()} == {State.REGISTERED}
    # Where 401 is all that the server says of it, nobody can know that it is gone and not merely out of our reach.
    assert world.uncertain == (0 if kind in ("hydra", "keycloak") else 1)


async def test_a_client_that_lives_and_whose_handle_is_refused_stays_in_use_and_is_told() -> None:
    world = await calling()
    client(world).registration_token = "of somebody else"
    credentials = world.credentials(CREDENTIALS)
    await world.later(2 * HOUR)

    assert world.credentials(CREDENTIALS) == credentials
    assert world.server.created_total == 2
    assert "RegistrationHandleLost" in dict(events(world))
    assert told(world, "Ready") == ("True", "Ready")


async def test_a_server_that_is_down_is_not_asked_and_the_looks_do_not_pile_up() -> None:
    world = await calling()
    world.server.down = True
    await world.later(5 * HOUR)
    world.server.heal()
    before = world.server.count(Operation.READ)
    await world.later(600)

    assert world.server.count(Operation.READ) - before <= 2  # one for each client


async def test_a_suspended_one_and_one_without_a_client_are_not_looked_at() -> None:
    world = World()
    world.add(service_client("shop", scopes=["read"]))
    world.add(service_client("waits", services=[{"name": "nobody"}]))
    await world.settle()
    world.cluster.edit(SERVICE_CLIENT, "tenant", "shop", lambda body: body["spec"].update(suspend=True))
    edited(world)
    await world.later(3 * HOUR)

    assert world.server.count(Operation.READ) == 0


async def test_another_object_of_the_same_name_has_a_turn_of_its_own() -> None:
    """What was remembered of an object goes with it."""
    world = await calling()
    uid = world.cluster.read(SERVICE_CLIENT, "tenant", "shop")["metadata"]["uid"]
    checks: Any = world.reconcile._service_clients._checks
    assert uid in checks._due
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    await world.settle()
    world.wake(Key("ServiceClient", "tenant", "shop"))
    await world.settle()

    assert uid not in checks._due
