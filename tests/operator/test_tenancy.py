"""What an AuthorizationServer grants to which namespace, and what becomes of a client when it is withdrawn."""

from __future__ import annotations

from typing import Any

import pytest

from protectedservice_operator.resource import AUTHORIZATION_SERVER, NAMESPACE, PROTECTED_SERVICE, SERVICE_CLIENT
from protectedservice_operator.tenancy import Namespaces, ScopeGrant, refused_scopes

from ..support.fake_authorization_server import Operation
from ..support.objects import OPERATOR_NAMESPACE, protected_service, service_client
from ..support.world import World

EVERYWHERE = {"from": "All"}
PAYMENTS = {"from": "Selector", "selector": {"matchLabels": {"team": "payments"}}}
MINUTE = 60.0


def grant(*scopes: str, to: dict[str, Any]) -> dict[str, Any]:
    return {"scopes": list(scopes), "namespaces": to}


def change_server(world: World, **spec: Any) -> None:
    world.cluster.edit(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda body: body["spec"].update(spec))


def label(world: World, namespace: str, **labels: str) -> None:
    world.cluster.edit(NAMESPACE, None, namespace, lambda body: body["metadata"].update(labels=labels))


def withdraw(world: World) -> None:
    change_server(world, allowedNamespaces={"from": "Same"})


def give_back(world: World) -> None:
    change_server(world, allowedNamespaces={"from": "All"})


async def ready(world: World, **spec: Any) -> World:
    world.add(protected_service("orders", **spec))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


# --- who may ask for which scope -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grants", "scopes", "refused"),
    [
        (None, ("read", "refund"), ()),
        (None, ("psvc-uid-1",), ("psvc-uid-1",)),
        ([], ("read",), ("read",)),
        ([grant("read", to=EVERYWHERE)], ("refund", "read"), ("refund",)),
        ([grant("read", "psvc-uid-1", to=EVERYWHERE)], ("psvc-uid-1",), ("psvc-uid-1",)),
        ([grant("read", to=PAYMENTS)], ("read",), ()),
        ([grant("read", to={"from": "Same"})], ("read",), ("read",)),
        ([grant("read", to={"from": "Somewhere"})], ("read",), ("read",)),
        ([grant("Read", to=EVERYWHERE)], ("read",), ("read",)),
    ],
)
def test_a_scope_that_no_grant_names_for_the_namespace_is_refused(
    grants: list[dict[str, Any]] | None, scopes: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    parsed = None if grants is None else [ScopeGrant.parse(each) for each in grants]

    assert refused_scopes(parsed, scopes, "tenant", {"team": "payments"}, OPERATOR_NAMESPACE) == refused


def test_a_selector_with_an_operator_that_nobody_knows_matches_nothing() -> None:
    odd = Namespaces("Selector", {"matchExpressions": [{"key": "team", "operator": "Gt", "values": ["1"]}]})

    assert not odd.admit("tenant", {"team": "2"}, OPERATOR_NAMESPACE)


async def test_a_scope_of_another_team_is_refused_by_name_and_nothing_is_registered() -> None:
    world = World()
    change_server(world, allowedScopes=[grant("read", to=EVERYWHERE), grant("write", to=PAYMENTS)])
    world.add(protected_service("orders", scopes=["read", "write"]))
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "ScopeNotAllowed")
    message = world.message("orders", "ClientRegistered")
    assert all(part in message for part in ("scope write", "namespace tenant", "protectedservice-system/default"))
    assert world.server.clients == {}
    assert world.ledgers() == []


async def test_a_namespace_that_is_given_the_label_gets_its_client() -> None:
    world = World()
    change_server(world, allowedScopes=[grant("read", to=PAYMENTS)])
    world.add(protected_service("orders"))
    await world.settle()
    assert world.condition("orders", "Ready") == ("False", "ScopeNotAllowed")

    label(world, "tenant", team="payments")
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize("kind", ["dynamic", "hydra", "keycloak"])
async def test_a_withdrawn_scope_is_taken_from_the_client_at_once(kind: str) -> None:
    world = await ready(World(kind=kind), scopes=["read", "write"])
    change_server(world, allowedScopes=[grant("read", to=EVERYWHERE)])
    await world.settle()

    (client,) = world.server.clients.values()
    assert client.scopes == {"read"}
    assert world.condition("orders", "ClientRegistered") == ("False", "ScopeNotAllowed")

    await world.later(30 * MINUTE)  # it is narrowed, not deleted
    assert len(world.server.clients) == 1

    change_server(world, allowedScopes=[grant("read", "write", to=EVERYWHERE)])
    await world.later(61)
    assert client.scopes == {"read", "write"}
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_an_edit_to_a_scope_that_is_not_granted_changes_nothing_at_the_server() -> None:
    world = World()
    change_server(world, allowedScopes=[grant("read", to=EVERYWHERE)])
    await ready(world)
    calls = world.server.count(Operation.UPDATE)

    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["read", "write"])
    )
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "ScopeNotAllowed")
    assert world.server.count(Operation.UPDATE) == calls
    (client,) = world.server.clients.values()
    assert client.scopes == {"read"}


async def test_a_client_whose_scopes_are_all_withdrawn_is_deleted_after_ten_minutes() -> None:
    world = await ready(World())
    change_server(world, allowedScopes=[])
    await world.later(9 * MINUTE)
    assert len(world.server.clients) == 1
    assert "is deleted at" in world.message("orders", "ClientRegistered")

    await world.later(2 * MINUTE)

    assert world.server.clients == {}
    assert world.ledgers() == []


def whole(spec: dict[str, Any]) -> dict[str, Any]:
    """With the CRD's defaults, as the API server would fill them in."""
    filled: dict[str, Any] = protected_service("orders", **spec)["spec"]
    return {name: filled[name] for name in spec}


@pytest.mark.parametrize(
    "evasion",
    [
        pytest.param({"suspend": True}, id="suspended"),
        pytest.param({"upstream": {"service": {"name": "orders-protected", "port": 80}}}, id="its own upstream"),
        pytest.param({"audience": "https://held.example"}, id="an audience of another namespace"),
    ],
)
async def test_what_a_tenant_writes_does_not_keep_a_withdrawn_scope(evasion: dict[str, Any]) -> None:
    world = await ready(World(), scopes=["read", "write"])
    world.add(protected_service("holder", "other", audience="https://held.example"))
    await world.settle()
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(whole(evasion)))
    await world.settle()
    change_server(world, allowedScopes=[grant("read", to=EVERYWHERE)])
    await world.settle()

    assert [client.scopes for client in world.server.clients.values()] == [{"read"}, {"read"}]
    audiences = [client.metadata.get("audience") for client in world.server.clients.values()]
    assert audiences.count(["https://held.example"]) == 1


async def test_a_caller_gets_no_scope_that_its_namespace_may_not_ask_for() -> None:
    world = World()
    change_server(world, allowedScopes=[grant("read", to=EVERYWHERE), grant("write", to=PAYMENTS)])
    world.cluster.insert(SERVICE_CLIENT, service_client("shop", scopes=["read", "write"]))
    world.cluster.insert(SERVICE_CLIENT, service_client("stall", scopes=["write"]))
    await world.settle()

    (client,) = world.server.clients.values()
    assert client.scopes == {"read"}
    for name in ("shop", "stall"):
        conditions = world.cluster.read(SERVICE_CLIENT, "tenant", name)["status"]["conditions"]
        (registered,) = [each for each in conditions if each["type"] == "ClientRegistered"]
        assert (registered["status"], registered["reason"]) == ("False", "ScopeNotAllowed")
        assert "scope write" in registered["message"]


async def test_a_scope_withdrawn_from_a_caller_is_taken_from_its_client_at_once() -> None:
    world = World()
    world.cluster.insert(SERVICE_CLIENT, service_client("shop", scopes=["read", "write"]))
    await world.settle()
    change_server(world, allowedScopes=[grant("read", to=EVERYWHERE)])
    await world.settle()

    (client,) = world.server.clients.values()
    assert client.scopes == {"read"}
    assert world.server.created_total == 1
