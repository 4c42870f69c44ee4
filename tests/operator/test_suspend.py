"""A suspended service is left alone: nothing of it is changed, repaired or proved; only its deletion goes on."""

from __future__ import annotations

from typing import Any

import pytest

from protectedservice_operator.resource import DEPLOYMENT, PROTECTED_SERVICE, SECRET, SERVICE

from ..support.fake_authorization_server import Operation
from ..support.objects import protected_service
from ..support.world import World


async def suspended_world(**spec: Any) -> World:
    world = World()
    world.add(protected_service("orders", **spec))
    await world.settle()
    await world.later(95)  # the number of clients in the AuthorizationServer follows within a minute
    await world.later(61)
    suspend(world)
    await world.settle()
    return world


def suspend(world: World, *, suspended: bool = True) -> None:
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(suspend=suspended))


def scale(body: dict[str, Any]) -> None:
    body["spec"]["replicas"] = 7


def changing_calls(world: World) -> list[Any]:
    return [seen for seen in world.server.requests if seen.operation != Operation.METADATA]


async def test_a_service_that_is_whole_stays_ready_and_says_that_it_is_suspended() -> None:
    world = await suspended_world()

    assert world.condition("orders", "Suspended") == ("True", "Suspended")
    assert world.condition("orders", "Ready") == ("True", "Suspended")
    assert world.condition("orders", "Verified") == ("True", "Proved")
    assert world.service()["status"]["observedGeneration"] == 2
    assert [reason for reason, _ in world.events()].count("Suspended") == 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [(DEPLOYMENT, "orders-protected"), (SERVICE, "orders-protected"), (SECRET, "orders-oauth2-client")],
    ids=str,
)
async def test_a_child_that_is_deleted_meanwhile_is_missed_but_not_made_again(kind: Any, name: str) -> None:
    world = await suspended_world()
    writes = len(world.writes())

    world.cluster.remove(kind, "tenant", name)
    await world.later(61)

    assert {(write.kind, write.subresource) for write in world.writes()[writes:]} <= {(PROTECTED_SERVICE, "status")}
    assert not [obj for obj in world.cluster.objects(kind, "tenant") if obj["metadata"]["name"] == name]


async def test_an_edited_deployment_is_left_as_it_was_edited_and_put_back_afterwards() -> None:
    world = await suspended_world()

    world.cluster.edit(DEPLOYMENT, "tenant", "orders-protected", scale)
    await world.settle()

    assert world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")["spec"]["replicas"] == 7
    assert world.condition("orders", "Ready") == ("False", "Suspended")
    assert "spec.suspend" in world.message("orders", "WorkloadAvailable")
    assert world.condition("orders", "Reconciling") is None

    suspend(world, suspended=False)
    await world.settle()

    assert world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")["spec"]["replicas"] == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.condition("orders", "Suspended") is None


async def test_an_edit_of_the_spec_waits_and_is_made_when_the_suspension_ends() -> None:
    world = await suspended_world()
    calls = len(changing_calls(world))

    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["read", "write"])
    )
    await world.later(61)

    (client,) = world.server.clients.values()
    assert client.scopes == {"read"}
    assert len(changing_calls(world)) == calls
    assert world.condition("orders", "ClientRegistered") == ("False", "Suspended")

    suspend(world, suspended=False)
    await world.settle()

    assert client.scopes == {"read", "write"}
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_service_that_is_suspended_from_the_start_gets_no_client_no_finalizer_and_no_child() -> None:
    world = World()
    world.add(protected_service("orders", suspend=True))

    await world.settle()

    assert changing_calls(world) == []
    assert world.cluster.objects(DEPLOYMENT) == []
    assert "finalizers" not in world.service()["metadata"]
    assert world.condition("orders", "Ready") == ("False", "Suspended")

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []


async def test_the_proof_that_falls_due_is_not_made_and_nothing_is_written() -> None:
    world = await suspended_world()
    writes, calls = len(world.writes()), len(changing_calls(world))

    await world.later(24 * 3600.0)
    await world.later(61)

    assert world.writes()[writes:] == []
    assert len(changing_calls(world)) == calls


async def test_an_outage_is_told_of_a_suspended_service_too() -> None:
    world = await suspended_world()

    world.server.down = True
    await world.later(61)

    assert world.condition("orders", "AuthorizationServerReady") == ("False", "AuthorizationServerUnavailable")


async def test_the_deletion_of_a_suspended_service_proceeds() -> None:
    world = await suspended_world()

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.server.clients == {}
    assert world.ledgers() == []
