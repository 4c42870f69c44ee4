"""deletionPolicy: Retain: the client, its Secret and its ledger entry outlive the object, and nothing touches them."""

from __future__ import annotations

from typing import Any

import pytest

from protectedservice_operator.errors import ClusterUnavailable
from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import DEPLOYMENT, NAMESPACE, PROTECTED_SERVICE, SECRET

from ..support.fake_authorization_server import Operation
from ..support.fake_cluster import Write
from ..support.objects import protected_service
from ..support.world import World

CREDENTIALS = "orders-oauth2-client"


async def ready_world(policy: str = "Retain") -> World:
    world = World()
    world.add(protected_service("orders", client={"deletionPolicy": policy}))
    await world.settle()
    return world


def delete(world: World) -> None:
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")


def set_policy(world: World, policy: str) -> None:
    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"]["client"].update(deletionPolicy=policy)
    )


async def test_the_client_and_its_secret_stay_and_the_rest_goes() -> None:
    world = await ready_world()
    before, client = world.credentials(), world.service()["status"]["clientId"]

    delete(world)
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == world.cluster.objects(DEPLOYMENT) == []
    assert list(world.server.clients) == [client]
    assert world.server.count(Operation.DELETE) == 0
    assert world.credentials() == before
    (entry,) = world.ledgers()
    assert entry.record.state is State.RETAINED
    (text,) = [message for reason, message in world.events() if reason == "ClientRetained"]
    assert client in text
    assert CREDENTIALS in text
    assert before["client_secret"] not in text


async def test_a_server_that_is_away_does_not_hold_the_deletion() -> None:
    world = await ready_world()

    world.server.down = True
    await world.later(61)
    delete(world)
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert len(world.server.clients) == 1


async def test_the_policy_at_the_time_of_the_deletion_counts() -> None:
    world = await ready_world("Delete")

    set_policy(world, "Retain")
    await world.settle()
    delete(world)
    await world.settle()

    assert len(world.server.clients) == 1

    other = await ready_world()
    set_policy(other, "Delete")
    await other.settle()
    delete(other)
    await other.settle()

    assert other.server.clients == {}
    assert other.ledgers() == []


async def test_a_secret_that_a_foreground_deletion_has_removed_is_written_again() -> None:
    world = await ready_world()
    before = world.credentials()

    delete(world)
    world.cluster.remove(SECRET, "tenant", CREDENTIALS)
    await world.settle()

    assert world.credentials() == before
    assert "ownerReferences" not in world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"]


async def test_an_owner_reference_that_somebody_else_holds_too_is_taken_off() -> None:
    world = await ready_world()
    owner = world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"]["ownerReferences"]
    with_owner = {"metadata": {"name": CREDENTIALS, "namespace": "tenant", "ownerReferences": owner}}
    world.cluster.manager = "somebody"
    await world.cluster.apply(SECRET, with_owner)
    world.cluster.manager = "protectedservice-operator"

    delete(world)
    await world.settle()

    assert not world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"].get("ownerReferences")


async def test_a_foreign_secret_of_that_name_is_left_alone() -> None:
    world = await ready_world()
    world.cluster.remove(SECRET, "tenant", CREDENTIALS)
    foreign = {"metadata": {"name": CREDENTIALS, "namespace": "tenant"}, "data": {"a": "Yg=="}}
    made = world.cluster.insert(SECRET, foreign)

    delete(world)
    await world.settle()

    assert world.cluster.read(SECRET, "tenant", CREDENTIALS) == made
    assert world.cluster.objects(PROTECTED_SERVICE) == []


async def test_in_a_namespace_that_ends_the_ledger_keeps_the_client() -> None:
    world = await ready_world()

    world.cluster.terminate_namespace("tenant")
    await world.settle()
    world.cluster.collect_garbage()

    assert [obj["metadata"]["name"] for obj in world.cluster.objects(NAMESPACE)] == ["other", "protectedservice-system"]
    (entry,) = world.ledgers()
    assert entry.record.state is State.RETAINED
    assert entry.registration is not None
    assert list(world.server.clients) == [entry.registration.client_id]


async def test_a_new_service_of_the_name_leaves_the_old_client_and_its_secret_alone() -> None:
    world = await ready_world()
    before, (old,) = world.credentials(), world.server.clients
    delete(world)
    await world.settle()

    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "CredentialsReady") == ("False", "NotOwned")
    assert world.credentials() == before

    delete(world)
    await world.later(61)

    assert list(world.server.clients) == [old]
    assert world.credentials() == before


async def test_a_service_that_never_got_a_client_retains_nothing() -> None:
    world = World()
    world.add(protected_service("orders", scopes=["nobody-knows"], client={"deletionPolicy": "Retain"}))
    await world.settle()

    delete(world)
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.ledgers() == []


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_a_finalizer_that_the_cluster_did_not_take_off_is_taken_off_later(policy: str) -> None:
    world = await ready_world(policy)
    effect = world.cluster.before_effect

    def fail(write: Write) -> None:
        effect(write)
        body: Any = write.body
        if write.kind is PROTECTED_SERVICE and body["metadata"].get("finalizers") == []:
            raise ClusterUnavailable("ClusterUnavailable", "away")

    world.cluster.before_effect = fail
    delete(world)
    await world.settle()

    assert [type(outcome) for outcome in world.outcomes.values()] == [ClusterUnavailable]

    world.cluster.before_effect = effect
    await world.later(1)

    assert world.cluster.objects(PROTECTED_SERVICE) == []
