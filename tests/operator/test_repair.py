"""Whatever somebody does to a service's children is put right, with the same client; what is not ours is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protectedservice_operator.resource import (
    CONFIG_MAP,
    DEPLOYMENT,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Kind,
)

from ..support.fake_cluster import Write
from ..support.objects import protected_service
from ..support.world import World

CHILD = "orders-protected"


async def ready_world() -> World:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    return world


def container(body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = body["spec"]["template"]["spec"]["containers"][0]
    return found


def policy_name(world: World) -> str:
    (config_map,) = world.cluster.objects(CONFIG_MAP, "tenant")
    return str(config_map["metadata"]["name"])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (DEPLOYMENT, CHILD),
        (SERVICE, CHILD),
        (SERVICE_ACCOUNT, CHILD),
        (SECRET, "orders-oauth2-client"),
        (CONFIG_MAP, ""),
    ],
    ids=lambda value: str(value) or "policy",
)
async def test_a_deleted_child_comes_back_with_the_same_client(kind: Kind, name: str) -> None:
    world = await ready_world()
    name = name or policy_name(world)
    before, client = world.cluster.read(kind, "tenant", name), world.service()["status"]["clientId"]

    world.cluster.remove(kind, "tenant", name)
    await world.settle()

    after = world.cluster.read(kind, "tenant", name)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert {k: v for k, v in after.items() if k not in ("metadata", "status")} == {
        k: v for k, v in before.items() if k not in ("metadata", "status")
    }
    assert world.service()["status"]["clientId"] == client
    assert world.server.created_total == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")


def edit_image(body: dict[str, Any]) -> None:
    container(body)["image"] = "evil:latest"


def edit_replicas(body: dict[str, Any]) -> None:
    body["spec"]["replicas"] = 7


def add_sidecar(body: dict[str, Any]) -> None:
    body["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "evil:latest"})


def add_variable(body: dict[str, Any]) -> None:
    container(body)["env"].append({"name": "PYTHONSTARTUP", "value": "evil.py"})


def add_environment_from(body: dict[str, Any]) -> None:
    container(body)["envFrom"] = [{"secretRef": {"name": "other"}}]


def change_command(body: dict[str, Any]) -> None:
    container(body)["command"] = ["sleep", "infinity"]


def add_init_container(body: dict[str, Any]) -> None:
    body["spec"]["template"]["spec"]["initContainers"] = [{"name": "first", "image": "evil:latest"}]


def add_volume(body: dict[str, Any]) -> None:
    body["spec"]["template"]["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    container(body)["volumeMounts"].append({"name": "host", "mountPath": "/host"})


def join_host_network(body: dict[str, Any]) -> None:
    body["spec"]["template"]["spec"]["hostNetwork"] = True


def weaken_security_context(body: dict[str, Any]) -> None:
    container(body)["securityContext"]["allowPrivilegeEscalation"] = True


@pytest.mark.parametrize(
    "change",
    [
        edit_image, edit_replicas, add_sidecar, add_variable, add_environment_from, change_command,
        add_init_container, add_volume, join_host_network, weaken_security_context,
    ],
)  # fmt: skip
async def test_an_edited_deployment_is_put_back(change: Any) -> None:
    world = await ready_world()
    before = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]

    world.cluster.edit(DEPLOYMENT, "tenant", CHILD, change)
    await world.settle()

    assert world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"] == before
    assert "Repaired" in [reason for reason, _ in world.events()]
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_extra_selector_and_port_on_the_service_are_removed() -> None:
    world = await ready_world()

    def change(body: dict[str, Any]) -> None:
        body["spec"]["selector"]["app"] = "elsewhere"
        body["spec"]["ports"].append({"name": "management", "port": 9090, "targetPort": 9090, "protocol": "TCP"})

    world.cluster.edit(SERVICE, "tenant", CHILD, change)
    await world.settle()

    spec = world.cluster.read(SERVICE, "tenant", CHILD)["spec"]
    assert "app" not in spec["selector"]
    assert [port["name"] for port in spec["ports"]] == ["http"]


async def test_an_edited_credentials_secret_is_put_back_and_foreign_keys_are_removed() -> None:
    world = await ready_world()
    before = world.credentials()

    def change(body: dict[str, Any]) -> None:
        body["data"] = {"client_id": "Zm9yZWlnbg==", "client_secret": "Zm9yZWlnbg==", "extra": "Zm9yZWlnbg=="}

    world.cluster.edit(SECRET, "tenant", "orders-oauth2-client", change)
    await world.settle()

    assert world.credentials() == before
    assert world.server.created_total == 1


async def test_an_intruder_that_keeps_coming_back_is_left_alone_after_three_times_and_said_so() -> None:
    world = await ready_world()

    for _ in range(3):
        world.cluster.edit(DEPLOYMENT, "tenant", CHILD, add_sidecar)
        await world.settle()
        world.now += 10
    world.cluster.edit(DEPLOYMENT, "tenant", CHILD, add_sidecar)
    await world.settle()

    assert world.condition("orders", "WorkloadAvailable") == ("False", "DriftFought")
    assert "sidecar" in world.message("orders", "WorkloadAvailable")
    assert len(world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]["spec"]["containers"]) == 2

    await world.later(3601)

    assert world.condition("orders", "Ready") == ("True", "Ready")


def busy_controller(world: World) -> None:
    """Just before each write of ours to the Deployment its controller writes a status: a rollout is under way."""

    def moving(write: Write, before: Callable[[Write], None] = world.cluster.before_effect) -> None:
        before(write)
        if write.kind is DEPLOYMENT:
            status = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["status"]
            moved = {**status, "collisionCount": status.get("collisionCount", 0) + 1}
            world.cluster.set_status(DEPLOYMENT, "tenant", CHILD, moved)

    world.cluster.before_effect = moving


async def test_an_added_sidecar_is_removed_at_once_although_the_status_moves_all_the_time() -> None:
    world = await ready_world()
    busy_controller(world)

    world.cluster.edit(DEPLOYMENT, "tenant", CHILD, add_sidecar)
    await world.settle()

    assert len(world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]["spec"]["containers"]) == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_eviction_that_found_another_item_there_takes_nothing_and_is_no_sign_of_a_fight() -> None:
    world = await ready_world()
    names = iter("abcdef")

    def renaming(write: Write, before: Callable[[Write], None] = world.cluster.before_effect) -> None:
        before(write)
        if write.verb == "patch" and write.kind is DEPLOYMENT and (name := next(names, None)) is not None:
            world.cluster.edit(DEPLOYMENT, "tenant", CHILD, lambda body: rename_sidecar(body, name))

    world.cluster.before_effect = renaming
    world.cluster.edit(DEPLOYMENT, "tenant", CHILD, add_sidecar)
    await world.settle()
    await world.later(120)

    assert [write.status for write in world.writes() if write.verb == "patch" and write.kind is DEPLOYMENT][:3] == [
        422,
        422,
        422,
    ]
    assert len(world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]["spec"]["containers"]) == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")


def rename_sidecar(body: dict[str, Any], name: str) -> None:
    body["spec"]["template"]["spec"]["containers"][1]["image"] = name


@pytest.mark.parametrize("kind", [DEPLOYMENT, SERVICE, SECRET], ids=str)
async def test_a_foreign_object_of_a_childs_name_is_never_touched(kind: Kind) -> None:
    world = World()
    name = "orders-oauth2-client" if kind is SECRET else CHILD
    foreign = world.cluster.insert(
        kind,
        {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": name, "namespace": "tenant"},
            **({"data": {}} if kind is SECRET else {"spec": {"selector": {}, "template": {"spec": {}}, "replicas": 0}}),
        },
    )
    world.add(protected_service("orders"))

    await world.settle()

    assert world.cluster.read(kind, "tenant", name)["metadata"]["uid"] == foreign["metadata"]["uid"]
    assert not [w for w in world.writes() if w.kind is kind and w.name == name]
    assert world.condition("orders", "Ready") == ("False", "NotOwned")
    phase = "CredentialsReady" if kind is SECRET else "WorkloadAvailable"
    assert f"{kind} tenant/{name}" in world.message("orders", phase)


async def test_the_service_goes_on_once_the_foreign_object_is_removed() -> None:
    world = World()
    world.cluster.insert(
        SERVICE,
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": CHILD, "namespace": "tenant"}, "spec": {}},
    )
    world.add(protected_service("orders"))
    await world.settle()

    world.cluster.remove(SERVICE, "tenant", CHILD)
    await world.later(60)

    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_old_policies_are_pruned_but_the_one_before_is_kept_for_a_rollback() -> None:
    world = await ready_world()

    for delay in ("1s", "2s", "3s", "4s"):
        world.now += 1
        world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", _bound(delay))
        await world.settle()

    policies = world.cluster.objects(CONFIG_MAP, "tenant")
    delays = sorted(policy["data"]["policy.yaml"].split('maxRevocationDelay": "')[1][:2] for policy in policies)
    assert delays == ["3s", "4s"]


def _bound(delay: str) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        body["spec"]["validation"]["maxRevocationDelay"] = delay

    return change
