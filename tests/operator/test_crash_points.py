"""`kill -9` at every point: before and after every write to the cluster and every request to the authorization server.

Each flow is run once to count its effects, then once for each point, each time in a world of its own: the process ends
there, another one begins with an empty memory, and what must hold in the end is asserted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET

from ..support.fake_authorization_server import Operation
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import Killed, World

AUDIENCE = "https://orders.example"

Flow = Callable[[World], Awaitable[None]]


async def onboarded(world: World) -> None:
    world.add(protected_service("orders", audience=AUDIENCE))
    await world.settle()


async def onboarded_to_stay(world: World) -> None:
    world.add(protected_service("orders", client={"deletionPolicy": "Retain"}))
    await world.settle()


async def nothing(world: World) -> None:
    """The flow starts from an empty cluster."""


def create(world: World) -> None:
    world.add(protected_service("orders", audience=AUDIENCE))


def update(world: World) -> None:
    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["read", "write"])
    )


def rename_keys(world: World) -> None:
    keys = {"clientId": "ID", "clientSecret": "SECRET"}
    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(client=secret_with(keys))
    )


def secret_with(keys: dict[str, str]) -> dict[str, object]:
    return {"deletionPolicy": "Delete", "credentialsSecret": {"keys": keys}}


def delete(world: World) -> None:
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")


async def onboarded_with_more(world: World) -> None:
    world.add(protected_service("orders", scopes=["read", "write"], audience=AUDIENCE))
    await world.settle()


def grant_less(world: World) -> None:
    grants = [{"scopes": ["read"], "namespaces": {"from": "All"}}]
    world.cluster.edit(
        AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda body: body["spec"].update(allowedScopes=grants)
    )


@dataclass(frozen=True)
class Case:
    prepare: Flow
    act: Callable[[World], None]
    remains: bool  # whether the service is there in the end


FLOWS = {
    "create": Case(nothing, create, remains=True),
    "update": Case(onboarded, update, remains=True),
    "change of keys": Case(onboarded, rename_keys, remains=True),
    "delete": Case(onboarded, delete, remains=False),
}


async def count_effects(case: Case, *, honoured: bool, kind: str = "dynamic") -> int:
    world = World(idempotency_honoured=honoured, kind=kind)
    await case.prepare(world)
    world.effects = 0
    case.act(world)
    await world.settle()
    return world.effects


async def killed_world(case: Case, effect: int, *, after: bool, honoured: bool, kind: str = "dynamic") -> World:
    """A world in which the process died at this effect and another one was given all the time it may need."""
    world = World(idempotency_honoured=honoured, kind=kind)
    await case.prepare(world)
    world.kill_at(effect, after=after)
    case.act(world)
    with pytest.raises(Killed):
        await world.settle()
    world.restart()
    await world.recover()
    return world


def reported_leaks(world: World) -> int:
    """How many clients the operator said may be left behind; Events outlive the process and the ledger entry."""
    return sum(reason in ("RegistrationUncertain", "ClientOrphaned") for reason, _ in world.events())


def assert_service_is_whole(world: World, point: str) -> None:
    assert world.condition("orders", "Ready") == ("True", "Ready"), (point, world.service()["status"])
    (entry,) = world.ledgers()
    assert entry.record.state is State.REGISTERED, point
    assert entry.registration is not None
    client = world.server.clients[entry.registration.client_id]
    keys = world.service()["spec"].get("client", {}).get("credentialsSecret", {}).get("keys", {})
    assert world.credentials() == {
        keys.get("clientId", "client_id"): client.client_id,
        keys.get("clientSecret", "client_secret"): client.client_secret,
    }, point
    assert client.scopes == set(world.service()["spec"]["scopes"]), point
    assert entry.chosen is None, point
    if world.server.manages_clients and client.registration_token:
        # our handle is good: the registration token in the ledger is the server's current one
        assert entry.registration.registration_access_token == client.registration_token, point
    if isinstance(world.server, FakeKeycloak):
        assert own_client_scopes(world.server) == {client.client_id}, point
        assert world.server.client_scopes[client.client_id].audiences == {client.client_id, AUDIENCE}, point


def assert_service_is_gone(world: World, point: str) -> None:
    assert world.cluster.objects(PROTECTED_SERVICE) == [], point
    assert [entry for entry in world.ledgers() if entry.record.state is not State.ORPHANED] == [], point
    if isinstance(world.server, FakeKeycloak):
        assert own_client_scopes(world.server) == set(), point


def own_client_scopes(server: FakeKeycloak) -> set[str]:
    return {name for name in server.client_scopes if name.startswith("psvc-")}


async def assert_nothing_more_to_do(world: World, point: str) -> None:
    await world.later(61)
    writes, calls = len(world.writes()), len([s for s in world.server.requests if s.operation != "metadata"])
    await world.later(61)
    assert world.writes()[writes:] == [], point
    assert len([s for s in world.server.requests if s.operation != "metadata"]) == calls, point


@pytest.mark.parametrize("kind", ["dynamic", "hydra", "keycloak"])
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_exactly_one_client_whatever_the_crash_where_a_registration_can_be_repeated(
    kind: str, flow: str, after: bool
) -> None:
    case = FLOWS[flow]
    effects = await count_effects(case, honoured=True, kind=kind)

    assert effects >= 4

    for effect in range(1, effects + 1):
        point = f"{flow}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=True, kind=kind)
        if case.remains:
            assert_service_is_whole(world, point)
            assert len(world.server.clients) == 1, point
        else:
            assert_service_is_gone(world, point)
            assert world.server.clients == {}, point
        assert world.server.created_total == 1, point
        assert reported_leaks(world) == 0, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize(
    ("kind", "honoured"),
    [("dynamic", True), ("dynamic", False), ("hydra", True), ("keycloak", True), ("register-only", False)],
)
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_a_withdrawn_scope_is_gone_from_the_client_in_use_whatever_the_crash(
    kind: str, honoured: bool, after: bool
) -> None:
    case = Case(onboarded_with_more, grant_less, remains=True)
    effects = await count_effects(case, honoured=honoured, kind=kind)

    for effect in range(1, effects + 1):
        point = f"effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=honoured, kind=kind)
        (entry,) = world.ledgers()
        assert entry.record.state is State.REGISTERED, point
        assert entry.registration is not None
        client = world.server.clients[entry.registration.client_id]
        assert client.scopes == {"read"}, point
        assert world.credentials()["client_secret"] == client.client_secret, point
        assert world.condition("orders", "ClientRegistered") == ("False", "ScopeNotAllowed"), point
        assert len(world.server.clients) - 1 <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_one_client_in_use_and_every_leak_reported_where_the_server_offers_only_rfc_7592(
    flow: str, after: bool
) -> None:
    case = FLOWS[flow]
    effects = await count_effects(case, honoured=False)

    for effect in range(1, effects + 1):
        point = f"{flow}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=False)
        in_use = 0
        if case.remains:
            assert_service_is_whole(world, point)
            in_use = 1
        else:
            assert_service_is_gone(world, point)
        leaked = len(world.server.clients) - in_use
        assert leaked <= 1, point  # each interrupted POST or lost PUT reply leaves at most one
        assert leaked <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("honoured", [True, False], ids=["idempotency key honoured", "only RFC 7592"])
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_a_retained_client_and_its_secret_outlive_the_object_whatever_the_crash(
    honoured: bool, after: bool
) -> None:
    case = Case(onboarded_to_stay, delete, remains=False)
    effects = await count_effects(case, honoured=honoured)

    assert effects >= 3  # ledger, Secret, finalizer

    for effect in range(1, effects + 1):
        point = f"effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=honoured)
        assert_client_stayed(world, point)
        assert reported_leaks(world) == 0, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_an_update_that_was_killed_is_finished_before_its_client_is_left_behind(after: bool) -> None:
    case = Case(onboarded_to_stay, update, remains=True)
    for effect in range(1, await count_effects(case, honoured=True) + 1):
        point = f"effect {effect}, {'after' if after else 'before'}"
        world = World()
        await case.prepare(world)
        world.kill_at(effect, after=after)
        update(world)
        with pytest.raises(Killed):
            await world.settle()
        delete(world)
        world.restart()
        await world.recover()

        assert_client_stayed(world, point)
        await assert_nothing_more_to_do(world, point)


def assert_client_stayed(world: World, point: str) -> None:
    assert world.cluster.objects(PROTECTED_SERVICE) == [], point
    (entry,) = world.ledgers()
    assert entry.record.state is State.RETAINED, point
    assert entry.registration is not None
    (client,) = world.server.clients.values()
    assert world.credentials() == {"client_id": client.client_id, "client_secret": client.client_secret}, point
    assert entry.registration.registration_access_token == client.registration_token, point
    assert "ownerReferences" not in world.cluster.read(SECRET, "tenant", "orders-oauth2-client")["metadata"], point
    assert "ClientRetained" in [reason for reason, _ in world.events()], point


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_every_client_left_behind_is_reported_where_the_server_can_only_register(flow: str, after: bool) -> None:
    case = FLOWS[flow]
    effects = await count_effects(case, honoured=False, kind="register-only")

    for effect in range(1, effects + 1):
        point = f"{flow}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(case, effect, after=after, honoured=False, kind="register-only")
        in_use = 0
        if case.remains:
            assert_service_is_whole(world, point)
            in_use = 1
        else:
            assert_service_is_gone(world, point)
        left = len(world.server.clients) - in_use
        # An update leaves the old client and a deletion the only one; an interrupted POST one more at most.
        assert left <= (2 if flow == "update" else 1), point
        assert left <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("kind", ["hydra", "keycloak"])
async def test_the_ledger_holds_id_and_secret_before_the_server_hears_of_them(kind: str) -> None:
    world = World(kind=kind)
    world.server.fail_on(Operation.REGISTER, status=None, times=None, after_effect=True)
    create(world)
    await world.settle()
    (entry,) = world.ledgers()

    assert entry.record.state is State.REGISTERING
    assert entry.chosen is not None
    assert world.cluster.objects(SECRET, "tenant") == []  # nothing is handed out that may not exist

    world.server.heal()
    await world.recover()
    assert_service_is_whole(world, kind)
    (after,) = world.ledgers()
    assert after.registration == entry.chosen
    assert world.server.created_total == 1


@pytest.mark.parametrize("kind", ["hydra", "keycloak"])
async def test_an_interrupted_registration_is_repeated_as_spec_says_by_then(kind: str) -> None:
    world = World(kind=kind)
    world.server.fail_on(Operation.REGISTER, status=None, after_effect=True)
    create(world)
    await world.settle()
    update(world)
    await world.recover()

    assert_service_is_whole(world, kind)
    assert world.server.created_total == 1


@pytest.mark.parametrize("kind", ["hydra", "keycloak"])
async def test_a_client_lost_at_the_server_is_made_anew_at_the_next_update(kind: str) -> None:
    world = World(kind=kind)
    await onboarded(world)
    world.server.lose_client(next(iter(world.server.clients)))
    update(world)
    await world.recover()

    assert_service_is_whole(world, kind)
    assert len(world.server.clients) == 1
    assert reported_leaks(world) == 0


@pytest.mark.parametrize("kind", ["hydra", "keycloak"])
async def test_a_refused_registration_leaves_nothing_behind_when_its_object_goes(kind: str) -> None:
    world = World(kind=kind)
    world.server.fail_on(Operation.REGISTER, status=400, times=None, after_effect=True)
    create(world)
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "InvalidClientMetadata")

    world.server.heal()
    delete(world)
    await world.recover()
    assert_service_is_gone(world, kind)
    assert world.server.clients == {}


async def test_a_client_that_its_server_cannot_delete_holds_its_object_not_even_in_an_outage() -> None:
    world = World(kind="register-only", idempotency_honoured=False)
    await onboarded(world)
    world.server.down = True
    delete(world)
    await world.settle()

    assert_service_is_gone(world, "deleted")
    (entry,) = world.ledgers()
    published = world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")["status"]["capabilities"]
    assert (published["register"], published["update"], published["delete"]) == (True, False, False)
    assert (entry.record.state, entry.record.client_id) == (State.ORPHANED, next(iter(world.server.clients)))
    assert reported_leaks(world) == 1
    assert world.uncertain == 1


@pytest.mark.parametrize("act", [update, delete])
async def test_a_changed_kind_of_registration_leaves_nothing_behind_without_a_word(
    act: Callable[[World], None],
) -> None:
    world = World(kind="hydra")
    world.server.fail_on(Operation.REGISTER, status=None, times=None, after_effect=True)
    create(world)
    await world.settle()
    world.server.heal()
    world.server.metadata = {}
    credential = {"name": "authorization-server-registration"}
    changed = {"dynamicClientRegistration": {"idempotencyKey": "Ignored"}, "credentialsSecret": credential}
    world.cluster.edit(
        AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda body: body["spec"].update(registration=changed)
    )
    await world.settle()
    act(world)
    await world.recover()

    in_use = [entry for entry in world.ledgers() if entry.record.state is State.REGISTERED]
    assert len(in_use) == (1 if act is update else 0)
    assert len(world.server.clients) - len(in_use) == 1
    assert reported_leaks(world) >= 1


async def test_a_replacement_that_was_interrupted_is_deleted_with_its_object() -> None:
    world = World()
    await onboarded(world)
    (old,) = world.server.clients.values()
    old.registration_token = "somebody made it another one"  # our handle is lost
    world.server.fail_on(Operation.REGISTER, status=None, times=None, after_effect=True)
    update(world)
    await world.settle()

    assert len(world.server.clients) == 2
    (entry,) = world.ledgers()
    assert entry.record.state is State.REGISTERING

    world.server.heal()
    delete(world)
    await world.recover()
    assert_service_is_gone(world, "deleted")
    assert list(world.server.clients.values()) == [old]  # nobody holds its handle
    assert reported_leaks(world) == 1


async def test_a_service_deleted_while_its_registration_was_interrupted_leaves_no_client() -> None:
    for effect in range(1, 12):
        world = World()
        world.kill_at(effect, after=True)
        create(world)
        with pytest.raises(Killed):
            await world.settle()
        delete(world)
        world.restart()
        await world.recover()

        assert_service_is_gone(world, f"effect {effect}")
        assert world.server.clients == {}, effect


async def test_two_kills_in_a_row_still_end_with_one_client() -> None:
    effects = await count_effects(FLOWS["create"], honoured=True)
    for first in range(1, effects + 1):
        for second in (1, 2, 3):
            world = World()
            world.kill_at(first, after=True)
            create(world)
            with pytest.raises(Killed):
                await world.settle()
            world.restart()
            world.kill_at(second, after=True)
            try:
                await world.recover()
            except Killed:
                world.restart()
                await world.recover()

            assert_service_is_whole(world, f"effects {first} and {second}")
            assert len(world.server.clients) == 1
