"""Where and as whom pods run, and how many of them a drain must leave."""

from __future__ import annotations

from typing import Any

import pytest

from protectedservice_operator.resource import (
    DEPLOYMENT,
    LABEL_COMPONENT,
    LABEL_NAME,
    POD_DISRUPTION_BUDGET,
    PROTECTED_SERVICE,
    SERVICE_ACCOUNT,
)

from ..support.objects import protected_service
from ..support.world import World

CHILD = "orders-protected"
SELECTOR = {LABEL_NAME: "orders", LABEL_COMPONENT: "resource-server"}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}]
        }
    }
}
WORKLOAD: dict[str, Any] = {
    "replicas": 1,
    "nodeSelector": {"pool": "edge"},
    "tolerations": [{"key": "edge", "operator": "Exists"}],
    "affinity": AFFINITY,
    "topologySpreadConstraints": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
    "serviceAccountName": "edge",
    "podDisruptionBudget": {"minAvailable": 1},
}


async def ready_world(**workload: Any) -> World:
    world = World()
    world.add(protected_service("orders", workload={"replicas": 1, **workload}))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


def pod_spec(world: World) -> dict[str, Any]:
    spec: dict[str, Any] = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]["spec"]
    return spec


def edit_pods(world: World, **fields: Any) -> None:
    """Somebody edits the Deployment's template."""

    def change(body: dict[str, Any]) -> None:
        body["spec"]["template"]["spec"].update(fields)

    world.cluster.edit(DEPLOYMENT, "tenant", CHILD, change)


async def test_the_pods_stand_where_the_service_says() -> None:
    world = await ready_world(**WORKLOAD)
    spec = pod_spec(world)

    for name in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "serviceAccountName"):
        assert spec[name] == WORKLOAD[name]
    assert spec["topologySpreadConstraints"] == [
        {**WORKLOAD["topologySpreadConstraints"][0], "labelSelector": {"matchLabels": SELECTOR}}
    ]
    assert spec["automountServiceAccountToken"] is False


async def test_an_account_of_somebody_s_is_used_and_none_of_ours_is_made() -> None:
    world = await ready_world(serviceAccountName="edge")

    assert world.cluster.objects(SERVICE_ACCOUNT, "tenant") == []


async def test_the_budget_selects_the_service_s_pods_and_lets_those_go_that_serve_nobody() -> None:
    world = await ready_world(podDisruptionBudget={"maxUnavailable": "50%"})
    budget = world.cluster.read(POD_DISRUPTION_BUDGET, "tenant", CHILD)

    assert budget["spec"] == {
        "maxUnavailable": "50%",
        "selector": {"matchLabels": SELECTOR},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    assert budget["metadata"]["ownerReferences"][0]["uid"] == world.service()["metadata"]["uid"]


async def test_a_budget_that_is_not_wanted_any_more_is_deleted_and_one_that_changes_is_changed() -> None:
    world = await ready_world(podDisruptionBudget={"minAvailable": 1})

    def change(body: dict[str, Any]) -> None:
        body["spec"]["workload"]["podDisruptionBudget"] = {"maxUnavailable": 1}

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", change)
    await world.settle()
    changed = world.cluster.read(POD_DISRUPTION_BUDGET, "tenant", CHILD)["spec"]

    def remove(body: dict[str, Any]) -> None:
        del body["spec"]["workload"]["podDisruptionBudget"]

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", remove)
    await world.settle()

    assert (changed["maxUnavailable"], changed.get("minAvailable")) == (1, None)
    assert world.cluster.objects(POD_DISRUPTION_BUDGET, "tenant") == []
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_budget_of_that_name_that_is_somebody_else_s_is_left_alone() -> None:
    world = World()
    theirs = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": CHILD, "namespace": "tenant"},
        "spec": {"minAvailable": 3},
    }
    world.cluster.insert(POD_DISRUPTION_BUDGET, theirs)
    world.add(protected_service("orders", workload={"replicas": 1, "podDisruptionBudget": {"minAvailable": 1}}))
    await world.settle()

    assert world.condition("orders", "WorkloadAvailable") == ("False", "NotOwned")
    assert world.cluster.read(POD_DISRUPTION_BUDGET, "tenant", CHILD)["spec"] == {"minAvailable": 3}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"nodeSelector": {"pool": "other"}}, id="another node"),
        pytest.param({"nodeSelector": {"pool": "edge", "more": "x"}}, id="one more label of nodes"),
        pytest.param({"tolerations": []}, id="no toleration"),
        pytest.param({"tolerations": [*WORKLOAD["tolerations"], {"operator": "Exists"}]}, id="one more toleration"),
        pytest.param({"affinity": {**AFFINITY, "podAffinity": {"x": []}}}, id="one more affinity"),
        pytest.param({"topologySpreadConstraints": []}, id="no constraint"),
        pytest.param(
            {
                "topologySpreadConstraints": [
                    {
                        **WORKLOAD["topologySpreadConstraints"][0],
                        "labelSelector": {"matchLabels": SELECTOR},
                    },
                    {"topologyKey": "zone", "maxSkew": 9, "whenUnsatisfiable": "ScheduleAnyway"},
                ]
            },
            id="one more constraint",
        ),
        pytest.param({"priorityClassName": "low"}, id="another priority"),
        pytest.param({"serviceAccountName": "admin"}, id="another account"),
    ],
)
async def test_what_the_service_says_is_put_back(fields: dict[str, Any]) -> None:
    world = await ready_world(**WORKLOAD)
    before = pod_spec(world)
    edit_pods(world, **fields)
    await world.settle()

    assert pod_spec(world) == before
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_what_the_service_does_not_say_may_be_said_by_others() -> None:
    world = await ready_world()
    edit_pods(world, nodeSelector={"pool": "x"}, tolerations=[{"operator": "Exists"}], priorityClassName="low")
    await world.settle()
    spec = pod_spec(world)

    assert (spec["nodeSelector"], spec["tolerations"], spec["priorityClassName"]) == (
        {"pool": "x"},
        [{"operator": "Exists"}],
        "low",
    )
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_restart_writes_nothing_of_the_service() -> None:
    world = await ready_world(**WORKLOAD)
    writes = len(world.writes())
    world.restart()
    await world.settle()

    assert [write for write in world.writes()[writes:] if write.namespace == "tenant"] == []
