"""A namespace that may not use its AuthorizationServer any more: told at once, its clients deleted in ten minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    DEPLOYMENT,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE,
    SERVICE_CLIENT,
)

from ..support.objects import OPERATOR_NAMESPACE, protected_service, service_client
from ..support.world import Killed, World
from .test_brought_credentials import BROUGHT, made_by_hand, secret
from .test_crash_points import reported_leaks

MINUTE = 60.0


def allow(world: World, from_: str) -> None:
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": from_}),
    )


def withdraw(world: World) -> None:
    allow(world, "Same")


def give_back(world: World) -> None:
    allow(world, "All")


async def ready(kind: str = "dynamic", *, honoured: bool = True, **client: Any) -> World:
    """`kind`: as a World has it, or `without-management`: registration with a credential, and no RFC 7592."""
    made = kind if kind != "without-management" else "dynamic"
    # Probes of the server are no part of any flow here, and would be most of the work.
    world = World(kind=made, idempotency_honoured=honoured, probe_interval=300.0)
    world.server.manages_clients &= kind != "without-management"
    if kind == "none":
        made_by_hand(world)
        world.cluster.insert(SECRET, secret())
        client = {**BROUGHT, **client}
    world.add(protected_service("orders", client=client))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


async def test_the_message_says_at_once_which_client_is_deleted_and_when() -> None:
    world = await ready()
    withdraw(world)
    await world.settle()

    assert world.condition("orders", "AuthorizationServerReady") == ("False", "NotAllowed")
    message = world.message("orders", "AuthorizationServerReady")
    (client,) = world.server.clients
    assert client in message
    assert "is deleted at 2026-" in message
    assert "spec.allowedNamespaces" in message


async def test_the_client_lives_nine_minutes_and_is_gone_after_ten() -> None:
    world = await ready()
    withdraw(world)
    await world.later(9 * MINUTE)
    assert len(world.server.clients) == 1

    await world.later(MINUTE + 1)

    assert world.server.clients == {}
    assert world.ledgers() == []
    assert world.condition("orders", "Ready") == ("False", "NotAllowed")
    assert reported_leaks(world) == 0


async def test_restarts_do_not_begin_the_ten_minutes_anew() -> None:
    world = await ready()
    withdraw(world)
    for _ in range(5):
        await world.later(2 * MINUTE)
        world.restart()
        await world.settle()
    await world.later(1)

    assert world.server.clients == {}


async def test_a_permission_given_back_within_ten_minutes_leaves_no_trace() -> None:
    world = await ready()
    before = world.ledgers()
    calls = [seen for seen in world.server.requests if seen.operation != "metadata"]
    withdraw(world)
    await world.later(9 * MINUTE)
    give_back(world)
    await world.later(20 * MINUTE)

    assert world.ledgers() == before
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert [seen for seen in world.server.requests if seen.operation != "metadata"] == calls


async def test_a_second_withdrawal_has_ten_minutes_of_its_own() -> None:
    world = await ready()
    withdraw(world)
    await world.later(9 * MINUTE)
    give_back(world)
    await world.settle()
    withdraw(world)
    await world.later(9 * MINUTE)

    assert len(world.server.clients) == 1


async def test_a_permission_given_back_too_late_gives_another_client() -> None:
    world = await ready()
    (old,) = world.server.clients
    withdraw(world)
    await world.later(11 * MINUTE)
    give_back(world)
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.credentials()["client_id"] in world.server.clients
    assert old not in world.server.clients


async def test_the_workload_stays_and_keeps_its_policy() -> None:
    world = await ready()
    kinds = (DEPLOYMENT, SERVICE)
    specs = [body["spec"] for kind in kinds for body in world.cluster.objects(kind)]
    withdraw(world)
    await world.later(20 * MINUTE)

    assert [body["spec"] for kind in kinds for body in world.cluster.objects(kind)] == specs
    assert world.cluster.read(SECRET, "tenant", "orders-oauth2-client")


@pytest.mark.parametrize("evasion", ["suspend", "Retain"])
async def test_what_a_tenant_writes_does_not_keep_a_withdrawn_client(evasion: str) -> None:
    world = await ready(deletionPolicy="Retain" if evasion == "Retain" else "Delete")
    if evasion == "suspend":
        world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(suspend=True))
    withdraw(world)
    await world.later(11 * MINUTE)

    assert world.server.clients == {}


async def test_a_withdrawn_client_is_not_kept_by_deleting_its_object_with_retain() -> None:
    world = await ready(deletionPolicy="Retain")
    withdraw(world)
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.server.clients == {}
    assert world.cluster.objects(PROTECTED_SERVICE) == []


async def test_a_callers_client_goes_ten_minutes_after_its_namespace_lost_the_permission() -> None:
    world = World()
    world.cluster.insert(SERVICE_CLIENT, service_client("shop", scopes=["read"]))
    await world.settle()
    assert len(world.server.clients) == 1
    withdraw(world)
    await world.later(9 * MINUTE)
    assert len(world.server.clients) == 1

    await world.later(2 * MINUTE)

    assert world.server.clients == {}


async def test_a_server_that_is_away_keeps_the_client_until_it_answers() -> None:
    world = await ready()
    withdraw(world)
    world.server.down = True
    await world.later(30 * MINUTE)
    assert len(world.server.clients) == 1

    world.server.heal()
    world.server.down = False
    await world.recover()

    assert world.server.clients == {}


async def test_an_authorization_server_that_is_missing_is_no_withdrawal() -> None:
    world = await ready()
    place = (AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    world.cluster.edit(*place, lambda body: body["metadata"].update(finalizers=[]))  # by hand, so that it waits no more
    world.cluster.remove(*place)
    await world.later(60 * MINUTE)

    assert len(world.server.clients) == 1
    assert world.condition("orders", "Ready") == ("False", "AuthorizationServerDeleted")


async def test_a_service_deleted_meanwhile_is_released_with_its_client() -> None:
    world = await ready()
    withdraw(world)
    await world.later(5 * MINUTE)
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.server.clients == {}
    assert world.cluster.objects(PROTECTED_SERVICE) == []


async def test_a_client_that_its_server_cannot_delete_is_told_and_another_one_made_when_allowed_again() -> None:
    world = await ready("register-only", honoured=False)
    (old,) = world.server.clients
    withdraw(world)
    await world.later(11 * MINUTE)

    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.client_id) == (State.ORPHANED, old)
    assert reported_leaks(world) == 1

    give_back(world)
    await world.settle()

    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.left_behind) == (State.REGISTERED, (old,))
    assert world.condition("orders", "Ready") == ("True", "Ready")


KINDS = [
    ("dynamic", True),
    ("dynamic", False),
    ("without-management", True),
    ("without-management", False),
    ("register-only", False),
    ("hydra", True),
    ("keycloak", True),
    ("none", True),
]
UNMANAGED = ("without-management", "register-only")  # no client can be deleted there


async def settle_through_death(world: World, act: Callable[[World], None], minutes: float) -> bool:
    """Whether the process died of it; another one then has all the time it may need."""
    act(world)
    try:
        await world.later(minutes * MINUTE)
    except Killed:
        world.restart()
        await world.later(minutes * MINUTE)
        return True
    return False


@pytest.mark.parametrize(("kind", "honoured"), KINDS)
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_a_withdrawn_client_is_gone_or_reported_whatever_the_crash(
    kind: str, honoured: bool, after: bool
) -> None:
    for effect in range(1, 40):
        world = await ready(kind, honoured=honoured)
        world.kill_at(effect, after=after)
        died = await settle_through_death(world, withdraw, 11)

        assert_ended(world, kind, f"effect {effect}")
        if not died:
            break
    assert effect > 3  # the note, the deletion's start, the deletion, the entry's end


def assert_ended(world: World, kind: str, point: str) -> None:
    """The client is gone, or reported where it cannot be; one that was made by other hands is left alone."""
    if kind == "none":
        assert (list(world.server.clients), world.server.created_total) == (["orders-client"], 0), point
        assert (world.ledgers(), reported_leaks(world)) == ([], 0), point
        return
    assert world.server.created_total == 1, point
    left = kind in UNMANAGED
    assert len(world.server.clients) == left <= reported_leaks(world), point
    assert [entry.record.state for entry in world.ledgers()] == [State.ORPHANED] * left, point


@pytest.mark.parametrize(("kind", "honoured"), KINDS)
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_a_permission_given_back_keeps_the_client_whatever_the_crash(
    kind: str, honoured: bool, after: bool
) -> None:
    for effect in range(1, 40):
        world = await ready(kind, honoured=honoured)
        withdraw(world)
        await world.later(5 * MINUTE)
        world.kill_at(effect, after=after)
        died = await settle_through_death(world, give_back, 20)

        (entry,) = world.ledgers()
        assert (entry.record.state, entry.record.withdrawn) == (State.REGISTERED, None), effect
        assert len(world.server.clients) == 1, effect
        assert world.server.created_total == (kind != "none"), effect
        assert world.condition("orders", "Ready") == ("True", "Ready"), effect
        if not died:
            break
    assert effect > 1
