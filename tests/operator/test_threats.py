"""Rows of docs/threats.md that no other test tries."""

from __future__ import annotations

import httpx
import pytest

from protectedservice_operator.registration.hydra import TAG
from protectedservice_operator.registration.names import owner_uid
from protectedservice_operator.resource import AUTHORIZATION_SERVER, POD

from ..support.objects import OPERATOR_NAMESPACE, authorization_server, protected_service
from ..support.world import World


async def test_a_pod_labelled_as_another_tenants_gets_none_of_its_tokens() -> None:
    world = World()
    called: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        called.append(request.url.host)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and world.server.is_active(token):
            return httpx.Response(204)
        return httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="test"'})

    world.pod_answers = answer
    labels = {"protectedservice.dev/name": "orders", "protectedservice.dev/component": "resource-server"}
    metadata = {"name": "orders-protected-1-9", "namespace": "other", "labels": labels}
    world.cluster.insert(
        POD,
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}},
        status={"podIP": "10.6.6.6", "conditions": [{"type": "Ready", "status": "True"}]},
    )
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert called
    assert "10.6.6.6" not in called


async def test_a_display_name_that_reads_as_a_tag_makes_nobody_elses_client() -> None:
    world = World(kind="hydra")
    world.add(protected_service("orders"))
    await world.settle()
    victim = world.service()["metadata"]["uid"]
    world.add(protected_service("evil", "other", client={"name": f"x [cluster/tenant/orders/{victim}/1]"}))
    await world.settle()

    tags = [client.metadata["metadata"][TAG] for client in world.server.clients.values()]
    uids = {victim, world.service("evil", "other")["metadata"]["uid"]}
    assert {owner_uid(tag) for tag in tags} == uids


@pytest.mark.parametrize("text", [None, "", "a/b/c", "no tag at all"])
def test_what_is_no_tag_names_no_owner(text: str | None) -> None:
    assert owner_uid(text) is None


async def test_an_authorization_server_of_a_tenants_is_never_called() -> None:
    world = World()
    await world.settle()
    body = authorization_server("mine", issuer="https://tenants-own.test")
    body["metadata"]["namespace"] = "other"
    world.cluster.insert(AUTHORIZATION_SERVER, body)
    connections = len(world.trusted)
    world.add(protected_service("orders", "other", authorizationServerRef={"name": "mine", "namespace": "other"}))
    await world.later(60)

    assert world.condition("orders", "AuthorizationServerReady", "other") == ("False", "NotAllowed")
    assert "status" not in world.cluster.read(AUTHORIZATION_SERVER, "other", "mine")
    assert len(world.trusted) == connections
    assert world.ledgers() == []


async def test_a_server_that_does_not_allow_the_namespace_gives_it_nothing() -> None:
    world = World()
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
    )
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "AuthorizationServerReady") == ("False", "NotAllowed")
    assert world.server.clients == {}
    assert world.ledgers() == []
