"""Another client in the place of the one in use: scheduled or asked for, and given up without anybody noticing."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from typing import Any

import httpx
import pytest

from protectedservice_operator.authorization_server import AuthorizationServer
from protectedservice_operator.conditions import timestamp
from protectedservice_operator.registration.driver import ClientMetadata, Registration
from protectedservice_operator.registration.ledger import Entry, Record, Role, Second, State
from protectedservice_operator.registration.rotator import exchanged
from protectedservice_operator.resource import AUTHORIZATION_SERVER, DEPLOYMENT, PROTECTED_SERVICE, SECRET

from ..support.fake_authorization_server import Operation
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import START, World

HOUR = 3600.0
LIFETIME = 300.0  # of the fake's tokens
KINDS = ["dynamic", "hydra", "keycloak"]


def ask(world: World, value: str = "1") -> None:
    """kubectl annotate."""
    annotation = {"protectedservice.dev/rotate": value}
    world.cluster.edit(
        PROTECTED_SERVICE,
        "tenant",
        "orders",
        lambda body: body["metadata"].setdefault("annotations", {}).update(annotation),
    )


async def onboarded(kind: str = "dynamic", *, honoured: bool = True, **spec: Any) -> World:
    world = World(kind=kind, idempotency_honoured=honoured)
    world.add(protected_service("orders", **spec))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


def set_scope(scope: str, body: dict[str, Any]) -> None:
    body["spec"]["scopes"] = [scope]


def client_in_use(world: World) -> str:
    return world.credentials()["client_id"]


def reasons(world: World) -> list[str]:
    return [reason for reason, _ in world.events()]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_value_of_the_annotation_replaces_the_client_and_then_deletes_the_old_one(kind: str) -> None:
    world = await onboarded(kind)
    old = client_in_use(world)
    ask(world)
    await world.later(2 * LIFETIME + 10)
    new = client_in_use(world)

    assert new != old
    assert set(world.server.clients) == {new}
    assert world.server.deleted_total == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.condition("orders", "Rotating") is None
    assert world.service()["status"]["clientId"] == new
    assert "rotatedAt" in world.service()["status"]
    assert "nextRotation" not in world.service()["status"]
    assert reasons(world).count("RotationStarted") == reasons(world).count("Rotated") == 1
    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.second, entry.second) == (State.REGISTERED, None, None)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_is_good_as_long_as_it_lives_whichever_client_it_is_of(kind: str) -> None:
    world = await onboarded(kind)
    old, secret = world.credentials()["client_id"], world.credentials()["client_secret"]
    ask(world)
    await world.settle()
    while client_in_use(world) == old:  # whoever holds the old credentials mints with them until the Secret changes
        token = await minted(world, old, secret)
        await world.later(20)
        assert world.server.is_active(token)
    last = await minted(world, old, secret)
    ends = world.server.tokens[last].expires_at
    while world.now < ends - 5:
        assert world.server.is_active(last)
        await world.later(5)
    await world.later(130)

    assert old not in world.server.clients


async def minted(world: World, client_id: str, secret: str) -> str:
    """As a caller mints who mounts the tenant's Secret."""
    server = AuthorizationServer.parse(world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default"))
    connection = await world.servers.connection(server)
    return (await connection.tokens.mint(client_id, secret, ("read",))).value


async def test_the_pods_roll_to_the_new_client_before_the_old_one_is_counted_down() -> None:
    world = await onboarded()
    old = client_in_use(world)
    template = world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")["spec"]["template"]
    world.kubelet_runs = False  # the new pods do not become ready
    ask(world)
    await world.later(10 * LIFETIME)

    assert client_in_use(world) != old
    assert world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")["spec"]["template"] != template
    assert old in world.server.clients
    assert world.condition("orders", "Rotating") == ("True", "Rotating")

    world.kubelet_runs = True
    await world.later(60)
    assert old in world.server.clients
    await world.later(LIFETIME)
    assert old not in world.server.clients


async def test_the_old_client_stays_while_the_proof_of_the_new_one_fails() -> None:
    world = await onboarded()
    old = client_in_use(world)
    world.pod_answers = lambda request: httpx.Response(200)
    ask(world)
    await world.later(4 * HOUR)

    assert world.condition("orders", "Verified") == ("False", "VerificationFailed")
    assert old in world.server.clients

    world.pod_answers = None
    await world.later(HOUR)
    assert set(world.server.clients) == {client_in_use(world)}


async def test_the_schedule_replaces_a_client_that_has_served_its_time_and_status_says_when() -> None:
    world = await onboarded(client={"rotation": {"interval": "24h"}})
    first = client_in_use(world)

    assert world.service()["status"]["nextRotation"] == timestamp(START + 24 * HOUR)

    await world.later(24 * HOUR - 60)
    assert client_in_use(world) == first
    await world.later(HOUR)
    second = client_in_use(world)
    assert second != first
    assert set(world.server.clients) == {second}
    assert world.service()["status"]["nextRotation"] > timestamp(START + 48 * HOUR - 1)

    await world.later(24 * HOUR)
    assert client_in_use(world) not in (first, second)
    assert len(world.server.clients) == 1


async def test_a_restart_between_two_turns_neither_forgets_nor_hastens_the_next_one() -> None:
    world = await onboarded(client={"rotation": {"interval": "24h"}})
    first = client_in_use(world)
    await world.later(20 * HOUR)
    world.restart()
    await world.settle()
    await world.later(3 * HOUR)
    assert client_in_use(world) == first
    await world.later(2 * HOUR)
    assert client_in_use(world) != first


async def test_the_same_value_of_the_annotation_is_served_once_restart_or_not() -> None:
    world = await onboarded()
    ask(world)
    await world.later(HOUR)
    made = world.server.created_total
    world.restart()
    await world.later(HOUR)

    assert made == world.server.created_total == 2

    ask(world, "2")
    await world.later(HOUR)
    assert world.server.created_total == 3


async def test_a_service_that_comes_with_the_annotation_is_not_rotated_at_once() -> None:
    world = World()
    body = protected_service("orders")
    body["metadata"]["annotations"] = {"protectedservice.dev/rotate": "at birth"}
    world.add(body)
    await world.later(2 * HOUR)

    assert world.server.created_total == 1


async def test_a_second_request_during_a_rotation_waits_until_it_has_ended() -> None:
    world = await onboarded()
    ask(world, "1")
    await world.settle()
    ask(world, "2")
    await world.settle()

    assert len(world.server.clients) == 2

    await world.later(3 * HOUR)
    assert world.server.created_total == 3
    assert len(world.server.clients) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_without_room_for_a_second_client_leaves_the_service_ready(kind: str) -> None:
    world = await onboarded(kind)
    old = world.credentials()
    world.server.fail_on(Operation.REGISTER, status=400, times=None)
    ask(world)
    await world.settle()

    assert world.credentials() == old
    assert set(world.server.clients) == {old["client_id"]}
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.condition("orders", "Rotating") == ("False", "RotationGivenUp")
    assert "RotationGivenUp" in reasons(world)
    asked = world.server.count(Operation.REGISTER)
    await world.later(HOUR - 120)
    assert world.server.count(Operation.REGISTER) == asked  # until the next turn

    world.server.heal()
    await world.later(2 * HOUR)
    assert client_in_use(world) != old["client_id"]
    assert world.condition("orders", "Rotating") is None
    assert len(world.server.clients) == 1


async def test_a_refused_registration_credential_gives_the_rotation_up_and_is_told_at_the_server() -> None:
    world = await onboarded()
    old = world.credentials()
    world.server.initial_access_token = "changed behind our back"
    ask(world)
    await world.settle()

    assert world.credentials() == old
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.condition("orders", "Rotating") == ("False", "RotationGivenUp")
    assert world.server_condition("Ready") == ("False", "RegistrationRefused")


async def test_another_value_of_the_annotation_is_a_turn_of_its_own() -> None:
    world = await onboarded()
    old = client_in_use(world)
    world.server.fail_on(Operation.REGISTER, status=400)
    ask(world, "1")
    await world.settle()
    assert client_in_use(world) == old
    ask(world, "2")
    await world.settle()

    assert client_in_use(world) != old


async def test_a_second_client_with_other_scopes_than_asked_for_is_deleted_again() -> None:
    world = await onboarded(scopes=["read", "write"])
    old = world.credentials()
    world.server.granted_scope = lambda asked: "read"
    ask(world)
    await world.later(60)

    assert world.credentials() == old
    assert set(world.server.clients) == {old["client_id"]}
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.condition("orders", "Rotating") == ("False", "RotationGivenUp")


async def test_a_second_client_that_gets_no_token_never_takes_over() -> None:
    world = await onboarded("keycloak")
    old = world.credentials()
    ask(world)
    await world.settle()
    (new,) = set(world.server.clients) - {old["client_id"]}
    world.server.clients[new].client_secret = "another one"
    await world.later(LIFETIME + 60)

    assert world.credentials() == old
    assert set(world.server.clients) == {old["client_id"]}
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.condition("orders", "Rotating") == ("False", "RotationGivenUp")

    await world.later(2 * HOUR)  # the next turn
    assert client_in_use(world) != old["client_id"]


async def test_an_outage_neither_starts_a_rotation_nor_ends_one() -> None:
    world = await onboarded()
    old = client_in_use(world)
    world.server.down = True
    await world.later(60)
    ask(world)
    await world.later(60)
    (entry,) = world.ledgers()
    assert entry.record.state is State.REGISTERED

    world.server.heal()
    await world.later(60)
    assert client_in_use(world) != old
    world.server.down = True
    await world.later(HOUR)
    assert old in world.server.clients
    world.server.heal()
    await world.later(120)
    assert old not in world.server.clients


async def test_a_server_that_can_only_register_keeps_the_old_client_which_is_counted_and_told() -> None:
    world = await onboarded("register-only", honoured=False)
    old = client_in_use(world)
    ask(world)
    await world.later(HOUR)

    assert client_in_use(world) != old
    assert set(world.server.clients) == {old, client_in_use(world)}
    assert world.uncertain == 1
    assert any(old in message for reason, message in world.events() if reason == "ClientOrphaned")
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_suspended_service_is_not_rotated() -> None:
    world = await onboarded(client={"rotation": {"interval": "1h"}})
    old = client_in_use(world)
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(suspend=True))
    ask(world)
    await world.later(5 * HOUR)

    assert client_in_use(world) == old


async def test_a_service_that_is_not_allowed_any_more_is_not_rotated() -> None:
    world = await onboarded(client={"rotation": {"interval": "1h"}})
    old = client_in_use(world)
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
    )
    ask(world)
    await world.later(3 * HOUR)

    assert client_in_use(world) == old
    assert world.server.created_total == 1


async def test_an_edit_that_the_server_refused_and_that_was_taken_back_is_in_no_rotations_way() -> None:
    world = await onboarded()
    old = client_in_use(world)
    for scope in ("unheard-of", "read"):
        world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", partial(set_scope, scope))
        await world.settle()
    ask(world)
    await world.settle()

    assert client_in_use(world) != old


async def test_scopes_edited_during_a_rotation_reach_the_client_that_takes_over() -> None:
    world = await onboarded()
    ask(world)
    await world.settle()
    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["read", "write"])
    )
    await world.later(HOUR)

    (client,) = world.server.clients.values()
    assert client.scopes == {"read", "write"}
    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize("kind", KINDS)
async def test_scopes_that_spec_names_no_more_are_taken_off_the_old_client_too(kind: str) -> None:
    world = await onboarded(kind, scopes=["read", "write"])
    old = client_in_use(world)
    ask(world)
    await world.later(LIFETIME + 10 if kind == "keycloak" else 0)
    assert client_in_use(world) != old
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", partial(set_scope, "read"))
    await world.settle()

    assert old in world.server.clients
    assert [client.scopes for client in world.server.clients.values()] == [{"read"}, {"read"}]


async def test_keycloak_knows_both_clients_of_each_others_tokens_before_the_swap_and_only_one_after() -> None:
    world = await onboarded("keycloak")
    old = client_in_use(world)
    ask(world)
    await world.settle()
    (new,) = set(world.server.clients) - {old}

    scopes = world.server.client_scopes  # type: ignore[attr-defined]
    assert scopes[old].audiences == scopes[new].audiences == {old, new}
    assert client_in_use(world) == old  # tokens from before name the old one only

    await world.later(LIFETIME + 1)
    assert client_in_use(world) == new
    await world.later(LIFETIME + 60)
    assert set(world.server.clients) == {new}
    assert scopes[new].audiences == {new}
    assert old not in scopes


async def test_no_secret_of_either_client_is_told_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world = await onboarded()
    ask(world, "a value that nobody needs to repeat")
    await world.later(HOUR)

    told = caplog.text + str(world.events()) + str(world.service()["status"])
    told += "".join(str(secret["metadata"]) for secret in world.cluster.objects(SECRET, OPERATOR_NAMESPACE))
    assert not [secret for secret in world.server.secrets_ever if secret in told]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_orphan_in_the_midst_of_a_rotation_loses_both_of_its_clients(kind: str) -> None:
    world = World(kind=kind)
    world.sweeps = True
    world.restart()
    world.add(protected_service("orders"))
    await world.settle()
    ask(world)
    await world.settle()
    assert len(world.server.clients) == 2
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["metadata"].update(finalizers=[]))
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.later(2 * HOUR)

    assert world.server.clients == {}
    assert world.ledgers() == []


def test_an_entry_keeps_both_clients_and_shows_neither_ones_secrets() -> None:
    second = Second(role=Role.OLD, client_id="old", tag_attempt="01234567", due=1.0)
    record = Record(
        state=State.REGISTERED,
        owner_namespace="tenant",
        owner_name="orders",
        owner_uid="uid",
        server="system/default",
        attempt="a" * 32,
        attempt_started=0.0,
        tag_attempt="a" * 8,
        client_id="new",
        second=second,
    )
    entry = Entry(
        record, Registration("new", "SECRET-1", "/new", "SECRET-2"), None, Registration("old", "SECRET-3", "/old")
    )
    secret = entry.to_secret("system", resource_version="1", labels={})

    assert Entry.from_secret(secret) == entry
    assert "SECRET" not in repr(entry) + str(secret["metadata"])
    back = exchanged(entry, Role.SURPLUS)
    assert (back.record.client_id, back.registration, back.second) == ("old", entry.second, entry.registration)
    assert back.record.second is not None
    assert (back.record.second.role, back.record.second.client_id) == (Role.SURPLUS, "new")


def test_clients_of_before_need_no_update_because_rotations_exist_now() -> None:
    """The digest of metadata without peers is what it was: 16 digits that stand in ledgers of earlier versions."""
    metadata = ClientMetadata("name", ("b", "a"), ("https://orders.example",))
    content = ["name", ["a", "b"], "https://orders.example", "client_secret_basic"]

    assert metadata.digest() == hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
