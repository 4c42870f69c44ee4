"""Other keys in the credentials Secret: pods always find theirs, before, during and after a change."""

from __future__ import annotations

import base64
from typing import Any

from protectedservice_operator.resource import DEPLOYMENT, POD, PROTECTED_SERVICE, SECRET

from ..support.fake_cluster import Write
from ..support.objects import protected_service
from ..support.world import World

CHILD = "orders-protected"
CREDENTIALS = "orders-oauth2-client"


def with_keys(client_id: str, client_secret: str) -> dict[str, Any]:
    keys = {"clientId": client_id, "clientSecret": client_secret}
    return {"deletionPolicy": "Delete", "credentialsSecret": {"keys": keys}}


async def ready_world(**spec: Any) -> World:
    world = World()
    world.add(protected_service("orders", **spec))
    await world.settle()
    return world


def change_keys(world: World, client_id: str, client_secret: str) -> None:
    client = with_keys(client_id, client_secret)
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(client=client))


def mounted(template_or_pod: dict[str, Any]) -> dict[str, str]:
    """File -> key, as the kubelet would mount them."""
    (volume,) = [v for v in template_or_pod["spec"]["volumes"] if v["name"] == "credentials"]
    return {item["path"]: item["key"] for item in volume["secret"]["items"]}


async def test_the_pods_files_keep_their_names_whatever_the_keys_are_called() -> None:
    world = await ready_world(client=with_keys("ID", "SECRET"))
    (client,) = world.server.clients.values()

    template = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]
    assert world.credentials() == {"ID": client.client_id, "SECRET": client.client_secret}
    assert mounted(template) == {"client_id": "ID", "client_secret": "SECRET"}
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_change_of_keys_leaves_no_moment_in_which_a_mount_names_a_key_that_is_not_there() -> None:
    world = await ready_world()
    missing: list[str] = []

    def look(write: Write) -> None:
        data = world.cluster.read(SECRET, "tenant", CREDENTIALS)["data"]
        bodies = [world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]]
        bodies += world.cluster.objects(POD, "tenant")
        for body in bodies:
            missing.extend(
                f"after {write.verb} {write.kind}: {key}" for key in mounted(body).values() if key not in data
            )

    world.cluster.after_effect = look
    world.kubelet_runs = False
    change_keys(world, "ID", "client_secret")
    await world.settle()

    assert set(world.credentials()) == {"client_id", "ID", "client_secret"}
    assert world.condition("orders", "CredentialsReady") == ("True", "Projected")

    world.kubelet_runs = True
    await world.settle()

    assert set(world.credentials()) == {"ID", "client_secret"}
    assert missing == []
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_a_foreign_key_is_removed_at_once_even_while_pods_roll() -> None:
    world = await ready_world()
    world.kubelet_runs = False
    change_keys(world, "ID", "SECRET")
    await world.settle()

    foreign = base64.b64encode(b"foreign").decode()
    world.cluster.edit(SECRET, "tenant", CREDENTIALS, lambda body: body["data"].update(extra=foreign))
    await world.settle()

    assert set(world.credentials()) == {"client_id", "client_secret", "ID", "SECRET"}


async def test_a_change_of_keys_and_a_restart_in_the_middle_end_with_the_new_ones() -> None:
    world = await ready_world()
    world.kubelet_runs = False
    change_keys(world, "ID", "SECRET")
    await world.settle()

    world.restart()
    world.kubelet_runs = True
    await world.settle()

    assert set(world.credentials()) == {"ID", "SECRET"}
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_change_of_keys_at_rest_with_no_replicas_is_made_at_once() -> None:
    world = await ready_world(workload={"replicas": 0})

    change_keys(world, "ID", "SECRET")
    await world.settle()

    assert set(world.credentials()) == {"ID", "SECRET"}
