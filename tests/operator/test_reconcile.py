"""One service's life, step by step, against a cluster and an authorization server with a memory."""

from __future__ import annotations

from typing import Any

from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    DEPLOYMENT,
    FINALIZER,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE,
)

from ..support.fake_authorization_server import Operation
from ..support.objects import OPERATOR_NAMESPACE, crd_schema, protected_service
from ..support.world import World


async def test_a_new_service_becomes_ready_with_one_client_and_all_children() -> None:
    world = World()
    world.add(protected_service("orders"))

    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.condition("orders", "Verified") == ("True", "Proved")
    assert len(world.server.clients) == world.server.created_total == 1
    (client,) = world.server.clients.values()
    assert world.credentials() == {"client_id": client.client_id, "client_secret": client.client_secret}
    status = world.service()["status"]
    assert status["clientId"] == client.client_id
    assert status["url"] == "http://orders-protected.tenant.svc"
    assert status["authorizationServer"] == {"namespace": "protectedservice-system", "name": "default"}
    assert status["observedGeneration"] == 1
    assert world.service()["metadata"]["finalizers"] == [FINALIZER]
    assert client.metadata["client_name"].startswith("cluster/tenant/orders/")


async def test_a_second_pass_and_a_restart_write_nothing_and_call_nobody() -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    await world.later(95)  # the AuthorizationServer's number of clients is written once a minute
    writes, calls = len(world.cluster.writes), len(world.server.requests)

    await world.later(1)
    world.restart()
    await world.settle()

    assert world.cluster.writes[writes:] == []
    # the probe of the AuthorizationServer is the periodic work that the design names
    assert {seen.operation for seen in world.server.requests[calls:]} <= {Operation.METADATA}


async def test_changed_scopes_reach_the_client_and_the_policy_with_the_same_client() -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    before = set(world.server.clients)

    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["read", "write"])
    )
    await world.settle()

    assert set(world.server.clients) == before
    assert world.server.clients[before.pop()].scopes == {"read", "write"}
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.service()["status"]["observedGeneration"] == 2


async def test_scopes_that_the_server_refuses_are_told_once_and_not_tried_again() -> None:
    world = World()
    world.add(protected_service("orders", scopes=["nobody-knows"]))

    await world.settle()
    asked = world.server.count(Operation.REGISTER)
    await world.later(0)

    assert world.condition("orders", "ClientRegistered") == ("False", "InvalidClientMetadata")
    assert world.condition("orders", "Stalled") == ("True", "InvalidClientMetadata")
    assert asked == 1
    assert world.server.clients == {}


async def test_corrected_scopes_after_a_refusal_register_one_client() -> None:
    world = World()
    world.add(protected_service("orders", scopes=["nobody-knows"]))
    await world.settle()

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["read"]))
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1
    assert world.uncertain == 0


async def test_a_deleted_service_takes_its_client_and_its_ledger_entry_with_it() -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.server.clients == {}
    assert world.ledgers() == []
    assert world.cluster.objects(DEPLOYMENT) == world.cluster.objects(SERVICE) == []
    assert world.cluster.objects(SECRET, "tenant") == []


async def test_a_service_that_was_never_registered_is_deleted_without_a_call() -> None:
    world = World()
    world.add(
        protected_service("orders", authorizationServerRef={"name": "absent", "namespace": "protectedservice-system"})
    )
    await world.settle()

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.server.count(Operation.REGISTER) == world.server.count(Operation.DELETE) == 0


async def test_every_field_of_the_status_is_in_the_crd_because_the_api_server_drops_others() -> None:
    world = World()
    world.add(protected_service("orders", audience="https://orders.example"))
    await world.settle()
    await world.later(61)

    server = world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    assert unknown_fields(world.service()["status"], status_schema("protectedservices"), "status") == []
    assert unknown_fields(server["status"], status_schema("authorizationservers"), "status") == []


def status_schema(plural: str) -> dict[str, Any]:
    schema: dict[str, Any] = crd_schema(plural)["properties"]["status"]
    return schema


def unknown_fields(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in unknown_fields(item, schema["items"], path)]
    if not isinstance(value, dict) or "additionalProperties" in schema:
        return []
    found = [f"{path}.{name}" for name in value if name not in schema.get("properties", {})]
    for name, item in value.items():
        if name in schema.get("properties", {}):
            found += unknown_fields(item, schema["properties"][name], f"{path}.{name}")
    return found
