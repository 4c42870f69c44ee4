"""Labels and annotations that users add: they reach their children, never a selector, and never overrule ours."""

from __future__ import annotations

from typing import Any

import pytest

from protectedservice_operator import manifests
from protectedservice_operator.protected_service import ProtectedService
from protectedservice_operator.resource import (
    DEPLOYMENT,
    LABEL_COMPONENT,
    LABEL_NAME,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE,
)

from ..support.objects import protected_service
from ..support.world import World

CHILD = "orders-protected"
CREDENTIALS = "orders-oauth2-client"
VALUES = {"client_id": "id", "client_secret": "secret"}
SPEC: dict[str, Any] = {
    "client": {"credentialsSecret": {"labels": {"team": "a"}, "annotations": {"replicate": "b"}}},
    "workload": {
        "replicas": 1,
        "podLabels": {"team": "c"},
        "podAnnotations": {"scrape": "d"},
        "imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}],
        "logLevel": "debug",
    },
    "service": {"annotations": {"balancer": "e"}},
}


async def ready_world() -> World:
    world = World()
    world.add(protected_service("orders", **SPEC))
    await world.settle()
    return world


def edit(world: World, *path: str, value: Any) -> None:
    def change(body: dict[str, Any]) -> None:
        at = body["spec"]
        for name in path[:-1]:
            at = at[name]
        at[path[-1]] = value

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", change)


async def test_what_users_add_stands_beside_ours_on_each_child() -> None:
    world = await ready_world()

    deployment = world.cluster.read(DEPLOYMENT, "tenant", CHILD)
    template = deployment["spec"]["template"]
    secret = world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"]
    assert template["metadata"]["labels"]["team"] == "c"
    assert template["metadata"]["labels"][LABEL_NAME] == "orders"
    assert template["metadata"]["annotations"]["scrape"] == "d"
    assert template["spec"]["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert {"name": "PROTECTEDSERVICE_LOG_LEVEL", "value": "debug"} in template["spec"]["containers"][0]["env"]
    assert world.cluster.read(SERVICE, "tenant", CHILD)["metadata"]["annotations"]["balancer"] == "e"
    assert (secret["labels"]["team"], secret["annotations"]["replicate"]) == ("a", "b")
    assert secret["labels"][LABEL_COMPONENT] == "credentials"
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_selectors_are_two_labels_of_ours_and_never_the_users() -> None:
    world = await ready_world()

    selector = {LABEL_NAME: "orders", LABEL_COMPONENT: "resource-server"}
    assert world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["selector"] == {"matchLabels": selector}
    assert world.cluster.read(SERVICE, "tenant", CHILD)["spec"]["selector"] == selector


def test_a_label_of_ours_wins_even_where_the_api_server_let_it_through() -> None:
    ours = {LABEL_NAME: "victim", "app.kubernetes.io/name": "victim"}
    body = protected_service(
        "orders",
        client={"credentialsSecret": {"labels": ours}},
        workload={"replicas": 1, "podLabels": ours, "podAnnotations": {"protectedservice.dev/client": "victim"}},
        service={"annotations": {"protectedservice.dev/desired-hash": "victim"}},
    )
    body["metadata"] |= {"uid": "uid-1", "resourceVersion": "7"}
    service = ProtectedService.parse(body)

    built = (
        manifests.deployment(service, "image", "policy", "client"),
        manifests.service(service),
        manifests.credentials_secret(service, VALUES, service.credentials_keys),
    )

    assert "victim" not in str(built)


@pytest.mark.parametrize(
    ("path", "kind", "name"),
    [
        (("client", "credentialsSecret", "labels"), SECRET, CREDENTIALS),
        (("client", "credentialsSecret", "annotations"), SECRET, CREDENTIALS),
        (("workload", "podLabels"), DEPLOYMENT, CHILD),
        (("workload", "podAnnotations"), DEPLOYMENT, CHILD),
        (("service", "annotations"), SERVICE, CHILD),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else str(value),
)
async def test_what_is_changed_and_what_is_taken_away_arrives(path: tuple[str, ...], kind: Any, name: str) -> None:
    world = await ready_world()

    edit(world, *path, value={"other": "f"})
    await world.settle()

    changed = str(world.cluster.read(kind, "tenant", name))
    assert "'other': 'f'" in changed

    edit(world, *path, value={})
    await world.settle()

    emptied = str(world.cluster.read(kind, "tenant", name))
    assert "'other'" not in emptied
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_a_label_of_the_secret_that_somebody_removes_comes_back() -> None:
    world = await ready_world()

    world.cluster.edit(SECRET, "tenant", CREDENTIALS, lambda body: body["metadata"]["labels"].pop("team"))
    await world.settle()

    assert world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"]["labels"]["team"] == "a"


def test_the_annotation_of_the_secret_knows_nothing_of_its_values() -> None:
    body = protected_service("orders")
    body["metadata"] |= {"uid": "uid-1", "resourceVersion": "7"}
    service = ProtectedService.parse(body)

    one = manifests.credentials_secret(service, VALUES, service.credentials_keys)["metadata"]
    two = manifests.credentials_secret(service, dict.fromkeys(VALUES, "else"), service.credentials_keys)["metadata"]

    assert one == two
