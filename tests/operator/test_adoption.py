"""Adoption (`client.adopt`): a client that other hands made becomes a service's, and keeps its id, come what may."""

from __future__ import annotations

import json

import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, DEPLOYMENT, PROTECTED_SERVICE, SECRET

from ..support.adoption import (
    KINDS,
    MANAGED,
    SECRET_NAME,
    UNMANAGED,
    adopted,
    adopting,
    allow,
    assert_untouched,
    bring,
    copied,
    edit,
    made_by_hand,
    prepared,
    refused,
    secret,
    tag_of,
)
from ..support.fake_authorization_server import Operation
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import OPERATOR_NAMESPACE
from ..support.world import World
from .test_crash_points import assert_nothing_more_to_do, reported_leaks

# --- the way it goes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_the_client_that_is_there_becomes_the_services_and_keeps_its_id(kind: str) -> None:
    world = await adopted(kind)

    assert set(world.server.clients) == {"legacy"}
    assert world.server.created_total == 0
    assert world.service()["status"]["clientId"] == "legacy"
    assert world.credentials() == {"client_id": "legacy", "client_secret": "legacy-secret-1"}
    assert "ClientAdopted" in [reason for reason, _ in world.events()]
    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.adopted) == (State.REGISTERED, True)
    assert world.cluster.read(SECRET, "tenant", SECRET_NAME)["data"] == secret()["data"]  # it is only read
    await world.later(120)
    await assert_nothing_more_to_do(world, kind)


@pytest.mark.parametrize("kind", MANAGED)
async def test_where_the_server_lets_us_the_client_gets_our_tag_and_the_scopes_of_spec(kind: str) -> None:
    world = await adopted(kind, scopes=["read", "write"])

    assert world.server.clients["legacy"].scopes == {"read", "write"}
    assert f"/tenant/orders/{world.service()['metadata']['uid']}/" in tag_of(world)


@pytest.mark.parametrize("kind", UNMANAGED)
async def test_where_it_does_not_the_client_is_used_as_it_is_and_that_is_said(kind: str) -> None:
    world = await adopted(kind)
    client = world.server.clients["legacy"]
    before = copied(client)
    edit(world, scopes=["read", "write"])
    await world.later(4000)

    assert_untouched(world, client, before)
    assert "used as it is" in world.message("orders", "ClientRegistered")
    assert any("scope read write" in text for reason, text in world.events() if reason == "ClientUnchangeable")
    assert world.server.count(Operation.REGISTER) == 0
    assert world.server.count(Operation.UPDATE) == 0
    assert reported_leaks(world) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_no_secret_is_told_to_anybody(kind: str) -> None:
    world = await adopted(kind)
    bring(world, "a-guess-of-somebodys")
    await world.later(130)

    told = json.dumps([world.service()["status"], world.service()["metadata"], world.events()])
    told += json.dumps([entry.record.model_dump(mode="json") for entry in world.ledgers()])
    assert not [value for value in {*world.server.secrets_ever, "a-guess-of-somebodys"} if value in told]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_secret_may_go_when_the_client_is_adopted(kind: str) -> None:
    world = await adopted(kind)
    world.cluster.remove(SECRET, "tenant", SECRET_NAME)
    await world.later(4000)

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.service()["status"]["clientId"] == "legacy"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_missing_secret_is_waited_for_and_no_client_is_made_meanwhile(kind: str) -> None:
    world = World(kind=kind)
    allow(world)
    made_by_hand(world)
    world.add(adopting())
    await world.later(300)

    assert world.condition("orders", "CredentialsReady") == ("False", "CredentialsNotBrought")
    assert f"tenant/{SECRET_NAME}" in world.message("orders", "CredentialsReady")
    assert world.ledgers() == []

    world.cluster.insert(SECRET, secret())
    await world.later(61)
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 0


async def test_a_suspended_service_adopts_nothing_until_it_goes_on() -> None:
    world = await prepared("hydra")
    world.add(adopting(suspend=True))
    await world.later(300)
    assert world.ledgers() == []

    edit(world, suspend=False)
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")


# --- its end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_the_client_stays_when_its_service_is_deleted_unless_spec_says_otherwise(kind: str) -> None:
    world = await adopted(kind)
    client = world.server.clients["legacy"]
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.server.clients == {"legacy": client}
    assert [entry.record.state for entry in world.ledgers()] == [State.RETAINED]
    assert world.credentials()["client_secret"] == "legacy-secret-1"
    assert reported_leaks(world) == 0


@pytest.mark.parametrize("kind", MANAGED)
async def test_it_goes_where_spec_says_so(kind: str) -> None:
    world = await adopted(kind, policy="Delete")
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert (world.server.clients, world.ledgers(), reported_leaks(world)) == ({}, [], 0)


@pytest.mark.parametrize("kind", UNMANAGED)
async def test_it_is_told_as_left_behind_where_the_server_gives_no_way_to_delete_it(kind: str) -> None:
    world = await adopted(kind, policy="Delete")
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert "legacy" in world.server.clients
    assert [reason for reason, _ in world.events()].count("ClientOrphaned") == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_was_left_can_be_adopted_again_from_its_namespace(kind: str) -> None:
    world = await adopted(kind)
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()
    world.cluster.remove(SECRET, "tenant", "orders-oauth2-client")
    world.add(adopting())
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]["conditions"]
    assert set(world.server.clients) == {"legacy"}


async def test_allow_adoption_withdrawn_leaves_what_was_adopted() -> None:
    world = await adopted("hydra")
    allow(world, allowed=False)
    edit(world, scopes=["write"])
    await world.later(4000)

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.clients["legacy"].scopes == {"write"}


@pytest.mark.parametrize("kind", MANAGED)
async def test_a_namespace_that_is_not_allowed_any_more_loses_the_client_although_it_was_adopted(kind: str) -> None:
    world = await adopted(kind)
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
    )
    await world.later(700)

    assert world.server.clients == {}  # it has scopes by the operator's hand


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orphaned", [False, True], ids=["its object lives", "its object is gone"])
async def test_an_authorization_server_that_is_deleted_goes_without_the_client(kind: str, orphaned: bool) -> None:
    world = await adopted(kind)
    if orphaned:
        world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["metadata"].update(finalizers=[]))
        world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    world.cluster.remove(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    await world.recover()

    assert world.cluster.objects(AUTHORIZATION_SERVER) == []
    assert set(world.server.clients) == {"legacy"}
    assert reported_leaks(world) == 0


@pytest.mark.parametrize("kind", UNMANAGED)
async def test_one_that_nobody_can_delete_is_told_then_and_adopted_again_when_the_namespace_is_allowed(
    kind: str,
) -> None:
    world = await adopted(kind)
    for source, seconds in (("Same", 700), ("All", 130)):
        world.cluster.edit(
            AUTHORIZATION_SERVER,
            OPERATOR_NAMESPACE,
            "default",
            lambda body, source=source: body["spec"].update(allowedNamespaces={"from": source}),  # type: ignore[misc]
        )
        await world.later(seconds)
        if source == "Same":
            assert [entry.record.state for entry in world.ledgers()] == [State.ORPHANED]
            assert [reason for reason, _ in world.events()].count("ClientOrphaned") == 1

    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]["conditions"]
    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.left_behind) == (State.REGISTERED, ())
    assert world.server.created_total == 0


async def test_the_sweep_deletes_no_adopted_client_without_being_asked() -> None:
    world = await adopted("hydra")
    world.sweeps = True
    world.restart()
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["metadata"].update(finalizers=[]))
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.later(3 * 3700)

    assert set(world.server.clients) == {"legacy"}
    assert len(world.ledgers()) == 1
    assert any("adopted and stays" in text for reason, text in world.events() if reason == "ClientOrphaned")


# --- lost, changed, rotated ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_client_is_never_replaced_by_another_one(kind: str) -> None:
    world = await adopted(kind)
    world.server.lose_client("legacy")
    await world.later(8000)

    assert world.server.clients == {}
    assert world.server.created_total == 0
    assert refused(world) == ("False", "AdoptionNotProved")
    assert world.condition("orders", "Stalled") == ("True", "AdoptionNotProved")
    assert [reason for reason, _ in world.events()].count("ClientLost") == 1
    assert reported_leaks(world) == 0
    assert len(world.cluster.objects(SECRET, "tenant")) == 2

    made_by_hand(world, client_secret="legacy-secret-2")
    bring(world, "legacy-secret-2")
    await world.later(130)
    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]["conditions"]
    assert world.credentials()["client_secret"] == "legacy-secret-2"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_client_whose_secret_is_gone_is_waited_for_and_its_pods_stay(kind: str) -> None:
    world = await adopted(kind)
    world.cluster.remove(SECRET, "tenant", SECRET_NAME)
    world.server.lose_client("legacy")
    await world.later(8000)

    assert world.condition("orders", "ClientRegistered") == ("False", "ClientLost")
    assert world.condition("orders", "CredentialsReady") == ("False", "CredentialsNotBrought")
    assert world.server.created_total == 0
    assert len(world.cluster.objects(DEPLOYMENT)) == 1

    made_by_hand(world)
    allow(world, allowed=False)  # it was adopted once
    world.cluster.insert(SECRET, secret())
    await world.later(130)
    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]["conditions"]


@pytest.mark.parametrize("kind", KINDS)
async def test_another_secret_of_the_client_is_taken_over_from_the_secret(kind: str) -> None:
    world = await adopted(kind)
    if isinstance(world.server, FakeKeycloak):
        world.server.realm_clients["legacy"].representation["secret"] = "legacy-secret-2"
    world.server.clients["legacy"].client_secret = "legacy-secret-2"
    bring(world, "legacy-secret-2")
    await world.settle()

    assert world.credentials()["client_secret"] == "legacy-secret-2"
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_secret_written_later_is_told_and_the_service_stays_as_it_is(kind: str) -> None:
    world = await adopted(kind)
    bring(world, "a-slip-of-the-pen")
    await world.later(300)

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.credentials()["client_secret"] == "legacy-secret-1"
    assert "AdoptionNotProved" in [reason for reason, _ in world.events()]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_adopted_client_is_not_rotated_and_that_is_said(kind: str) -> None:
    world = await adopted(kind)
    note = {"protectedservice.dev/rotate": "now"}
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["metadata"].update(annotations=note))
    await world.later(600)

    assert world.condition("orders", "Rotating") == ("False", "CannotRotate")
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 0


@pytest.mark.parametrize("kind", MANAGED)
async def test_what_was_changed_at_the_server_is_put_right_once(kind: str) -> None:
    world = await adopted(kind)
    await world.later(8000)
    assert "ClientDriftRepaired" not in [reason for reason, _ in world.events()]

    if isinstance(world.server, FakeKeycloak):
        world.server.realm_clients["legacy"].optional.clear()
    else:
        world.server.clients["legacy"].metadata["scope"] = ""
    await world.later(8000)

    assert world.server.clients["legacy"].scopes == {"read"}
    assert [reason for reason, _ in world.events()].count("ClientDriftRepaired") == 1
