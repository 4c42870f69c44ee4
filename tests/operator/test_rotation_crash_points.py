"""`kill -9` at every point of a rotation and of a repair at the server; see `test_crash_points.py`.

The promises are those of docs/promises.md: exactly one client in the end where a registration can be repeated;
elsewhere one in use, and every one that may be left behind counted and told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import PROTECTED_SERVICE, SECRET

from ..support.fake_authorization_server import Operation
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import protected_service
from ..support.world import Killed, World
from .test_crash_points import (
    AUDIENCE,
    Flow,
    assert_nothing_more_to_do,
    assert_service_is_gone,
    assert_service_is_whole,
    delete,
    onboarded,
    own_client_scopes,
    reported_leaks,
)

pytestmark = pytest.mark.thorough

HOUR = 3600.0
PERIOD = 1.5 * HOUR  # in which a look at the client falls due, and what was given up is tried again
ROTATION = 700.0  # in which a rotation ends: at Keycloak, two lifetimes of a token
KILLS = pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])

Act = Callable[[World], None]


def rotate(world: World) -> None:
    annotation = {"protectedservice.dev/rotate": "now"}
    world.cluster.edit(
        PROTECTED_SERVICE,
        "tenant",
        "orders",
        lambda body: body["metadata"].setdefault("annotations", {}).update(annotation),
    )


def edit_at_server(world: World) -> None:
    (client,) = world.server.clients.values()
    if isinstance(world.server, FakeKeycloak):
        world.server.realm_clients[client.client_id].optional.add("write")
        world.server._take_over(client.client_id)
    else:
        client.metadata["scope"] = "read write"


def lose(world: World) -> None:
    (client,) = world.server.clients
    world.server.lose_client(client)


async def onboarded_to_stay(world: World) -> None:
    world.add(protected_service("orders", audience=AUDIENCE, client={"deletionPolicy": "Retain"}))
    await world.settle()


@dataclass(frozen=True)
class Server:
    kind: str
    honoured: bool

    def world(self) -> World:
        # Probes of the server are no part of any flow here, and would be most of the work.
        return World(kind=self.kind, idempotency_honoured=self.honoured, probe_interval=300.0)


REPEATABLE = {
    "dynamic": Server("dynamic", honoured=True),
    "hydra": Server("hydra", honoured=True),
    "keycloak": Server("keycloak", honoured=True),
}
ELSEWHERE = {
    "only RFC 7592": Server("dynamic", honoured=False),
    "register only": Server("register-only", honoured=False),
}


async def count_effects(server: Server, prepare: Flow, act: Act, *, seconds: float = ROTATION) -> int:
    world = server.world()
    await prepare(world)
    world.effects = 0
    act(world)
    await world.later(seconds)
    return world.effects


async def killed_world(
    server: Server, prepare: Flow, act: Act, effect: int, *, after: bool, seconds: float = ROTATION
) -> World:
    """A world in which the process died at this effect; another one has not begun yet."""
    world = server.world()
    await prepare(world)
    world.kill_at(effect, after=after)
    act(world)
    with pytest.raises(Killed):
        await world.later(seconds)
    world.restart()
    return world


def assert_one_client(world: World, server: Server, point: str) -> None:
    assert_service_is_whole(world, point)
    (entry,) = world.ledgers()
    assert entry.record.second is None, point
    assert entry.second is None, point
    assert world.condition("orders", "Rotating") is None, point
    left = len(world.server.clients) - 1
    if server.honoured:
        assert left == 0, point
        assert world.server.created_total - world.server.deleted_total <= 2, point
    assert left <= reported_leaks(world), point


@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_a_rotation_goes_on_where_it_was_killed_and_leaves_one_client(name: str, after: bool) -> None:
    server = REPEATABLE[name]
    effects = await count_effects(server, onboarded, rotate)

    assert effects >= 12

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, onboarded, rotate, effect, after=after)
        await world.later(2 * ROTATION)

        assert_one_client(world, server, point)
        assert (world.server.created_total, world.server.deleted_total) == (2, 1), point  # never a third one
        assert reported_leaks(world) == 0, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", ELSEWHERE)
@KILLS
async def test_a_rotation_that_cannot_be_taken_up_rolls_back_and_every_client_left_is_told(
    name: str, after: bool
) -> None:
    server = ELSEWHERE[name]
    effects = await count_effects(server, onboarded, rotate)

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, onboarded, rotate, effect, after=after)
        await world.settle()
        assert world.condition("orders", "CredentialsReady") == ("True", "Projected"), point
        await world.later(PERIOD)

        assert_one_client(world, server, point)
        left = len(world.server.clients) - 1
        # An interrupted POST leaves one at most; a server that cannot delete keeps the old one besides.
        assert left <= (2 if name == "register only" else 1), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", [*REPEATABLE, *ELSEWHERE])
async def test_no_kill_during_a_rotation_takes_the_client_away_from_the_pods(name: str) -> None:
    """What the tenant's Secret holds at any moment is a client that the server knows."""
    server = (REPEATABLE | ELSEWHERE)[name]
    for effect in range(1, await count_effects(server, onboarded, rotate) + 1):
        world = await killed_world(server, onboarded, rotate, effect, after=True)
        given_out = world.credentials()
        client = world.server.clients[given_out["client_id"]]

        assert client.client_secret == given_out["client_secret"], effect


@pytest.mark.parametrize("name", [*REPEATABLE, *ELSEWHERE])
@KILLS
async def test_an_object_that_is_deleted_during_a_rotation_takes_both_clients_with_it(name: str, after: bool) -> None:
    server = (REPEATABLE | ELSEWHERE)[name]
    for effect in range(1, await count_effects(server, onboarded, rotate) + 1):
        point = f"{name}, effect {effect}, {'after' if after else 'before'}"
        world = await killed_world(server, onboarded, rotate, effect, after=after)
        delete(world)
        await world.recover()

        assert_service_is_gone(world, point)
        if server.honoured:
            assert world.server.clients == {}, point
            assert reported_leaks(world) == 0, point
        assert len(world.server.clients) <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_an_object_whose_client_is_to_stay_keeps_the_one_that_was_given_out(name: str, after: bool) -> None:
    server = REPEATABLE[name]
    for effect in range(1, await count_effects(server, onboarded_to_stay, rotate) + 1):
        point = f"{name}, effect {effect}, {'after' if after else 'before'}"
        world = await killed_world(server, onboarded_to_stay, rotate, effect, after=after)
        given_out = world.credentials()
        delete(world)
        await world.recover()

        assert world.cluster.objects(PROTECTED_SERVICE) == [], point
        assert world.credentials() == given_out, point
        assert set(world.server.clients) == {given_out["client_id"]}, point
        assert "ownerReferences" not in world.cluster.read(SECRET, "tenant", "orders-oauth2-client")["metadata"], point
        (entry,) = world.ledgers()
        assert (entry.record.state, entry.second, entry.chosen) == (State.RETAINED, None, None), point
        assert entry.registration is not None
        assert entry.registration.client_id == given_out["client_id"], point
        if isinstance(world.server, FakeKeycloak):
            assert own_client_scopes(world.server) == {given_out["client_id"]}, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_the_end_of_an_object_in_the_midst_of_a_rotation_can_be_killed_itself(name: str, after: bool) -> None:
    server = REPEATABLE[name]

    async def swapped(world: World) -> None:
        await onboarded(world)
        rotate(world)
        await world.settle()
        assert len(world.server.clients) == 2

    effects = await count_effects(server, swapped, delete)
    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, swapped, delete, effect, after=after)
        await world.recover()

        assert_service_is_gone(world, point)
        assert world.server.clients == {}, point
        assert reported_leaks(world) == 0, point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", ["hydra", "dynamic"])
async def test_a_second_client_of_a_kept_one_is_deleted_when_the_server_comes_back_after_the_deadline(
    name: str,
) -> None:
    world = World(kind=name, settings={"deletion_deadline": 600.0})
    await onboarded_to_stay(world)
    rotate(world)
    await world.settle()
    given_out = world.credentials()
    assert len(world.server.clients) == 2
    world.server.down = True
    await world.later(60)
    delete(world)
    await world.later(300)
    assert world.cluster.objects(PROTECTED_SERVICE) != []  # it waits for the server
    await world.later(HOUR)
    assert world.cluster.objects(PROTECTED_SERVICE) == []
    world.server.heal()
    await world.recover()
    await world.recover()

    assert set(world.server.clients) == {given_out["client_id"]}
    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.second) == (State.RETAINED, None)


@pytest.mark.parametrize("act", [edit_at_server, lose], ids=["edited", "lost"])
@pytest.mark.parametrize("name", REPEATABLE)
@KILLS
async def test_a_repair_at_the_server_ends_with_one_client_whatever_the_crash(name: str, act: Act, after: bool) -> None:
    server = REPEATABLE[name]
    effects = await count_effects(server, onboarded, act, seconds=HOUR)

    assert effects >= 3

    for effect in range(1, effects + 1):
        point = f"{name}, effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, onboarded, act, effect, after=after, seconds=HOUR)
        await world.later(HOUR)

        assert_service_is_whole(world, point)
        assert len(world.server.clients) == 1, point
        assert world.server.created_total == (2 if act is lose else 1), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("act", [edit_at_server, lose], ids=["edited", "lost"])
@KILLS
async def test_a_repair_without_idempotency_keys_leaves_no_client_untold(act: Act, after: bool) -> None:
    server = ELSEWHERE["only RFC 7592"]
    effects = await count_effects(server, onboarded, act, seconds=HOUR)
    for effect in range(1, effects + 1):
        point = f"effect {effect} of {effects}, {'after' if after else 'before'}"
        world = await killed_world(server, onboarded, act, effect, after=after, seconds=HOUR)
        await world.later(HOUR)

        assert_service_is_whole(world, point)
        left = len(world.server.clients) - 1
        assert left <= 1, point
        assert left <= reported_leaks(world), point
        await assert_nothing_more_to_do(world, point)


@pytest.mark.parametrize("name", REPEATABLE)
async def test_a_lost_answer_to_the_second_registration_is_asked_for_again(name: str) -> None:
    world = REPEATABLE[name].world()
    await onboarded(world)
    world.server.fail_on(Operation.REGISTER, status=None, after_effect=True)
    rotate(world)
    await world.later(PERIOD)

    assert_one_client(world, REPEATABLE[name], name)
    assert world.server.created_total == 2
