"""`kill -9` at every point of a ServiceClient's life; see test_crash_points.py, whose machinery this uses.

A ProtectedService stands beside it, ready before anything else happens: its client must come through untouched.
"""

from __future__ import annotations

import pytest

from protectedservice_operator.registration.ledger import Entry, State
from protectedservice_operator.resource import PROTECTED_SERVICE, SECRET, SERVICE_CLIENT

from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import protected_service, service_client
from ..support.world import World, condition
from .test_crash_points import (
    Case,
    assert_nothing_more_to_do,
    count_effects,
    killed_world,
    own_client_scopes,
    reported_leaks,
)

pytestmark = pytest.mark.thorough

AUDIENCE = "https://orders.example"
CREDENTIALS = "shop-oauth2-caller"
STRANGERS = {"from": "Selector", "selector": {"matchLabels": {"team": "strangers"}}}


async def protected(world: World) -> None:
    world.add(protected_service("orders", scopes=["write"], audience=AUDIENCE))
    await world.settle()


async def calling(world: World) -> None:
    await protected(world)
    create(world)
    await world.settle()


async def calling_with_scopes_of_its_own(world: World) -> None:
    await protected(world)
    world.add(service_client("shop", scopes=["read"], services=[{"name": "orders"}]))
    await world.settle()


async def calling_to_stay(world: World) -> None:
    await protected(world)
    world.add(service_client("shop", scopes=["read"], deletionPolicy="Retain"))
    await world.settle()


def create(world: World) -> None:
    world.add(service_client("shop"))


def update(world: World) -> None:
    world.cluster.edit(SERVICE_CLIENT, "tenant", "shop", lambda body: body["spec"].update(scopes=["read"]))


def withdraw(world: World) -> None:
    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(allowedClients=STRANGERS)
    )


def delete(world: World) -> None:
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")


FLOWS = {
    "create": (Case(protected, create, remains=True), {"write"}),
    "update": (Case(calling, update, remains=True), {"read", "write"}),
    "consent withdrawn": (Case(calling_with_scopes_of_its_own, withdraw, remains=True), {"read"}),
    "last consent withdrawn": (Case(calling, withdraw, remains=False), None),
    "delete": (Case(calling, delete, remains=False), None),
}
KILLED = pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])


def entry_of(world: World, kind: str) -> Entry | None:
    found = [entry for entry in world.ledgers() if entry.record.owner_kind == kind]
    assert len(found) <= 1
    return found[0] if found else None


def assert_the_service_is_untouched(world: World, point: str) -> None:
    assert world.condition("orders", "Ready") == ("True", "Ready"), (point, world.service()["status"])
    entry = entry_of(world, "ProtectedService")
    assert entry is not None, point
    assert entry.record.client_id in world.server.clients, point
    assert world.credentials()["client_id"] == entry.record.client_id, point


def assert_the_caller_is_whole(world: World, scopes: set[str], point: str) -> None:
    body = world.cluster.read(SERVICE_CLIENT, "tenant", "shop")
    registered = condition(body, "ClientRegistered"), condition(body, "CredentialsReady")
    assert registered == (("True", "Registered"), ("True", "Projected")), (point, body["status"])
    entry = entry_of(world, "ServiceClient")
    assert entry is not None, point
    assert (entry.record.state, entry.chosen) == (State.REGISTERED, None), point
    assert entry.registration is not None, point
    client = world.server.clients[entry.registration.client_id]
    secret = world.credentials(CREDENTIALS)
    assert (secret["client_id"], secret["client_secret"]) == (client.client_id, client.client_secret), point
    assert client.scopes == set(secret["scope"].split()) == scopes, point
    expected = {AUDIENCE} if "write" in scopes else set()
    assert set(secret.get("audience", "").split()) == expected, point
    if isinstance(world.server, FakeKeycloak):
        service = entry_of(world, "ProtectedService")
        assert service is not None
        peers = {service.record.client_id} if "write" in scopes else set()
        assert world.server.client_scopes[client.client_id].audiences == {client.client_id} | expected | peers, point
        assert len(own_client_scopes(world.server)) == 2, point
    else:
        assert client.audience == expected, point


def assert_the_client_is_gone(world: World, flow: str, point: str) -> None:
    entry = entry_of(world, "ServiceClient")
    assert entry is None or entry.record.state is State.ORPHANED, point
    assert (world.cluster.objects(SERVICE_CLIENT) == []) is (flow == "delete"), point
    if isinstance(world.server, FakeKeycloak):
        assert len(own_client_scopes(world.server)) == 1, point


@pytest.mark.parametrize("kind", ["dynamic", "hydra", "keycloak"])
@pytest.mark.parametrize("flow", FLOWS)
@KILLED
async def test_exactly_one_client_whatever_the_crash_where_a_registration_can_be_repeated(
    kind: str, flow: str, after: bool
) -> None:
    case, scopes = FLOWS[flow]
    effects = await count_effects(case, honoured=True, kind=kind)

    assert effects >= 4

    for effect in range(1, effects + 1):
        point = f"{flow}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=True, kind=kind)
        assert_the_service_is_untouched(world, point)
        if scopes is not None:
            assert_the_caller_is_whole(world, scopes, point)
        else:
            assert_the_client_is_gone(world, flow, point)
        assert len(world.server.clients) == (2 if case.remains else 1), point
        assert world.server.created_total == 2, point
        assert reported_leaks(world) == 0, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("kind", ["dynamic", "register-only"])
@pytest.mark.parametrize("flow", FLOWS)
@KILLED
async def test_every_client_left_behind_is_reported_where_a_registration_cannot_be_repeated(
    kind: str, flow: str, after: bool
) -> None:
    case, scopes = FLOWS[flow]
    effects = await count_effects(case, honoured=False, kind=kind)
    # At a server that can only register, a changed or ended client stays; an interrupted call may leave one more.
    most = 1 if kind == "dynamic" or flow in ("create", "last consent withdrawn", "delete") else 2

    for effect in range(1, effects + 1):
        point = f"{flow}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=False, kind=kind)
        assert_the_service_is_untouched(world, point)
        if scopes is not None:
            assert_the_caller_is_whole(world, scopes, point)
        else:
            assert_the_client_is_gone(world, flow, point)
        left = len(world.server.clients) - (2 if case.remains else 1)
        assert left <= most, point
        assert left <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@KILLED
async def test_a_retained_client_and_its_secret_outlive_the_object_whatever_the_crash(after: bool) -> None:
    case = Case(calling_to_stay, delete, remains=False)
    effects = await count_effects(case, honoured=True)

    for effect in range(1, effects + 1):
        point = f"effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=True)
        entry = entry_of(world, "ServiceClient")
        assert entry is not None, point
        assert entry.record.state is State.RETAINED, point
        assert entry.record.client_id in world.server.clients, point
        assert world.credentials(CREDENTIALS)["client_id"] == entry.record.client_id, point
        assert "ownerReferences" not in world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"], point
        await assert_nothing_more_to_do(world, point)


async def test_a_consent_that_comes_back_while_the_client_is_being_deleted_is_followed_after_it() -> None:
    world = World()
    await calling(world)
    world.server.down = True
    withdraw(world)
    await world.settle()
    entry = entry_of(world, "ServiceClient")
    assert entry is not None
    assert entry.record.state is State.DELETING
    old = entry.record.client_id

    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(allowedClients={"from": "Same"})
    )
    world.server.down = False
    await world.recover()

    assert_the_caller_is_whole(world, {"write"}, "given back")
    assert old not in world.server.clients
    assert len(world.server.clients) == 2
