"""The proofs of adoption (`client.adopt`): what is not proved is refused, whoever's client it is."""

from __future__ import annotations

import pytest

from protectedservice_operator.registration.hydra import TAG
from protectedservice_operator.resource import PROTECTED_SERVICE, SECRET, SERVICE_CLIENT

from ..support.adoption import (
    KINDS,
    MANAGED,
    SECRET_NAME,
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
)
from ..support.fake_authorization_server import Operation
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import protected_service, service_client
from ..support.world import World

# --- proofs that are not there ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_adopted_where_the_server_object_does_not_say_so(kind: str) -> None:
    world = await prepared(kind)
    allow(world, allowed=False)
    world.add(adopting())
    await world.later(300)

    assert refused(world) == ("False", "AdoptionNotAllowed")
    assert world.server.count(Operation.TOKEN) == 0
    assert world.ledgers() == []

    allow(world)
    await world.later(61)
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_where_nobody_registers_there_is_nothing_to_adopt() -> None:
    world = await prepared("none")
    world.add(adopting())
    await world.settle()

    assert refused(world) == ("False", "CannotRegister")
    assert "create false" in world.message("orders", "ClientRegistered")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wrong_secret_proves_nothing(kind: str) -> None:
    world = await prepared(kind)
    client = world.server.clients["legacy"]
    before = copied(client)
    bring(world, "attackers-guess-1")
    world.add(adopting())
    await world.later(300)

    assert refused(world) == ("False", "AdoptionNotProved")
    assert world.condition("orders", "Stalled") == ("True", "AdoptionNotProved")
    assert_untouched(world, client, before)
    assert world.ledgers() == []

    bring(world, "legacy-secret-1")
    await world.later(61)
    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_secret_of_another_client_proves_nothing(kind: str) -> None:
    """The tenant has a client of its own, and names somebody else's in the manifest."""
    world = await prepared(kind)
    victim = world.server.clients["legacy"]
    before = copied(victim)
    made_by_hand(world, "mine", "my-secret-1")
    data = secret("mine", "my-secret-1")["data"]
    world.cluster.edit(SECRET, "tenant", SECRET_NAME, lambda body: body.update(data=data))
    world.add(adopting())
    await world.later(300)

    assert world.condition("orders", "CredentialsReady") == ("False", "CredentialsNotBrought")
    assert_untouched(world, victim, before)
    assert world.ledgers() == []


async def test_a_server_that_takes_any_secret_proves_nothing() -> None:
    world = await prepared("hydra")
    world.server._authenticated = lambda request: world.server.clients["legacy"]  # type: ignore[method-assign]
    world.add(adopting())
    await world.later(300)

    assert refused(world) == ("False", "AdoptionNotProved")
    assert world.ledgers() == []


async def test_secrets_are_not_guessed_by_way_of_the_operator() -> None:
    world = await prepared("hydra")
    bring(world, "attackers-guess-0")
    world.add(adopting())
    await world.settle()
    asked = world.server.count(Operation.TOKEN)
    for guess in range(1, 20):
        bring(world, f"attackers-guess-{guess}")
        await world.later(1)

    assert world.server.count(Operation.TOKEN) == asked


@pytest.mark.parametrize("kind", MANAGED)
async def test_a_client_that_logs_people_in_is_not_adopted(kind: str) -> None:
    world = await prepared(kind)
    client = world.server.clients["legacy"]
    if isinstance(world.server, FakeKeycloak):
        world.server.realm_clients["legacy"].representation["standardFlowEnabled"] = True
    else:
        client.metadata["grant_types"] = ["authorization_code", "client_credentials"]
    world.add(adopting())
    await world.later(300)

    assert refused(world) == ("False", "ClientInOtherUse")
    assert world.server.count(Operation.UPDATE) == 0
    assert world.ledgers() == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outage", ["connection", "500", "senseless"])
async def test_an_outage_during_the_proof_proves_nothing_and_is_waited_for(kind: str, outage: str) -> None:
    world = await prepared(kind)
    match outage:
        case "connection":
            world.server.fail_on(Operation.TOKEN, status=None, times=None)
        case "500":
            world.server.fail_on(Operation.TOKEN, status=500, times=None)
        case "senseless":
            world.server.fail_on(Operation.TOKEN, status=400, times=None, body=b'{"error": "unauthorized_client"}')
    world.add(adopting())
    await world.later(120)

    assert world.ledgers() == []
    assert world.condition("orders", "Stalled") is None
    assert world.condition("orders", "Ready") != ("True", "Ready")

    world.server.heal()
    await world.recover()
    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]["conditions"]
    assert world.server.created_total == 0


async def test_by_dynamic_registration_the_operators_own_credential_is_not_needed() -> None:
    world = await prepared("dynamic")
    world.server.initial_access_token = "changed-at-the-server-alone"
    world.add(protected_service("invoices"))
    await world.settle()
    assert world.condition("invoices", "ClientRegistered") == ("False", "RegistrationRefused")

    world.add(adopting())
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_admin_api_that_refuses_the_operator_is_waited_for_and_told_at_its_server() -> None:
    world = await prepared("keycloak")
    server = world.server
    assert isinstance(server, FakeKeycloak)
    user, server.user = server.user, ("admin", "changed-at-the-server-alone")
    await world.later(120)
    world.add(adopting())
    await world.later(120)
    assert world.condition("orders", "ClientRegistered") == ("False", "RegistrationRefused")
    assert world.ledgers() == []

    server.user = user
    await world.recover()
    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize("kind", MANAGED)
async def test_an_outage_of_the_admin_api_proves_nothing_and_is_waited_for(kind: str) -> None:
    world = await prepared(kind)
    world.server.fail_on(Operation.READ, status=503, times=None)
    world.add(adopting())
    await world.later(120)
    assert world.ledgers() == []

    world.server.heal()
    await world.recover()
    assert world.condition("orders", "Ready") == ("True", "Ready")


# --- attacks ---------------------------------------------------------------------------------------------------------


def attack(world: World, client_id: str, client_secret: str) -> None:
    """Tenant `other` adopts a client whose secret it has, wherever from."""
    world.cluster.insert(SECRET, secret(client_id, client_secret, namespace="other"))
    world.add(adopting("other", client_id))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_another_tenant_has_adopted_is_not_had_again_even_with_its_secret(kind: str) -> None:
    world = await adopted(kind)
    victim = world.server.clients["legacy"]
    before = copied(victim)
    attack(world, "legacy", "legacy-secret-1")
    await world.later(300)

    assert refused(world, "other") == ("False", "ClientIdTaken")
    assert world.condition("orders", "Stalled", "other") == ("True", "ClientIdTaken")
    assert "tenant" not in world.message("orders", "ClientRegistered", "other")
    assert_untouched(world, victim, before)

    world.cluster.remove(PROTECTED_SERVICE, "other", "orders")
    await world.settle()
    assert world.server.clients == {"legacy": victim}
    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_the_operator_made_for_another_tenant_is_not_adopted_with_a_stolen_secret(
    kind: str,
) -> None:
    world = World(kind=kind, idempotency_honoured=kind != "register-only")
    allow(world)
    world.add(protected_service("orders"))
    await world.settle()
    (victim,) = world.server.clients.values()
    before = copied(victim)
    attack(world, victim.client_id, victim.client_secret)
    await world.later(300)

    assert refused(world, "other") == ("False", "ClientIdTaken")
    assert_untouched(world, victim, before)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_client_of_a_service_client_is_not_adopted_with_its_secret(kind: str) -> None:
    world = World(kind=kind, idempotency_honoured=kind != "register-only")
    allow(world)
    world.cluster.insert(SERVICE_CLIENT, service_client("shop", scopes=["read"]))
    await world.settle()
    (victim,) = world.server.clients.values()
    before = copied(victim)
    attack(world, victim.client_id, victim.client_secret)
    await world.later(300)

    assert refused(world, "other") == ("False", "ClientIdTaken")
    assert_untouched(world, victim, before)


async def test_a_brought_client_of_another_tenant_is_not_adopted_with_its_secret() -> None:
    world = World(kind="hydra")
    allow(world)
    brought = secret("theirs", "their-secret-1")
    brought["metadata"]["name"] = "orders-oauth2-client"
    world.cluster.insert(SECRET, brought)
    world.add(protected_service("orders", client={"credentialsSecret": {"create": False}}))
    await world.settle()
    attack(world, "theirs", "their-secret-1")
    await world.later(300)

    assert refused(world, "other") == ("False", "ClientIdTaken")


async def test_an_adopted_client_is_not_taken_over_by_bringing_its_id() -> None:
    world = await adopted("hydra")
    brought = secret("legacy", "attackers-secret-1", "other")
    brought["metadata"]["name"] = "orders-oauth2-client"
    world.cluster.insert(SECRET, brought)
    world.add(protected_service("orders", "other", client={"credentialsSecret": {"create": False}}))
    await world.later(300)

    assert refused(world, "other") == ("False", "ClientIdTaken")
    assert world.server.clients["legacy"].client_secret == "legacy-secret-1"


@pytest.mark.parametrize("kind", KINDS)
async def test_of_two_who_adopt_the_same_client_at_the_same_moment_one_is_refused(kind: str) -> None:
    world = await prepared(kind)
    world.add(adopting())
    attack(world, "legacy", "legacy-secret-1")
    await world.later(300)

    assert {refused(world), refused(world, "other")} == {("True", "Registered"), ("False", "ClientIdTaken")}
    assert len(world.ledgers()) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_another_namespace_left_on_purpose_is_not_adopted_with_its_secret(kind: str) -> None:
    world = await adopted(kind)
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()
    attack(world, "legacy", "legacy-secret-1")
    await world.later(300)

    assert refused(world, "other") == ("False", "ClientIdTaken")


@pytest.mark.parametrize(
    "tag",
    [
        "other-cluster/tenant/orders/uid-of-theirs/12345678",
        "cluster/other/orders/uid-of-theirs/12345678",
        "somebody was here",
    ],
    ids=["of another cluster", "of another namespace", "unreadable"],
)
@pytest.mark.parametrize("kind", MANAGED)
async def test_a_client_with_somebody_elses_tag_is_not_adopted_even_with_its_secret(kind: str, tag: str) -> None:
    world = World(kind=kind)
    allow(world)
    victim = made_by_hand(world, tag=tag)
    before = copied(victim)
    world.cluster.insert(SECRET, secret())
    world.add(adopting())
    await world.later(300)

    assert refused(world) == ("False", "ClientIdTaken")
    assert_untouched(world, victim, before)
    assert world.ledgers() == []


@pytest.mark.parametrize("kind", MANAGED)
async def test_a_tag_of_an_object_that_lives_keeps_the_client_from_its_neighbours(kind: str) -> None:
    """Whoever wrote the tag: the ledger may have been lost."""
    world = World(kind=kind)
    allow(world)
    world.add(protected_service("invoices"))
    await world.settle()
    uid = world.service("invoices")["metadata"]["uid"]
    made_by_hand(world, tag=f"cluster/tenant/invoices/{uid}/12345678")
    world.cluster.insert(SECRET, secret())
    world.add(adopting())
    await world.later(300)

    assert refused(world) == ("False", "ClientIdTaken")


@pytest.mark.parametrize("kind", MANAGED)
async def test_a_forged_tag_of_our_own_is_no_proof(kind: str) -> None:
    """Of the object that is to adopt: known beforehand to whoever may write tags."""
    world = await prepared(kind)
    bring(world, "attackers-guess-1")
    body = world.add(adopting())
    if isinstance(world.server, FakeKeycloak):
        attributes = world.server.realm_clients["legacy"].representation["attributes"]
        attributes[TAG] = f"cluster/tenant/orders/{body['metadata']['uid']}/12345678"
    else:
        metadata = world.server.clients["legacy"].metadata["metadata"]
        metadata[TAG] = f"cluster/tenant/orders/{body['metadata']['uid']}/12345678"
    await world.later(300)

    assert refused(world) == ("False", "AdoptionNotProved")
    assert world.ledgers() == []


@pytest.mark.parametrize("kind", MANAGED)
async def test_a_client_that_is_somebody_elses_by_now_is_neither_changed_nor_deleted(kind: str) -> None:
    world = await adopted(kind, policy="Delete")
    world.server.lose_client("legacy")
    stranger = made_by_hand(world, client_secret="crm-secret-1")
    before = copied(stranger)
    edit(world, scopes=["write"])
    await world.later(300)

    assert refused(world) == ("False", "AdoptionNotProved")
    assert_untouched(world, stranger, before)

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.recover()
    assert_untouched(world, stranger, before)
    assert world.cluster.objects(PROTECTED_SERVICE) == []
