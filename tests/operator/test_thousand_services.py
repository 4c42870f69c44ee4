"""A thousand services and one authorization server that dies: what that costs, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from protectedservice_operator.resource import DEPLOYMENT, PROTECTED_SERVICE, Kind

from ..support.objects import protected_service
from ..support.world import World

RATE = 20.0  # AuthorizationServer.spec.limits.requestsPerSecond, default
BURST = 40
PROBE_INTERVAL = 30.0


class ManyServices(World):
    """A world whose kubelet looks only at what changed: looking at everything each time is quadratic."""

    def __init__(self, services: int) -> None:
        self._changed: set[str] = set()
        super().__init__()
        self.patience = 100 * services

    def _watch(self, kind: Kind, type_: str, obj: dict[str, Any]) -> None:
        super()._watch(kind, type_, obj)
        if kind == DEPLOYMENT:
            self._changed.add(obj["metadata"]["name"])

    def _kubelet(self) -> None:
        changed, self._changed = self._changed, set()
        for name in sorted(changed):
            self._run(self.cluster.read(DEPLOYMENT, "tenant", name))


def status_writes(world: World, since: int) -> dict[str, int]:
    """Status writes of each service."""
    counts: dict[str, int] = {}
    for write in world.cluster.writes[since:]:
        if write.kind is PROTECTED_SERVICE and write.subresource == "status":
            counts[write.name] = counts.get(write.name, 0) + 1
    return counts


@pytest.mark.parametrize("services", [100, pytest.param(1000, marks=pytest.mark.slow)])
async def test_a_dead_server_costs_only_probes_and_one_status_write_each_and_recovery_keeps_the_rate(
    services: int,
) -> None:
    world = ManyServices(services)
    for number in range(services // 2):
        world.add(protected_service(f"old-{number}", workload={"replicas": 0}))
    await world.settle()
    assert world.server.created_total == services // 2

    # It dies, and as many again are made meanwhile.
    world.server.down = True
    asked, began = len(world.server.requests), world.now
    await world.later(PROBE_INTERVAL + 5)
    written = len(world.cluster.writes)
    for number in range(services // 2):
        world.add(protected_service(f"new-{number}", workload={"replicas": 0}))
    await world.later(3600)

    outage = world.now - began
    probes = len(world.server.requests) - asked
    # A probe doubles its pause from 2 s up to the interval; nothing but probes is sent, however many wait.
    assert probes <= outage / (0.8 * PROBE_INTERVAL) + 5
    counts = status_writes(world, written)
    assert max(counts.values()) == 1
    assert len(counts) == services // 2  # of the old ones each said so before, in its own single write

    world.server.down = False
    asked, began = len(world.server.requests), world.now
    await world.later(60 + services / 2 / RATE)

    assert world.server.created_total == services
    took = world.now - began
    assert len(world.server.requests) - asked <= BURST + RATE * took
    assert len(world.ledgers()) == len(world.server.clients) == services
    assert all(
        next(c for c in body["status"]["conditions"] if c["type"] == "Ready")["status"] == "True"
        for body in world.cluster.objects(PROTECTED_SERVICE)
    )
