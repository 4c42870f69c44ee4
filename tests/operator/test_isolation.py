"""`upstream.isolate`: who may reach the upstream, who is believed about that, and what is left alone."""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from protectedservice_operator.resource import NETWORK_POLICY, POD, PROTECTED_SERVICE, SERVICE
from protectedservice_operator.trials import MOST_TARGETS, connect

from ..support.objects import protected_service
from ..support.world import Killed, World

CHILD = "orders-protected"
APP = {"app": "orders"}
UPSTREAM = ("10.1.0.1", 8080)
SIX_HOURS = 6 * 3600.0


def isolating(name: str = "orders", **spec: Any) -> dict[str, Any]:
    return protected_service(name, upstream={"service": {"name": "orders", "port": 80}, "isolate": True}, **spec)


def add_service(world: World, **spec: Any) -> None:
    content = {"selector": APP, "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}], **spec}
    world.cluster.insert(SERVICE, {"metadata": {"name": "orders", "namespace": "tenant"}, "spec": content})


def add_pod(
    world: World,
    name: str = "orders-1",
    ip: str = UPSTREAM[0],
    *,
    labels: dict[str, str] | None = None,
    ready: bool = True,
    namespace: str = "tenant",
    **spec: Any,
) -> None:
    container = {"name": "app", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}
    world.cluster.insert(
        POD,
        {
            "metadata": {"name": name, "namespace": namespace, "labels": APP if labels is None else labels},
            "spec": {"containers": [container], **spec},
        },
        status={"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    )


def add_policy(world: World, name: str, spec: dict[str, Any]) -> None:
    world.cluster.insert(NETWORK_POLICY, {"metadata": {"name": name, "namespace": "tenant"}, "spec": spec})


async def isolated_world(**service: Any) -> World:
    world = World()
    add_service(world, **service)
    add_pod(world)
    world.add(isolating())
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


def spec_of_policy(world: World) -> dict[str, Any]:
    spec: dict[str, Any] = world.cluster.read(NETWORK_POLICY, "tenant", CHILD)["spec"]
    return spec


def condition(world: World) -> tuple[str, str] | None:
    return world.condition("orders", "UpstreamIsolated")


async def isolate(world: World, on: bool) -> None:
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"]["upstream"].update(isolate=on))
    await world.settle()


# --- the policy ------------------------------------------------------------------------------------------------------


async def test_only_the_resource_server_reaches_the_service_s_ports_and_everybody_the_others() -> None:
    world = await isolated_world()

    assert spec_of_policy(world) == {
        "podSelector": {"matchLabels": APP},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "from": [
                    {
                        "podSelector": {
                            "matchLabels": {
                                "protectedservice.dev/name": "orders",
                                "protectedservice.dev/component": "resource-server",
                            }
                        }
                    }
                ],
                "ports": [{"protocol": "TCP", "port": 8080}],
            },
            {
                "ports": [
                    {"protocol": "TCP", "port": 1, "endPort": 8079},
                    {"protocol": "TCP", "port": 8081, "endPort": 65535},
                    {"protocol": "UDP"},
                    {"protocol": "SCTP"},
                ]
            },
        ],
    }


async def test_every_target_port_of_the_service_is_closed_of_each_protocol() -> None:
    ports = [
        {"name": "web", "port": 80, "targetPort": "web"},
        {"name": "same", "port": 443},
        {"name": "dns", "port": 53, "targetPort": 1, "protocol": "UDP"},
        {"name": "last", "port": 9, "targetPort": 65535, "protocol": "TCP"},
    ]
    world = await isolated_world(ports=ports)
    closed, opened = (rule["ports"] for rule in spec_of_policy(world)["ingress"])

    assert [(port["protocol"], port["port"]) for port in closed] == [
        ("TCP", 443),
        ("TCP", 8080),
        ("TCP", 65535),
        ("UDP", 1),
    ]
    assert [(port["protocol"], port.get("port"), port.get("endPort")) for port in opened] == [
        ("TCP", 1, 442),
        ("TCP", 444, 8079),
        ("TCP", 8081, 65534),
        ("UDP", 2, 65535),
        ("SCTP", None, None),
    ]


async def test_pods_that_call_different_numbers_by_the_port_s_name_are_all_closed() -> None:
    world = World()
    add_service(world, ports=[{"port": 80, "targetPort": "web"}])
    add_pod(world)
    other = {"name": "app", "ports": [{"name": "web", "containerPort": 8000, "protocol": "TCP"}]}
    add_pod(world, "orders-2", "10.1.0.2", containers=[other])
    world.add(isolating())
    await world.settle()

    assert [port["port"] for port in spec_of_policy(world)["ingress"][0]["ports"]] == [8000, 8080]
    assert world.connected == [("10.1.0.1", 8080), ("10.1.0.2", 8000)]


async def test_without_it_there_is_neither_policy_nor_condition_and_nobody_looks_at_the_upstream() -> None:
    world = World()
    read: list[tuple[str, str]] = []
    world.cluster.before_read = lambda verb, kind, namespace, name: read.append((kind.kind, name))
    add_service(world)
    add_pod(world)
    world.add(protected_service("orders", upstream={"service": {"name": "orders", "port": 80}}))
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert condition(world) is None
    assert world.cluster.objects(NETWORK_POLICY) == []
    assert world.connected == []
    assert ("Service", "orders") not in read


async def test_switched_off_again_the_policy_goes_and_the_condition_with_it() -> None:
    world = await isolated_world()
    await isolate(world, False)

    assert world.cluster.objects(NETWORK_POLICY) == []
    assert condition(world) is None
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_the_policy_goes_with_its_service() -> None:
    world = await isolated_world()
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(NETWORK_POLICY) == []


async def test_what_another_policy_closed_stays_closed() -> None:
    world = World()
    add_service(world)
    add_pod(world)
    add_policy(world, "deny-all", {"podSelector": {}, "policyTypes": ["Ingress"]})
    world.add(isolating())
    await world.settle()
    beside_another = spec_of_policy(world)["ingress"]
    world.cluster.remove(NETWORK_POLICY, "tenant", "deny-all")
    await world.settle()
    alone = spec_of_policy(world)["ingress"]
    add_policy(world, "deny-app", {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}})
    await world.settle()

    assert [len(beside_another), len(alone), len(spec_of_policy(world)["ingress"])] == [1, 2, 1]


@pytest.mark.parametrize(
    "spec",
    [
        {"podSelector": {"matchLabels": {"app": "another"}}, "policyTypes": ["Ingress"]},
        {"podSelector": {}, "policyTypes": ["Egress"]},
    ],
)
async def test_a_policy_about_something_else_changes_nothing(spec: dict[str, Any]) -> None:
    world = World()
    add_service(world)
    add_pod(world)
    add_policy(world, "another", spec)
    world.add(isolating())
    await world.settle()

    assert len(spec_of_policy(world)["ingress"]) == 2


async def test_two_services_in_front_of_one_upstream_both_keep_its_other_ports_open() -> None:
    world = await isolated_world()
    world.add(isolating("second"))
    await world.settle()

    second = world.cluster.read(NETWORK_POLICY, "tenant", "second-protected")["spec"]
    assert [len(spec_of_policy(world)["ingress"]), len(second["ingress"])] == [2, 2]


async def test_the_policy_waits_for_the_deployment_not_for_the_authorization_server() -> None:
    world = World()
    add_service(world)
    add_pod(world)
    world.server.down = True
    world.add(isolating())
    await world.settle()
    before = world.cluster.objects(NETWORK_POLICY)
    world.server.down = False
    await world.recover()
    world.server.down = True
    world.cluster.remove(NETWORK_POLICY, "tenant", CHILD)
    await world.settle()

    assert before == []
    assert len(world.cluster.objects(NETWORK_POLICY)) == 1


# --- drift -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda spec: spec["ingress"].append({}), id="a rule that admits everybody"),
        pytest.param(lambda spec: spec["podSelector"]["matchLabels"].update(app="none"), id="other pods"),
        pytest.param(lambda spec: spec["podSelector"]["matchLabels"].update(more="1"), id="fewer pods"),
        pytest.param(lambda spec: spec.update(egress=[]), id="egress"),
        pytest.param(lambda spec: spec["policyTypes"].append("Egress"), id="another type"),
    ],
)
async def test_an_edited_policy_is_put_back(change: Callable[[dict[str, Any]], None]) -> None:
    world = await isolated_world()
    before = spec_of_policy(world)
    world.cluster.edit(NETWORK_POLICY, "tenant", CHILD, lambda body: change(body["spec"]))
    await world.settle()

    assert spec_of_policy(world) == before


async def test_a_deleted_policy_comes_back() -> None:
    world = await isolated_world()
    world.cluster.remove(NETWORK_POLICY, "tenant", CHILD)
    await world.settle()

    assert len(world.cluster.objects(NETWORK_POLICY)) == 1
    assert condition(world) == ("True", "DirectConnectionRefused")


async def test_a_policy_of_that_name_which_is_somebody_else_s_is_left_alone_and_the_service_is_ready() -> None:
    world = World()
    add_service(world)
    add_pod(world)
    foreign: dict[str, Any] = {"podSelector": {}}
    add_policy(world, CHILD, foreign)
    world.add(isolating())
    await world.settle()

    assert spec_of_policy(world) == foreign
    assert condition(world) == ("False", "NotOwned")
    assert CHILD in world.message("orders", "UpstreamIsolated")
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_what_the_tenant_changes_at_its_service_is_followed_within_minutes() -> None:
    world = await isolated_world()
    world.cluster.edit(SERVICE, "tenant", "orders", lambda body: body["spec"]["ports"][0].update(targetPort=9000))
    await world.later(301)

    assert spec_of_policy(world)["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 9000}]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("on", [False, True])
async def test_a_pass_that_is_killed_at_the_policy_is_taken_up(on: bool, after: bool) -> None:
    world = await isolated_world()
    if on:
        await isolate(world, False)
    world.kill_at(1, after=after)
    with pytest.raises(Killed):
        await isolate(world, on)
    world.restart()
    await world.recover()

    assert len(world.cluster.objects(NETWORK_POLICY)) == int(on)
    assert condition(world) == (("True", "DirectConnectionRefused") if on else None)


# --- what cannot be isolated -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "pod", "reason", "words"),
    [
        (None, {}, "UpstreamNotFound", "create it"),
        ({"selector": None}, {}, "UpstreamWithoutSelector", "by hand"),
        ({"selector": {}}, {}, "UpstreamWithoutSelector", "by hand"),
        ({"type": "ExternalName"}, {}, "UpstreamWithoutSelector", "by hand"),
        ({"ports": [{"port": 81}]}, {}, "UpstreamPortUnknown", "no TCP port 80"),
        ({"ports": [{"port": 80, "protocol": "UDP"}]}, {}, "UpstreamPortUnknown", "no TCP port 80"),
        ({"ports": [{"port": 80, "targetPort": "nobody-s"}]}, {}, "UpstreamPortUnknown", "nobody-s"),
        ({}, {"hostNetwork": True}, "UpstreamOnHostNetwork", "node's network"),
        ({"selector": {"protectedservice.dev/name": "orders"}}, {}, "UpstreamSelectsServer", "podLabels"),
    ],
)
async def test_what_cannot_be_isolated_says_why_and_leaves_the_service_ready(
    service: dict[str, Any] | None, pod: dict[str, Any], reason: str, words: str
) -> None:
    world = World()
    if service is not None:
        add_service(world, **service)
    add_pod(world, **pod)
    world.add(isolating())
    await world.settle()

    assert condition(world) == ("False", reason)
    assert words in world.message("orders", "UpstreamIsolated")
    assert "tenant/orders" in world.message("orders", "UpstreamIsolated") or reason == "UpstreamPortUnknown"
    assert world.cluster.objects(NETWORK_POLICY) == []
    assert world.connected == []
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_upstream_by_url_is_not_isolated_and_what_its_service_had_is_taken_off() -> None:
    world = await isolated_world()
    upstream = {"url": "http://elsewhere.example", "timeout": "30s", "forwardToken": False, "isolate": True}
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(upstream=upstream))
    await world.settle()

    assert condition(world) == ("False", "UpstreamWithoutSelector")
    assert "spec.upstream.url" in world.message("orders", "UpstreamIsolated")
    assert world.cluster.objects(NETWORK_POLICY) == []
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_pods_that_bear_the_upstream_s_own_labels_are_not_cut_off_themselves() -> None:
    world = World()
    add_service(world)
    add_pod(world)
    world.add(isolating(workload={"replicas": 1, "podLabels": APP}))
    await world.settle()

    assert condition(world) == ("False", "UpstreamSelectsServer")
    assert world.cluster.objects(NETWORK_POLICY) == []


async def test_an_upstream_that_is_gone_opens_nothing_that_was_closed() -> None:
    world = await isolated_world()
    world.cluster.remove(SERVICE, "tenant", "orders")
    await world.later(301)
    gone = condition(world)
    add_service(world)
    await world.later(301)

    assert gone == ("False", "UpstreamNotFound")
    assert len(world.cluster.objects(NETWORK_POLICY)) == 1
    assert condition(world) == ("True", "DirectConnectionRefused")


# --- the trial -------------------------------------------------------------------------------------------------------


async def test_a_refused_connection_where_the_resource_server_gets_through_is_believed() -> None:
    world = await isolated_world()

    assert condition(world) == ("True", "DirectConnectionRefused")
    assert world.connected == [UPSTREAM]


async def test_a_network_that_enforces_nothing_is_told_after_a_few_tries() -> None:
    world = World()
    world.enforces_policies = False
    add_service(world)
    add_pod(world)
    world.add(isolating())
    await world.settle()
    at_first = condition(world)
    await world.later(60)

    assert at_first == ("Unknown", "PolicyApplied")
    assert condition(world) == ("False", "NotEnforced")
    assert "10.1.0.1:8080" in world.message("orders", "UpstreamIsolated")
    assert "CNI" in world.message("orders", "UpstreamIsolated")
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_such_a_network_is_tried_less_and_less_often_and_believed_once_it_enforces() -> None:
    world = World()
    world.enforces_policies = False
    add_service(world)
    add_pod(world)
    world.add(isolating())
    await world.later(24 * 3600)
    tries = len(world.connected)
    world.enforces_policies = True
    await world.later(3600)

    assert tries < 40
    assert condition(world) == ("True", "DirectConnectionRefused")


async def test_a_refusal_says_nothing_where_the_resource_server_is_refused_too() -> None:
    world = World()
    world.through = 502
    add_service(world)
    add_pod(world)
    world.add(isolating())
    await world.settle()
    before = condition(world)
    world.through = 204
    await world.later(60)

    assert before == ("Unknown", "PolicyApplied")
    assert condition(world) == ("True", "DirectConnectionRefused")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), ("True", "DirectConnectionRefused")),
        (OSError(errno.EHOSTUNREACH, "no route"), ("True", "DirectConnectionRefused")),
        (OSError(errno.EMFILE, "too many open files"), ("Unknown", "PolicyApplied")),
        (OSError(errno.ENETUNREACH, "no network"), ("Unknown", "PolicyApplied")),
        (RuntimeError("a bug"), ("Unknown", "PolicyApplied")),
    ],
)
async def test_only_what_a_network_does_to_keep_somebody_out_counts_as_refused(
    error: Exception, told: tuple[str, str]
) -> None:
    world = World()

    async def connect(ip: str, port: int) -> None:
        raise error

    world.trials._connect = connect
    add_service(world)
    add_pod(world)
    world.add(isolating())
    await world.settle()

    assert condition(world) == told


async def test_only_ready_pods_that_the_service_selects_here_are_connected_to_and_not_many() -> None:
    world = World()
    add_service(world)
    add_pod(world, "another-app", "10.2.0.1", labels={"app": "another"})
    add_pod(world, "another-tenant", "10.2.0.2", namespace="other")
    add_pod(world, "not-ready", "10.2.0.3", ready=False)
    for index in range(20):
        add_pod(world, f"orders-{index:02}", f"10.1.0.{index}")
    world.add(isolating())
    await world.settle()

    assert world.connected == [(f"10.1.0.{index}", 8080) for index in range(MOST_TARGETS)]


async def test_a_trial_is_rare() -> None:
    world, levels = await isolated_world(), itertools.cycle(["debug", "info"])
    for index in range(5):  # pods come, the service is edited: the policy stays
        add_pod(world, f"more-{index}", f"10.1.1.{index}")
        world.cluster.edit(
            PROTECTED_SERVICE,
            "tenant",
            "orders",
            lambda body: body["spec"]["workload"].update(logLevel=next(levels)),
        )
        await world.later(600)
    unchanged = len(world.connected)
    await world.later(SIX_HOURS * 1.2)

    assert unchanged == 1
    assert len(world.connected) == 1 + MOST_TARGETS


async def test_another_policy_is_tried_anew_and_not_believed_before() -> None:
    world = await isolated_world()
    world.enforces_policies = False
    add_policy(world, "deny-all", {"podSelector": {}, "policyTypes": ["Ingress"]})
    await world.settle()

    assert condition(world) == ("Unknown", "PolicyApplied")


async def test_a_restart_connects_to_nobody_and_says_the_same() -> None:
    world = await isolated_world()
    world.restart()
    await world.settle()

    assert condition(world) == ("True", "DirectConnectionRefused")
    assert world.connected == [UPSTREAM]


async def test_a_policy_that_changed_while_nobody_looked_is_tried_after_the_restart() -> None:
    world = await isolated_world()
    world.cluster.edit(SERVICE, "tenant", "orders", lambda body: body["spec"]["ports"][0].update(targetPort=9000))
    world.enforces_policies = False
    world.restart()
    await world.settle()

    assert condition(world) == ("Unknown", "PolicyApplied")
    assert world.connected[1:] == [("10.1.0.1", 9000)]


async def test_without_pods_on_either_side_nobody_is_tried() -> None:
    world = World()
    add_service(world)
    world.add(isolating())
    await world.later(3600)
    no_upstream = condition(world)
    add_pod(world)
    await world.later(301)

    assert no_upstream == ("Unknown", "PolicyApplied")
    assert condition(world) == ("True", "DirectConnectionRefused")
    assert world.connected == [UPSTREAM]


async def test_an_operator_that_verifies_nothing_tries_nothing() -> None:
    world = World(settings={"verification": False})
    add_service(world)
    add_pod(world)
    world.add(isolating())
    await world.settle()

    assert condition(world) == ("Unknown", "PolicyApplied")
    assert "switched off" in world.message("orders", "UpstreamIsolated")
    assert world.connected == []


async def test_of_a_suspended_service_no_policy_is_touched() -> None:
    world = await isolated_world()
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(suspend=True))
    await world.settle()
    world.cluster.remove(NETWORK_POLICY, "tenant", CHILD)
    await world.settle()

    assert world.cluster.objects(NETWORK_POLICY) == []
    assert condition(world) == ("False", "Suspended")


async def test_a_connection_is_hung_up_and_nothing_is_sent_on_it() -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            received.set_result(await reader.read())
        except ConnectionResetError:  # hung up at once
            received.set_result(b"")
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as listener, asyncio.timeout(10):
        port = listener.sockets[0].getsockname()[1]
        await connect("127.0.0.1", port)
        assert await received == b""
    with pytest.raises(ConnectionRefusedError):
        await connect("127.0.0.1", port)
