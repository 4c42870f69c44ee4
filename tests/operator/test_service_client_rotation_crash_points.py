"""`kill -9` at every point of a ServiceClient's rotation, of what changes in the midst of one, and of a repair.

As `test_rotation_crash_points.py`, whose machinery this uses; beside it stands what a service takes back within the
overlap, because both clients are then to lose it, whatever dies in between.
"""

from __future__ import annotations

import pytest

from protectedservice_operator.registration.ledger import Entry, State
from protectedservice_operator.resource import PROTECTED_SERVICE, SECRET, SERVICE_CLIENT

from ..support.fake_authorization_server import Client, Operation
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import protected_service, service_client
from ..support.world import World, condition
from .test_crash_points import assert_nothing_more_to_do, own_client_scopes, reported_leaks
from .test_rotation_crash_points import ELSEWHERE, HOUR, KILLS, PERIOD, REPEATABLE, Act, count_effects, killed_world

pytestmark = pytest.mark.thorough

CREDENTIALS = "shop-oauth2-caller"
AUDIENCE, STOCK = "https://orders.example", "https://stock.example"
OVERLAP = 120.0
ROTATION = OVERLAP + 310.0  # in which a rotation ends: the overlap, and the lifetime of a token
STRANGERS = {"from": "Selector", "selector": {"matchLabels": {"team": "strangers"}}}
SERVERS = REPEATABLE | ELSEWHERE


async def calling(world: World) -> None:
    """`shop` calls `orders` (scope read) and `stock` (scope write)."""
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(protected_service("stock", scopes=["write"], audience=STOCK))
    services = [{"name": "orders"}, {"name": "stock"}]
    world.add(service_client("shop", services=services, rotation={"overlap": "120s"}))
    await world.settle()


async def alone(world: World) -> None:
    """`shop` asks for its scopes itself: where what services give is no part of the flow."""
    world.add(service_client("shop", scopes=["read", "write"], rotation={"overlap": "120s"}))
    await world.settle()


async def calling_to_stay(world: World) -> None:
    world.add(service_client("shop", scopes=["read"], deletionPolicy="Retain", rotation={"overlap": "120s"}))
    await world.settle()


async def overlapping(world: World) -> None:
    await calling(world)
    rotate(world)
    await world.settle()
    assert len(clients(world)) == 2


def rotate(world: World) -> None:
    annotation = {"protectedservice.dev/rotate": "now"}
    world.cluster.edit(
        SERVICE_CLIENT, "tenant", "shop", lambda body: body["metadata"].setdefault("annotations", {}).update(annotation)
    )


def withdraw(world: World) -> None:
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "stock", lambda body: body["spec"].update(allowedClients=STRANGERS))


def delete(world: World) -> None:
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")


def edit_at_server(world: World) -> None:
    (client,) = clients(world).values()
    if isinstance(world.server, FakeKeycloak):
        world.server.realm_clients[client.client_id].optional.clear()
        world.server._take_over(client.client_id)
    else:
        client.metadata["scope"] = "read"


def lose(world: World) -> None:
    (client,) = clients(world)
    world.server.lose_client(client)


def clients(world: World) -> dict[str, Client]:
    found = world.server.clients.values()
    return {one.client_id: one for one in found if "/shop/" in (one.metadata.get("client_name") or "")}


def entry_of(world: World) -> Entry | None:
    found = [entry for entry in world.ledgers() if entry.record.owner_kind == "ServiceClient"]
    assert len(found) <= 1
    return found[0] if found else None


def assert_caller_is_whole(world: World, scopes: set[str], point: str) -> Client:
    """One client in use, and no other of which the ledger knows; returns it."""
    body = world.cluster.read(SERVICE_CLIENT, "tenant", "shop")
    registered = condition(body, "ClientRegistered"), condition(body, "CredentialsReady")
    assert registered == (("True", "Registered"), ("True", "Projected")), (point, body["status"])
    assert condition(body, "Rotating") is None, (point, body["status"])
    assert "previousClient" not in body["status"], point
    entry = entry_of(world)
    assert entry is not None, point
    assert (entry.record.state, entry.chosen, entry.second, entry.record.second) == (
        State.REGISTERED,
        None,
        None,
        None,
    ), point
    assert entry.registration is not None, point
    client = world.server.clients[entry.registration.client_id]
    secret = world.credentials(CREDENTIALS)
    assert (secret["client_id"], secret["client_secret"]) == (client.client_id, client.client_secret), point
    assert client.scopes == set(secret["scope"].split()) == scopes, point
    if world.server.manages_clients and client.registration_token:
        # our handle is good: the registration token in the ledger is the server's current one
        assert entry.registration.registration_access_token == client.registration_token, point
    for service in world.cluster.objects(PROTECTED_SERVICE):
        assert condition(service, "Ready") == ("True", "Ready"), point
    return client


@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_a_rotation_goes_on_where_it_was_killed_and_leaves_one_client(name: str, after: bool) -> None:
    server = REPEATABLE[name]
    effects = await count_effects(server, calling, rotate, seconds=ROTATION)

    assert effects >= 12

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, calling, rotate, effect, after=after, seconds=ROTATION)
        await world.later(2 * ROTATION)

        client = assert_caller_is_whole(world, {"read", "write"}, point)
        assert set(clients(world)) == {client.client_id}, point
        assert (world.server.created_total, world.server.deleted_total) == (4, 1), point  # never a third one
        assert reported_leaks(world) == 0, point
        if isinstance(world.server, FakeKeycloak):
            assert len(own_client_scopes(world.server)) == 3, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", ELSEWHERE)
@KILLS
async def test_a_rotation_that_cannot_be_taken_up_rolls_back_and_every_client_left_is_told(
    name: str, after: bool
) -> None:
    server = ELSEWHERE[name]
    effects = await count_effects(server, alone, rotate, seconds=ROTATION)

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, alone, rotate, effect, after=after, seconds=ROTATION)
        await world.later(PERIOD)

        assert_caller_is_whole(world, {"read", "write"}, point)
        left = len(world.server.clients) - 1
        # An interrupted POST leaves one at most; a server that cannot delete keeps the old one besides.
        assert left <= (2 if name == "register only" else 1), point
        assert left <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", SERVERS)
async def test_no_kill_during_a_rotation_takes_a_client_away_that_a_caller_may_have_read(name: str) -> None:
    """What the Secret holds, and what it held before within the overlap, are clients that the server knows."""
    server = SERVERS[name]
    for effect in range(1, await count_effects(server, alone, rotate, seconds=OVERLAP) + 1):
        world = await killed_world(server, alone, rotate, effect, after=True, seconds=OVERLAP)
        first = min(clients(world))
        await world.settle()
        given_out = world.credentials(CREDENTIALS)

        assert world.server.clients[given_out["client_id"]].client_secret == given_out["client_secret"], effect
        assert first in world.server.clients, effect


@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_what_is_taken_back_within_the_overlap_both_clients_lose_whatever_the_crash(
    name: str, after: bool
) -> None:
    server = REPEATABLE[name]
    effects = await count_effects(server, overlapping, withdraw, seconds=1.0)

    assert effects >= 6

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, overlapping, withdraw, effect, after=after, seconds=1.0)
        await world.later(1)

        assert [one.scopes for one in clients(world).values()] == [{"read"}, {"read"}], point
        for client in clients(world).values():
            if isinstance(world.server, FakeKeycloak):
                assert STOCK not in world.server.client_scopes[client.client_id].audiences, point
            else:
                assert client.audience == {AUDIENCE}, point
        await world.later(2 * ROTATION)
        client = assert_caller_is_whole(world, {"read"}, point)
        assert set(clients(world)) == {client.client_id}, point
        assert reported_leaks(world) == 0, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", ELSEWHERE)
@KILLS
async def test_what_is_taken_back_elsewhere_is_lost_by_the_client_in_use_and_what_is_left_is_told(
    name: str, after: bool
) -> None:
    server = ELSEWHERE[name]
    effects = await count_effects(server, overlapping, withdraw, seconds=1.0)

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, overlapping, withdraw, effect, after=after, seconds=1.0)
        await world.later(2 * ROTATION)

        assert_caller_is_whole(world, {"read"}, point)
        left = len(world.server.clients) - 3
        assert left <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", SERVERS)
@KILLS
async def test_an_object_that_is_deleted_during_a_rotation_takes_both_clients_with_it(name: str, after: bool) -> None:
    server = SERVERS[name]
    for effect in range(1, await count_effects(server, alone, rotate, seconds=ROTATION) + 1):
        point = f"{name}, effect {effect}, {'after' if after else 'before'}"
        world = await killed_world(server, alone, rotate, effect, after=after, seconds=ROTATION)
        delete(world)
        await world.recover()

        assert_caller_is_gone(world, point)
        if server.honoured:
            assert clients(world) == {}, point
            assert reported_leaks(world) == 0, point
        assert len(world.server.clients) <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


def assert_caller_is_gone(world: World, point: str) -> None:
    assert world.cluster.objects(SERVICE_CLIENT) == [], point
    entry = entry_of(world)
    assert entry is None or entry.record.state is State.ORPHANED, point
    if isinstance(world.server, FakeKeycloak):
        assert len(own_client_scopes(world.server)) == len(world.cluster.objects(PROTECTED_SERVICE)), point


@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_a_deletion_after_a_withdrawal_within_the_overlap_leaves_nothing_whatever_the_crash(
    name: str, after: bool
) -> None:
    """The handle of the old client may be one that an interrupted update was about to replace."""
    server = REPEATABLE[name]
    for effect in range(1, await count_effects(server, overlapping, withdraw, seconds=1.0) + 1):
        point = f"{name}, effect {effect}, {'after' if after else 'before'}"
        world = await killed_world(server, overlapping, withdraw, effect, after=after, seconds=1.0)
        delete(world)
        await world.recover()

        assert_caller_is_gone(world, point)
        assert clients(world) == {}, point
        assert reported_leaks(world) == 0, point


@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_an_object_whose_client_is_to_stay_keeps_the_one_that_was_given_out(name: str, after: bool) -> None:
    server = REPEATABLE[name]
    for effect in range(1, await count_effects(server, calling_to_stay, rotate, seconds=ROTATION) + 1):
        point = f"{name}, effect {effect}, {'after' if after else 'before'}"
        world = await killed_world(server, calling_to_stay, rotate, effect, after=after, seconds=ROTATION)
        given_out = world.credentials(CREDENTIALS)
        delete(world)
        await world.recover()

        assert world.cluster.objects(SERVICE_CLIENT) == [], point
        assert world.credentials(CREDENTIALS) == given_out, point
        assert set(world.server.clients) == {given_out["client_id"]}, point
        assert "ownerReferences" not in world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"], point
        entry = entry_of(world)
        assert entry is not None, point
        assert (entry.record.state, entry.second, entry.chosen) == (State.RETAINED, None, None), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("act", [edit_at_server, lose], ids=["edited", "lost"])
@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_a_repair_at_the_server_ends_with_one_client_whatever_the_crash(name: str, act: Act, after: bool) -> None:
    server = REPEATABLE[name]
    effects = await count_effects(server, calling, act, seconds=HOUR)

    assert effects >= 3

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, calling, act, effect, after=after, seconds=HOUR)
        await world.later(HOUR)

        assert_caller_is_whole(world, {"read", "write"}, point)
        assert len(world.server.clients) == 3, point
        assert world.server.created_total == (4 if act is lose else 3), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("act", [edit_at_server, lose], ids=["edited", "lost"])
@KILLS
async def test_a_repair_without_idempotency_keys_leaves_no_client_untold(act: Act, after: bool) -> None:
    server = ELSEWHERE["only RFC 7592"]
    effects = await count_effects(server, alone, act, seconds=HOUR)
    for effect in range(1, effects + 1):
        point = f"effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, alone, act, effect, after=after, seconds=HOUR)
        await world.later(HOUR)

        assert_caller_is_whole(world, {"read", "write"}, point)
        left = len(world.server.clients) - 1
        assert left <= 1, point
        assert left <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("operation", [Operation.REGISTER, Operation.UPDATE])
@pytest.mark.parametrize("name", REPEATABLE)
async def test_a_lost_answer_about_either_client_is_asked_for_again(name: str, operation: Operation) -> None:
    world = REPEATABLE[name].world()
    await calling(world)
    world.server.fail_on(operation, status=None, after_effect=True, times=2)
    rotate(world)
    await world.settle()
    withdraw(world)
    await world.later(PERIOD)

    client = assert_caller_is_whole(world, {"read"}, name)
    assert set(clients(world)) == {client.client_id}
    assert world.server.created_total == 4
    assert reported_leaks(world) == 0
