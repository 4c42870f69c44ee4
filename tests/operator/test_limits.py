"""AuthorizationServer.spec.limits reaches the wire, and a change of it the next request."""

from __future__ import annotations

from typing import Any

from protectedservice_operator.resource import AUTHORIZATION_SERVER

from ..support.fake_authorization_server import Operation
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import START, World

SERVICES = 10


def set_limits(world: World, **limits: int) -> None:
    def change(body: dict[str, Any]) -> None:
        body["spec"]["limits"] = {"requestsPerSecond": 20, "burst": 40, "concurrency": 10, **limits}

    world.cluster.edit(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", change)


def add_services(world: World, prefix: str) -> None:
    for number in range(SERVICES):
        world.add(protected_service(f"{prefix}{number}", workload={"replicas": 0}))


async def test_registrations_drain_at_the_rate_that_the_server_is_given() -> None:
    world = World()
    set_limits(world, requestsPerSecond=1, burst=1)

    add_services(world, "a")
    await world.settle()

    assert world.server.created_total == SERVICES
    assert world.now - START >= SERVICES - 1  # one a second; sleeping moves this world's clock


async def test_a_changed_rate_holds_for_the_next_request_without_another_client() -> None:
    world = World()
    set_limits(world, requestsPerSecond=1, burst=1)
    add_services(world, "a")
    await world.settle()

    set_limits(world, requestsPerSecond=1000, burst=10000)
    await world.settle()
    before = world.now
    add_services(world, "b")
    await world.settle()

    assert world.now == before
    assert world.server.created_total == 2 * SERVICES
    assert world.server.count(Operation.DELETE) == 0


async def test_without_limits_of_its_own_a_server_gets_the_defaults() -> None:
    world = World()

    add_services(world, "a")
    await world.settle()

    assert world.now == START  # all of it fits into a burst of 40
