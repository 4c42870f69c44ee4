"""The authorization server is away, refuses us, or is not ours to use: what the status says, and how it heals."""

from __future__ import annotations

import pytest

from protectedservice_operator.resource import AUTHORIZATION_SERVER, NAMESPACE, PROTECTED_SERVICE, SECRET, SERVICE

from ..support.fake_authorization_server import Operation
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import World, registration_secret


async def ready_world() -> World:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    return world


async def test_an_outage_is_told_within_one_probe_and_all_heals_by_itself() -> None:
    world = await ready_world()

    world.server.down = True
    await world.later(30)

    assert world.server_condition("Reachable") == ("False", "AuthorizationServerUnavailable")
    assert world.condition("orders", "AuthorizationServerReady") == ("False", "AuthorizationServerUnavailable")
    assert world.condition("orders", "ClientRegistered") == ("True", "Registered")

    world.server.down = False
    await world.recover()

    assert world.server_condition("Ready") == ("True", "Ready")
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_a_long_outage_costs_one_status_write_per_object() -> None:
    world = await ready_world()
    await world.later(95)  # the number of clients in the AuthorizationServer's status follows within a minute
    world.server.down = True
    await world.later(30)
    writes = len(world.writes())

    for _ in range(20):
        await world.later(30)

    assert world.writes()[writes:] == []


async def test_an_outage_of_weeks_ends_as_one_of_minutes_does() -> None:
    world = World(probe_interval=300.0)
    world.add(protected_service("orders"))
    await world.settle()
    world.server.down = True
    await world.later(1_100 * 300.0)  # as many probes as no power of two of a float has room for
    world.server.heal()
    world.server.down = False
    await world.recover()

    assert world.server_condition("Reachable") == ("True", "Reachable")
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_children_are_repaired_while_the_authorization_server_is_away() -> None:
    world = await ready_world()
    world.server.down = True
    await world.later(30)

    world.cluster.remove(SERVICE, "tenant", "orders-protected")
    await world.settle()

    assert world.cluster.read(SERVICE, "tenant", "orders-protected")


async def test_a_service_made_during_an_outage_waits_without_a_trace_and_registers_afterwards() -> None:
    world = World()
    world.server.down = True
    world.add(protected_service("orders"))
    await world.settle()
    await world.later(30)

    assert world.ledgers() == []

    world.server.down = False
    await world.recover()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_a_refused_initial_access_token_stops_only_new_services_and_a_corrected_secret_heals_both() -> None:
    world = await ready_world()
    world.server.initial_access_token = "another-token"
    world.add(protected_service("second"))
    await world.settle()

    assert world.condition("second", "ClientRegistered") == ("False", "RegistrationRefused")
    assert world.server_condition("Ready") == ("False", "RegistrationRefused")
    assert world.condition("orders", "Ready") == ("True", "Ready")
    asked = world.server.count(Operation.REGISTER)

    await world.later(30)

    assert world.server.count(Operation.REGISTER) == asked  # one trial a minute

    corrected = registration_secret("another-token")
    world.cluster.edit(
        SECRET, OPERATOR_NAMESPACE, corrected["metadata"]["name"], lambda body: body.update(data=corrected["data"])
    )
    await world.later(35)

    assert world.condition("second", "Ready") == ("True", "Ready")
    assert world.server_condition("Ready") == ("True", "Ready")
    assert len(world.server.clients) == world.server.created_total == 2


async def test_a_missing_registration_secret_is_named_and_healed_when_it_comes() -> None:
    world = World()
    secret = registration_secret(world.server.initial_access_token)
    world.cluster.remove(SECRET, OPERATOR_NAMESPACE, secret["metadata"]["name"])
    world.add(protected_service("orders"))
    await world.settle()

    assert world.server_condition("Ready") == ("False", "RegistrationCredentialsMissing")
    assert world.condition("orders", "ClientRegistered") == ("False", "RegistrationCredentialsMissing")
    assert "protectedservice-system/authorization-server-registration" in world.message("orders", "ClientRegistered")

    world.cluster.insert(SECRET, secret)
    await world.later(30)

    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_deletion_during_an_outage_waits_says_why_and_completes() -> None:
    world = await ready_world()
    world.server.down = True
    await world.later(30)

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.condition("orders", "Ready") == ("False", "Deleting") or "waiting to delete" in world.message(
        "orders", "ClientRegistered"
    )
    assert "waiting to delete client" in world.message("orders", "Ready")
    assert len(world.server.clients) == 1

    world.server.down = False
    await world.recover()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.server.clients == {}
    assert world.ledgers() == []


async def test_past_the_deletion_deadline_the_object_goes_and_its_client_is_deleted_later() -> None:
    world = World(settings={"deletion_deadline": 100.0})
    world.add(protected_service("orders"))
    await world.settle()
    world.server.down = True
    await world.later(30)
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    await world.later(99)
    assert len(world.cluster.objects(PROTECTED_SERVICE)) == 1
    await world.later(1)  # "at the latest", says its status: no backoff may make it later

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert len(world.ledgers()) == len(world.server.clients) == 1
    assert "ClientOrphaned" in [reason for reason, _ in world.events()]

    world.server.down = False
    await world.recover()

    assert world.ledgers() == []
    assert world.server.clients == {}


async def test_a_namespace_that_is_not_allowed_is_refused_with_a_condition_and_no_client() -> None:
    world = World()
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(
            allowedNamespaces={"from": "Selector", "selector": {"matchLabels": {"team": "trusted"}}}
        ),
    )
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "AuthorizationServerReady") == ("False", "NotAllowed")
    assert world.condition("orders", "Ready") == ("False", "NotAllowed")
    assert world.server.created_total == 0

    world.cluster.edit(NAMESPACE, None, "tenant", lambda body: body["metadata"].update(labels={"team": "trusted"}))
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        pytest.param({"namespace": OPERATOR_NAMESPACE, "name": "absent"}, "AuthorizationServerNotFound", id="absent"),
        pytest.param({"namespace": "tenant", "name": "own"}, "NotAllowed", id="in the tenant's own namespace"),
    ],
)
async def test_an_unusable_authorization_server_reference_is_told(reference: dict[str, str], reason: str) -> None:
    world = World()
    world.add(protected_service("orders", authorizationServerRef=reference))

    await world.settle()

    assert world.condition("orders", "AuthorizationServerReady") == ("False", reason)
    assert world.server.created_total == 0


async def test_a_changed_default_moves_nobody() -> None:
    world = await ready_world()

    world.settings = type(world.settings)(
        **{
            **{name: getattr(world.settings, name) for name in world.settings.__slots__},
            "default_server": None,
        }
    )
    world.restart()
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_audience_held_by_an_older_service_of_another_namespace_is_refused_until_it_goes() -> None:
    world = World()
    world.add(protected_service("first", "tenant", audience="https://orders.example"))
    await world.settle()
    world.now += 5
    world.add(protected_service("second", "other", audience="https://orders.example"))
    await world.settle()

    assert world.condition("second", "ClientRegistered", "other") == ("False", "AudienceTaken")
    assert "tenant/first" in world.message("second", "ClientRegistered", "other")
    assert world.server.created_total == 1

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "first")
    await world.settle()

    assert world.condition("second", "Ready", "other") == ("True", "Ready")


async def test_a_lost_reply_to_an_update_is_repeated_with_the_same_key() -> None:
    world = await ready_world()
    world.server.fail_on(Operation.UPDATE, status=502, times=1, after_effect=True)

    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["read", "write"])
    )
    await world.recover()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_no_secret_and_no_token_in_logs_events_status_or_annotations(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world = await ready_world()
    world.server.fail_on(Operation.UPDATE, status=500, times=1, after_effect=True)
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["write"]))
    await world.recover()
    world.server.initial_access_token = "another-token"
    world.add(protected_service("second"))
    await world.recover()
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.recover()

    said = [record.getMessage() for record in caplog.records]
    said += [str(write.body) for write in world.cluster.writes if write.kind is not SECRET]
    said += [str(write.body.get("metadata")) for write in world.cluster.writes if isinstance(write.body, dict)]
    text = "\n".join(said)
    assert len(world.server.secrets_ever) > 4
    assert [secret for secret in world.server.secrets_ever if secret in text] == []
