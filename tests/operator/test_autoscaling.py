"""With autoscaling the number of pods is the autoscaler's, and nobody's pods go when it changes hands."""

from __future__ import annotations

from typing import Any

import pytest

from protectedservice_operator.resource import (
    ANNOTATION_AUTOSCALED,
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    PROTECTED_SERVICE,
)

from ..support.objects import protected_service
from ..support.world import Killed, World

CHILD = "orders-protected"
AUTOSCALING = {"min": 2, "max": 6, "targetCPUUtilization": 70}


async def ready_world(**workload: Any) -> World:
    world = World()
    world.add(protected_service("orders", workload=workload))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


def spec_of_deployment(world: World) -> dict[str, Any]:
    spec: dict[str, Any] = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]
    return spec


def scale(world: World, replicas: int) -> None:
    """As the autoscaler does it."""
    world.cluster.edit(
        DEPLOYMENT,
        "tenant",
        CHILD,
        lambda body: body["spec"].update(replicas=replicas),
        manager="kube-controller-manager",
    )


async def change(world: World, **workload: Any) -> None:
    def edit(body: dict[str, Any]) -> None:
        for name, value in workload.items():
            if value is None:
                del body["spec"]["workload"][name]
            else:
                body["spec"]["workload"][name] = value

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", edit)
    await world.settle()


async def test_an_autoscaler_is_made_for_the_deployment_which_says_no_number() -> None:
    world = await ready_world(autoscaling=AUTOSCALING)
    autoscaler = world.cluster.read(HORIZONTAL_POD_AUTOSCALER, "tenant", CHILD)

    assert autoscaler["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": CHILD},
        "minReplicas": 2,
        "maxReplicas": 6,
        "metrics": [
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
            }
        ],
    }
    assert "replicas" not in spec_of_deployment(world)


async def test_replicas_0_is_no_rest_where_the_autoscaler_counts() -> None:
    world = await ready_world(replicas=0, autoscaling=AUTOSCALING)

    assert world.condition("orders", "Verified") == ("True", "Proved")


async def test_the_autoscaler_s_number_is_left_alone_through_every_change_of_ours() -> None:
    world = await ready_world(autoscaling=AUTOSCALING)
    scale(world, 5)
    await world.settle()
    after_scaling = spec_of_deployment(world)["replicas"]
    await change(world, logLevel="debug")
    world.restart()
    await world.settle()

    assert (after_scaling, spec_of_deployment(world)["replicas"]) == (5, 5)
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_the_pods_that_are_there_stay_when_the_number_changes_hands() -> None:
    world = await ready_world(replicas=4)
    await change(world, autoscaling=AUTOSCALING)
    handed_over = spec_of_deployment(world)["replicas"]
    scale(world, 3)
    await change(world, logLevel="debug")
    scaled = spec_of_deployment(world)["replicas"]
    await change(world, autoscaling=None)

    assert (handed_over, scaled) == (4, 3)
    assert spec_of_deployment(world)["replicas"] == 4
    assert world.cluster.objects(HORIZONTAL_POD_AUTOSCALER, "tenant") == []
    assert ANNOTATION_AUTOSCALED not in world.cluster.read(DEPLOYMENT, "tenant", CHILD)["metadata"]["annotations"]
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_it_may_change_hands_again_and_again() -> None:
    world = await ready_world(replicas=4)
    for _ in range(2):
        await change(world, autoscaling=AUTOSCALING)
        assert spec_of_deployment(world)["replicas"] == 4
        scale(world, 6)
        await change(world, autoscaling=None)
        assert spec_of_deployment(world)["replicas"] == 4


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("effect", [1, 2, 3])  # the handover, the Deployment, the autoscaler
async def test_a_handover_that_is_killed_on_its_way_loses_no_pod(effect: int, after: bool) -> None:
    world = await ready_world(replicas=4)
    world.kill_at(effect, after=after)
    with pytest.raises(Killed):
        await change(world, autoscaling=AUTOSCALING)
    world.restart()
    await world.recover()

    assert spec_of_deployment(world)["replicas"] == 4
    assert len(world.cluster.objects(HORIZONTAL_POD_AUTOSCALER, "tenant")) == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_more_pods_on_their_way_make_the_service_no_less_available() -> None:
    world = await ready_world(autoscaling=AUTOSCALING)
    scale(world, 2)
    await world.settle()
    world.kubelet_runs = False
    scale(world, 5)
    generation = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["metadata"]["generation"]
    counts = {"observedGeneration": generation, "replicas": 5, "updatedReplicas": 5, "availableReplicas": 2}
    world.cluster.set_status(DEPLOYMENT, "tenant", CHILD, counts)
    await world.settle()
    growing = world.condition("orders", "WorkloadAvailable")
    world.cluster.set_status(DEPLOYMENT, "tenant", CHILD, {**counts, "availableReplicas": 1})
    await world.settle()

    assert growing == ("True", "Available")
    assert world.condition("orders", "WorkloadAvailable") == ("False", "Progressing")


async def test_an_edited_autoscaler_is_put_back() -> None:
    world = await ready_world(autoscaling=AUTOSCALING)
    before = world.cluster.read(HORIZONTAL_POD_AUTOSCALER, "tenant", CHILD)["spec"]
    world.cluster.edit(
        HORIZONTAL_POD_AUTOSCALER,
        "tenant",
        CHILD,
        lambda body: body["spec"].update(maxReplicas=100, behavior={"scaleUp": {"selectPolicy": "Disabled"}}),
    )
    await world.settle()

    assert world.cluster.read(HORIZONTAL_POD_AUTOSCALER, "tenant", CHILD)["spec"] == before
