"""`kill -9` at every point of an adopted client's life: it is that client in the end, and never another one."""

from __future__ import annotations

import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import PROTECTED_SERVICE

from ..support.adoption import (
    KINDS,
    UNMANAGED,
    adopted,
    adopting,
    bring,
    edit,
    prepared,
    refused,
)
from ..support.fake_authorization_server import Operation
from ..support.fake_hydra import FakeHydra
from ..support.fake_keycloak import FakeKeycloak
from ..support.world import Killed, World
from .test_crash_points import reported_leaks

pytestmark = pytest.mark.thorough


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flow", ["adopt", "another secret", "other scopes", "leave", "delete", "lost"])
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_exactly_the_client_that_is_adopted_whatever_the_crash(kind: str, flow: str, after: bool) -> None:
    for effect in range(1, 60):
        world = await (
            prepared(kind) if flow == "adopt" else adopted(kind, policy="Delete" if flow == "delete" else "Retain")
        )
        world.kill_at(effect, after=after)
        try:
            await act(world, flow)
            died = False
        except Killed:
            died = True
            world.restart()
            await world.later(2100 if flow == "lost" else 310)

        point = f"effect {effect}"
        assert world.server.created_total == 0, point
        assert world.server.count(Operation.REGISTER) <= (1 if kind == "keycloak" else 0), point  # its client scope
        match flow:
            case "leave":
                assert [entry.record.state for entry in world.ledgers()] == [State.RETAINED], point
                assert set(world.server.clients) == {"legacy"}, point
                assert world.credentials()["client_secret"] == "legacy-secret-1", point
            case "delete":
                assert world.cluster.objects(PROTECTED_SERVICE) == [], point
                left = kind in UNMANAGED
                assert set(world.server.clients) == ({"legacy"} if left else set()), point
                assert (reported_leaks(world) > 0) == left, point
            case "lost":
                assert world.server.clients == {}, point
                assert refused(world) == ("False", "AdoptionNotProved"), point
            case _:
                (entry,) = world.ledgers()
                assert (entry.record.state, entry.chosen) == (State.REGISTERED, None), point
                assert world.condition("orders", "Ready") == ("True", "Ready"), (point, world.service()["status"])
                client = world.server.clients["legacy"]
                assert world.credentials() == {"client_id": "legacy", "client_secret": client.client_secret}, point
                scopes = {"read", "write"} if flow == "other scopes" else {"read"}
                assert client.scopes == scopes, point
                assert set(world.server.clients) == {"legacy"}, point
        if flow != "delete":
            assert reported_leaks(world) == 0, point
        if not died:
            break
    assert effect > 1


async def act(world: World, flow: str) -> None:
    match flow:
        case "adopt":
            world.add(adopting())
        case "another secret":
            if isinstance(world.server, FakeKeycloak):
                world.server.realm_clients["legacy"].representation["secret"] = "legacy-secret-2"
            world.server.clients["legacy"].client_secret = "legacy-secret-2"
            bring(world, "legacy-secret-2")
        case "other scopes":
            if not isinstance(world.server, FakeHydra | FakeKeycloak):  # by its administrator
                world.server.clients["legacy"].metadata["scope"] = "read write"
            edit(world, scopes=["read", "write"])
        case "leave" | "delete":
            world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
        case "lost":
            world.server.lose_client("legacy")
            await world.later(2000)  # until it is looked at
    await world.settle()
