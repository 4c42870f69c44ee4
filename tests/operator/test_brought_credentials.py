"""Credentials that somebody else brings (`create: false`): registered as they are, waited for, never written."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from protectedservice_operator.registration.hydra import TAG
from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET, SERVICE_CLIENT

from ..support.fake_authorization_server import Answer, Client, Operation, Request
from ..support.fake_hydra import FakeHydra
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import OPERATOR_NAMESPACE, protected_service, service_client
from ..support.world import Killed, World
from .test_crash_points import assert_nothing_more_to_do, reported_leaks

BROUGHT = {"credentialsSecret": {"create": False}}
NAME = "orders-oauth2-client"
CHOOSING = ["hydra", "keycloak"]


def secret(
    client_id: str = "orders-client", client_secret: str = "brought-secret-1", namespace: str = "tenant"
) -> dict[str, Any]:
    values = {"client_id": client_id, "client_secret": client_secret}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    metadata = {"name": NAME, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def bring(world: World, client_id: str = "orders-client", client_secret: str = "brought-secret-1") -> None:
    data = secret(client_id, client_secret)["data"]
    world.cluster.edit(SECRET, "tenant", NAME, lambda body: body.update(data=data))


def made_by_hand(world: World, client_id: str = "orders-client", client_secret: str = "brought-secret-1") -> None:
    """The server's administrator makes a client."""
    world.server.clients[client_id] = Client(client_id, client_secret, "", {"scope": "read", "client_name": "by hand"})
    world.server.secrets_ever.add(client_secret)


async def ready(kind: str, *, labelled: bool = True, **spec: Any) -> World:
    world = World(kind=kind)
    if kind == "none":
        made_by_hand(world)
    body = secret()
    if labelled:
        body["metadata"]["labels"] = {"protectedservice.dev/watch": "true"}
    world.cluster.insert(SECRET, body)
    world.add(protected_service("orders", client={**BROUGHT, **spec}))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]["conditions"]
    return world


def untouched(world: World) -> bool:
    return not [write for write in world.cluster.writes if write.kind is SECRET and write.namespace == "tenant"]


@pytest.mark.parametrize("kind", CHOOSING)
async def test_exactly_what_was_brought_is_registered_and_the_secret_is_not_written(kind: str) -> None:
    world = await ready(kind)

    (client,) = world.server.clients.values()
    assert (client.client_id, client.client_secret) == ("orders-client", "brought-secret-1")
    assert world.service()["status"]["clientId"] == "orders-client"
    assert untouched(world)
    await world.later(120)  # the number of clients is written, once
    await assert_nothing_more_to_do(world, kind)


async def test_a_client_made_by_hand_is_used_as_it_is_where_nobody_registers() -> None:
    world = await ready("none")

    assert {seen.operation for seen in world.server.requests} <= {
        Operation.METADATA,
        Operation.TOKEN,
        Operation.INTROSPECT,
        Operation.REVOKE,
    }
    assert "used as it is" in world.message("orders", "ClientRegistered")
    assert untouched(world)


async def test_a_server_at_which_nobody_registers_can_do_nothing_and_says_so() -> None:
    world = World(kind="none")
    await world.settle()

    assert world.server_condition("Ready") == ("True", "Ready")
    server = world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    assert server["status"]["capabilities"]
    assert not any(server["status"]["capabilities"].values())


async def test_a_service_that_brings_nothing_is_told_to_where_nobody_registers() -> None:
    world = World(kind="none")
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "CannotRegister")
    assert world.condition("orders", "Stalled") == ("True", "CannotRegister")
    assert world.ledgers() == []


async def test_a_caller_is_told_that_nobody_registers() -> None:
    world = World(kind="none")
    world.cluster.insert(SERVICE_CLIENT, service_client("shop", scopes=["read"]))
    await world.settle()

    conditions = world.cluster.read(SERVICE_CLIENT, "tenant", "shop")["status"]["conditions"]
    assert ("ClientRegistered", "CannotRegister") in [(each["type"], each["reason"]) for each in conditions]
    assert world.ledgers() == []


async def test_a_server_that_chooses_ids_cannot_take_what_is_brought() -> None:
    world = World()
    world.cluster.insert(SECRET, secret())
    world.add(protected_service("orders", client=BROUGHT))
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "CannotChooseCredentials")
    assert world.condition("orders", "Stalled") == ("True", "CannotChooseCredentials")
    assert world.server.clients == {}
    assert world.ledgers() == []


@pytest.mark.parametrize("kind", [*CHOOSING, "none"])
async def test_a_missing_secret_is_waited_for_by_name_and_nothing_is_invented(kind: str) -> None:
    world = World(kind=kind)
    world.add(protected_service("orders", client=BROUGHT))
    await world.later(300)

    assert world.condition("orders", "CredentialsReady") == ("False", "CredentialsNotBrought")
    message = world.message("orders", "CredentialsReady")
    assert all(part in message for part in (f"tenant/{NAME}", "client_id", "client_secret"))
    assert world.ledgers() == []
    assert untouched(world)

    if kind == "none":
        made_by_hand(world)
    world.cluster.insert(SECRET, secret())
    await world.later(61)  # no watch shows a Secret without our label

    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("client_id", "client_secret"),
    [
        ("..", "brought-secret-1"),
        ("a/../b", "brought-secret-1"),
        ("orders\n", "brought-secret-1"),
        ("x" * 129, "brought-secret-1"),
        ("orders?x=1", "brought-secret-1"),
        ("orders", "brought-secret-1\n"),
        ("orders", ""),
        ("psvc-1234-5678", "brought-secret-1"),
    ],
)
async def test_values_that_cannot_be_used_are_refused_without_being_said(client_id: str, client_secret: str) -> None:
    world = World(kind="hydra")
    world.cluster.insert(SECRET, secret(client_id, client_secret))
    world.add(protected_service("orders", client=BROUGHT))
    await world.settle()

    assert world.condition("orders", "CredentialsReady") == ("False", "CredentialsNotBrought")
    assert "brought-secret-1" not in str(world.service()["status"])
    assert world.server.count(Operation.REGISTER) == 0
    assert world.ledgers() == []


@pytest.mark.parametrize("kind", CHOOSING)
@pytest.mark.parametrize("labelled", [True, False], ids=["watched", "polled"])
async def test_another_secret_is_told_to_the_server(kind: str, labelled: bool) -> None:
    world = await ready(kind, labelled=labelled)
    bring(world, client_secret="brought-secret-2")
    await world.later(0 if labelled else 61)

    (client,) = world.server.clients.values()
    assert client.client_secret == "brought-secret-2"
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1
    (entry,) = world.ledgers()
    assert (entry.registration.client_secret, entry.chosen) == ("brought-secret-2", None)  # type: ignore[union-attr]
    assert untouched(world)


@pytest.mark.parametrize("kind", [*CHOOSING, "none"])
async def test_another_id_is_another_client_and_the_old_one_goes(kind: str) -> None:
    world = await ready(kind)
    if kind == "none":
        made_by_hand(world, "orders-2", "brought-secret-2")
    bring(world, "orders-2", "brought-secret-2")
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.service()["status"]["clientId"] == "orders-2"
    assert set(world.server.clients) == ({"orders-client", "orders-2"} if kind == "none" else {"orders-2"})
    assert reported_leaks(world) == 0


async def test_a_retained_client_is_not_given_up_for_another_id() -> None:
    world = await ready("hydra", deletionPolicy="Retain")
    bring(world, "orders-2", "brought-secret-2")
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "ClientRetained")
    assert set(world.server.clients) == {"orders-client"}


@pytest.mark.parametrize("kind", [*CHOOSING, "none"])
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_the_secret_outlives_the_object_as_it_was(kind: str, policy: str) -> None:
    world = await ready(kind, deletionPolicy=policy)
    before = world.cluster.read(SECRET, "tenant", NAME)
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.cluster.read(SECRET, "tenant", NAME) == before
    assert len(world.server.clients) == (0 if policy == "Delete" and kind != "none" else 1)
    assert reported_leaks(world) == 0
    assert [entry.record.state for entry in world.ledgers()] == (
        [State.RETAINED] if policy == "Retain" and kind != "none" else []
    )


async def test_a_rotation_that_is_asked_for_leaves_brought_credentials_alone() -> None:
    world = await ready("hydra")
    note = {"protectedservice.dev/rotate": "now"}
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["metadata"].update(annotations=note))
    await world.later(600)

    assert list(world.server.clients) == ["orders-client"]
    assert world.server.created_total == 1
    assert untouched(world)


async def test_drift_is_not_repaired_at_a_client_that_is_somebody_elses_by_now() -> None:
    world = await ready("hydra")
    del world.server.clients["orders-client"]
    stranger(world, "orders-client", None)
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["write"]))
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "ClientIdTaken")
    assert world.server.clients["orders-client"].client_secret == "crm-secret-1"


@pytest.mark.parametrize("kind", CHOOSING)
async def test_a_client_at_which_nothing_was_changed_is_not_put_right(kind: str) -> None:
    world = await ready(kind)
    await world.later(8000)

    assert "ClientDriftRepaired" not in [reason for reason, _ in world.events()]


async def test_a_refused_secret_can_be_corrected_within_a_minute() -> None:
    world = await ready("hydra")
    world.server.fail_on(Operation.UPDATE, status=400, times=1)
    bring(world, client_secret="short")
    await world.settle()
    assert world.condition("orders", "Ready") == ("False", "InvalidClientMetadata")

    bring(world, client_secret="brought-secret-3")
    await world.later(122)

    (client,) = world.server.clients.values()
    assert client.client_secret == "brought-secret-3"


# --- attacks ---------------------------------------------------------------------------------------------------------


def attack(world: World, client_id: str) -> None:
    """Tenant `other` brings the id of somebody else's client, with a secret that it knows."""
    world.cluster.insert(SECRET, secret(client_id, "attackers-secret-1", namespace="other"))
    world.add(protected_service("orders", "other", client=BROUGHT))


@pytest.mark.parametrize("kind", CHOOSING)
async def test_another_tenants_client_is_not_taken_over_by_bringing_its_id(kind: str) -> None:
    world = await ready(kind)
    victim = world.server.clients["orders-client"]
    before = (victim.client_secret, dict(victim.metadata))
    attack(world, "orders-client")
    await world.later(600)

    assert world.condition("orders", "ClientRegistered", "other") == ("False", "ClientIdTaken")
    assert (victim.client_secret, dict(victim.metadata)) == before
    assert "tenant" not in world.message("orders", "ClientRegistered", "other")  # it learns nothing of whose it is

    world.cluster.remove(PROTECTED_SERVICE, "other", "orders")
    await world.settle()
    assert world.server.clients == {"orders-client": victim}
    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize("kind", CHOOSING)
async def test_a_generated_client_of_another_tenant_is_not_taken_over_either(kind: str) -> None:
    world = World(kind=kind)
    world.add(protected_service("orders"))
    await world.settle()
    (victim,) = world.server.clients.values()
    before = victim.client_secret
    attack(world, victim.client_id)
    await world.settle()

    assert world.condition("orders", "CredentialsReady", "other") == ("False", "CredentialsNotBrought")
    assert (list(world.server.clients.values()), victim.client_secret) == ([victim], before)


@pytest.mark.parametrize("tagged", [False, True], ids=["no tag", "somebody else's tag"])
@pytest.mark.parametrize("kind", CHOOSING)
async def test_a_client_that_the_ledger_does_not_know_is_not_taken_over(kind: str, tagged: bool) -> None:
    world = World(kind=kind)
    stranger(world, "crm", "other-cluster/crm/crm/uid-of-crm/12345678" if tagged else None)
    attack(world, "crm")
    await world.later(600)

    assert world.condition("orders", "ClientRegistered", "other") == ("False", "ClientIdTaken")
    assert world.server.clients["crm"].client_secret == "crm-secret-1"
    assert world.server.count(Operation.REGISTER) == 0
    assert world.ledgers() == []

    world.cluster.remove(PROTECTED_SERVICE, "other", "orders")
    await world.settle()
    assert "crm" in world.server.clients


async def test_an_id_cannot_name_somebody_elses_client_scope_at_keycloak() -> None:
    world = World(kind="keycloak")
    server = world.server
    assert isinstance(server, FakeKeycloak)
    before = {name: dict(scope.mappers) for name, scope in server.client_scopes.items()}
    attack(world, "write")  # the name of a client scope of the realm
    await world.settle()

    assert world.condition("orders", "Ready", "other") == ("True", "Ready")
    assert {name: dict(server.client_scopes[name].mappers) for name in before} == before
    world.cluster.remove(PROTECTED_SERVICE, "other", "orders")
    await world.settle()
    assert set(server.client_scopes) == set(before)


async def test_a_client_that_came_in_between_is_neither_taken_over_nor_deleted() -> None:
    world = World(kind="hydra")
    world.cluster.insert(SECRET, secret("crm", "attackers-secret-1", namespace="other"))
    world.server.fail_on(Operation.REGISTER, status=None, times=None)
    world.add(protected_service("orders", "other", client=BROUGHT))
    await world.settle()
    (entry,) = world.ledgers()
    assert entry.record.state is State.REGISTERING

    stranger(world, "crm", None)
    world.server.heal()
    await world.recover()
    assert world.condition("orders", "ClientRegistered", "other") == ("False", "ClientIdTaken")

    world.cluster.remove(PROTECTED_SERVICE, "other", "orders")
    await world.recover()
    assert world.server.clients["crm"].client_secret == "crm-secret-1"
    assert world.cluster.objects(PROTECTED_SERVICE) == []


@pytest.mark.parametrize("kind", ["hydra", "keycloak"])
async def test_a_client_that_came_between_the_look_and_the_registration_is_not_overwritten(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(kind=kind)
    perform = world.server.perform

    def somebody_is_faster(operation: Operation, client_id: str | None, request: Request) -> Answer:
        if operation is Operation.REGISTER and "crm" not in world.server.clients:
            stranger(world, "crm", None)
        return perform(operation, client_id, request)

    monkeypatch.setattr(world.server, "perform", somebody_is_faster)
    world.cluster.insert(SECRET, secret("crm", "attackers-secret-1", namespace="other"))
    world.add(protected_service("orders", "other", client=BROUGHT))
    await world.settle()
    assert world.condition("orders", "ClientRegistered", "other") == ("False", "ClientIdTaken")

    await world.recover()
    world.cluster.remove(PROTECTED_SERVICE, "other", "orders")
    await world.recover()
    assert world.server.clients["crm"].client_secret == "crm-secret-1"
    assert world.cluster.objects(PROTECTED_SERVICE) == []


async def test_of_two_who_bring_the_same_id_at_the_same_moment_one_is_refused() -> None:
    world = World(kind="hydra")
    world.cluster.insert(SECRET, secret())
    world.cluster.insert(SECRET, secret(client_secret="attackers-secret-1", namespace="other"))
    for namespace in ("tenant", "other"):
        world.add(protected_service("orders", namespace, client=BROUGHT))
    await world.later(120)

    assert world.server.created_total == 1
    reasons = {world.condition("orders", "ClientRegistered", namespace) for namespace in ("tenant", "other")}
    assert reasons == {("True", "Registered"), ("False", "ClientIdTaken")}


def stranger(world: World, client_id: str, tag: str | None) -> None:
    """A client that neither this operator nor its ledger knows."""
    server = world.server
    if isinstance(server, FakeKeycloak):
        attributes = {TAG: tag} if tag is not None else {}
        server._create(
            {
                "clientId": client_id,
                "secret": "crm-secret-1",
                "name": "CRM",
                "attributes": attributes,
                "defaultClientScopes": [],
                "optionalClientScopes": [],
            }
        )
    else:
        assert isinstance(server, FakeHydra)
        metadata = {"metadata": {TAG: tag}} if tag is not None else {}
        server.clients[client_id] = Client(client_id, "crm-secret-1", "", {"scope": "read", **metadata})


# --- kill -9 ---------------------------------------------------------------------------------------------------------


async def before_creation(kind: str) -> World:
    world = World(kind=kind)
    if kind == "none":
        made_by_hand(world)
    world.cluster.insert(SECRET, secret())
    return world


@pytest.mark.parametrize("kind", [*CHOOSING, "none"])
@pytest.mark.parametrize("flow", ["create", "another secret", "another id", "delete"])
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_exactly_the_client_that_is_brought_whatever_the_crash(kind: str, flow: str, after: bool) -> None:
    for effect in range(1, 60):
        world = await (before_creation(kind) if flow == "create" else ready(kind))
        if kind == "none" and flow == "another id":
            made_by_hand(world, "orders-2", "brought-secret-2")
        world.kill_at(effect, after=after)
        match flow:
            case "create":
                world.add(protected_service("orders", client=BROUGHT))
            case "another secret":
                if kind == "none":
                    world.server.clients["orders-client"].client_secret = "brought-secret-2"
                bring(world, client_secret="brought-secret-2")
            case "another id":
                bring(world, "orders-2", "brought-secret-2")
            case "delete":
                world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
        try:
            await world.settle()
            died = False
        except Killed:
            died = True
            world.restart()
            await world.recover()

        point = f"effect {effect}"
        assert reported_leaks(world) == 0, point
        assert untouched(world), point
        if flow == "delete":
            assert world.ledgers() == [], point
            assert len(world.server.clients) == (1 if kind == "none" else 0), point
        else:
            (entry,) = world.ledgers()
            assert (entry.record.state, entry.chosen) == (State.REGISTERED, None), point
            assert world.condition("orders", "Ready") == ("True", "Ready"), (point, world.service()["status"])
            client = world.server.clients[world.service()["status"]["clientId"]]
            assert world.credentials()["client_secret"] == client.client_secret, point
            assert world.credentials()["client_id"] == client.client_id, point
            assert kind == "none" or len(world.server.clients) == 1, point
        if not died:
            break
    assert effect > 1
