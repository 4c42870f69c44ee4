"""AuthorizationServer.spec.tls.caBundle: the operator's own trust, and the copy in every service's pods."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    CONFIG_MAP,
    DEPLOYMENT,
    PROTECTED_SERVICE,
    SECRET,
    Kind,
)

from ..support.certificates import Authority
from ..support.fake_authorization_server import Operation
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import World

CHILD = "orders-protected"
CA = "orders-protected-ca"
SOURCE = "authorities"


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority("Ours")


@pytest.fixture(scope="module")
def other() -> Authority:
    return Authority("Another")


def put_source(world: World, text: str, *, kind: Kind = CONFIG_MAP, labels: dict[str, str] | None = None) -> None:
    data = {"ca.crt": base64.b64encode(text.encode()).decode() if kind is SECRET else text}
    if any(found["metadata"]["name"] == SOURCE for found in world.cluster.objects(kind, OPERATOR_NAMESPACE)):
        world.cluster.edit(kind, OPERATOR_NAMESPACE, SOURCE, lambda body: body.update(data=data))
        return
    metadata = {"name": SOURCE, "namespace": OPERATOR_NAMESPACE, "labels": labels or {}}
    world.cluster.insert(kind, {"apiVersion": "v1", "kind": kind.kind, "metadata": metadata, "data": data})


def trust(world: World, kind: Kind = CONFIG_MAP) -> None:
    field = "secret" if kind is SECRET else "configMap"
    source = {field: {"name": SOURCE, "key": "ca.crt"}}
    change_server(world, lambda spec: spec.update(tls={"caBundle": source}))


def change_server(world: World, change: Any) -> None:
    world.cluster.edit(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda body: change(body["spec"]))


async def trusting_world(text: str, kind: Kind = CONFIG_MAP, labels: dict[str, str] | None = None) -> World:
    world = World()
    put_source(world, text, kind=kind, labels=labels)
    trust(world, kind)
    world.add(protected_service("orders"))
    await world.settle()
    return world


def copied(world: World) -> str:
    return str(world.cluster.read(CONFIG_MAP, "tenant", CA)["data"]["ca.crt"])


def template(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]
    return found


@pytest.mark.parametrize("kind", [CONFIG_MAP, SECRET], ids=str)
async def test_the_certificates_reach_the_operators_connection_and_the_pods(kind: Kind, ours: Authority) -> None:
    world = await trusting_world(ours.pem, kind)

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert set(world.trusted[1:]) <= {ours.pem}
    assert world.trusted[-1] == ours.pem
    assert copied(world) == ours.pem
    pod = template(world)["spec"]
    assert {"name": "ca", "mountPath": "/etc/protectedservice/ca", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
    (policy,) = [m for m in world.cluster.objects(CONFIG_MAP, "tenant") if "policy.yaml" in m["data"]]
    (server,) = json.loads(policy["data"]["policy.yaml"])["authorizationServers"]
    assert server["tls"] == {"caFile": "/etc/protectedservice/ca/ca.crt"}


async def test_a_changed_bundle_is_copied_without_a_new_template_and_without_another_client(
    ours: Authority, other: Authority
) -> None:
    world = await trusting_world(ours.pem)
    before = template(world)

    put_source(world, ours.pem + other.pem)
    await world.later(31)

    assert copied(world) == ours.pem + other.pem
    assert world.trusted[-1] == ours.pem + other.pem
    assert template(world) == before
    assert world.server.created_total == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_labelled_secret_is_followed_at_once(ours: Authority, other: Authority) -> None:
    world = await trusting_world(ours.pem, SECRET, {"protectedservice.dev/watch": "true"})
    put_source(world, other.pem, kind=SECRET)
    await world.settle()

    assert copied(world) == other.pem


async def test_a_server_that_gets_a_bundle_later_rolls_its_services_and_one_that_loses_it_rolls_them_back(
    ours: Authority,
) -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()

    put_source(world, ours.pem)
    trust(world)
    await world.settle()

    assert copied(world) == ours.pem
    assert "ca" in [volume["name"] for volume in template(world)["spec"]["volumes"]]

    change_server(world, lambda spec: spec.pop("tls"))
    await world.settle()
    await world.later(31)

    assert [m["metadata"]["name"] for m in world.cluster.objects(CONFIG_MAP, "tenant") if "ca.crt" in m["data"]] == []
    assert "ca" not in [volume["name"] for volume in template(world)["spec"]["volumes"]]
    assert world.trusted[-1] is None
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda world, ours: world.cluster.remove(CONFIG_MAP, OPERATOR_NAMESPACE, SOURCE), "does not exist"),
        (lambda world, ours: put_source(world, "nothing"), "holds no certificate"),
        (lambda world, ours: put_source(world, ours.pem + ours.private_pem), "holds a private key"),
        (
            lambda world, ours: world.cluster.edit(
                CONFIG_MAP, OPERATOR_NAMESPACE, SOURCE, lambda body: body.update(data={})
            ),
            "has no key ca.crt",
        ),
    ],
    ids=["gone", "no certificate", "a private key", "no key"],
)
async def test_a_bundle_that_cannot_be_used_is_told_and_leaves_pods_and_their_copy_alone(
    spoil: Any, told: str, ours: Authority
) -> None:
    world = await trusting_world(ours.pem)
    before, calls = template(world), len(world.server.requests)

    spoil(world, ours)
    await world.later(31)

    assert world.server_condition("Reachable") == ("False", "CABundleUnusable")
    conditions = world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")["status"]["conditions"]
    assert told in str(conditions)
    assert copied(world) == ours.pem
    assert template(world) == before
    assert len(world.server.requests) == calls  # nobody is called whose certificate cannot be checked
    assert ours.private_pem.splitlines()[1] not in str(conditions) + str(world.events())

    put_source(world, ours.pem)
    await world.later(31)

    assert world.server_condition("Ready") == ("True", "Ready")
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_new_service_waits_for_certificates_rather_than_start_without_them(ours: Authority) -> None:
    world = World()
    await world.settle()
    trust(world)
    world.add(protected_service("orders"))
    await world.later(31)

    assert world.cluster.objects(DEPLOYMENT) == []
    assert world.server.count(Operation.REGISTER) == 0

    put_source(world, ours.pem)
    await world.recover()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert copied(world) == ours.pem


async def test_a_restart_writes_nothing_and_calls_nobody_but_the_probe(ours: Authority) -> None:
    world = await trusting_world(ours.pem)
    await world.later(95)
    writes, calls = len(world.cluster.writes), len(world.server.requests)

    world.restart()
    await world.settle()

    assert world.cluster.writes[writes:] == []
    assert {seen.operation for seen in world.server.requests[calls:]} <= {Operation.METADATA}


async def test_an_edited_or_deleted_copy_comes_back(ours: Authority, other: Authority) -> None:
    world = await trusting_world(ours.pem)

    world.cluster.edit(CONFIG_MAP, "tenant", CA, lambda body: body["data"].update({"ca.crt": other.pem}))
    await world.settle()

    assert copied(world) == ours.pem

    world.cluster.remove(CONFIG_MAP, "tenant", CA)
    await world.settle()

    assert copied(world) == ours.pem


async def test_old_policies_are_pruned_beside_the_copy_as_ever(ours: Authority) -> None:
    world = await trusting_world(ours.pem)

    for delay in ("1s", "2s", "3s"):
        world.now += 1
        world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", bound(delay))
        await world.settle()

    assert len([m for m in world.cluster.objects(CONFIG_MAP, "tenant") if "policy.yaml" in m["data"]]) == 2
    assert copied(world) == ours.pem


def bound(delay: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["spec"]["validation"].update(maxRevocationDelay=delay)
