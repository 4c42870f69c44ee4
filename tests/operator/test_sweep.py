"""Clients whose object went without them: told, and deleted only where every fuse holds."""

from __future__ import annotations

import argparse
import json
import logging

import pytest

from protectedservice_operator import orphans_command
from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET

from ..support.fake_authorization_server import Operation
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import World

HOUR = 3600.0
TWO_SWEEPS = HOUR + 700.0  # the first one falls at half an hour here, the second ten minutes later at the earliest


async def orphaned(world: World, *names: str) -> None:
    """Services become ready, and vanish with their finalizers torn off, so that nobody deletes their clients."""
    for name in names:
        world.add(protected_service(name))
    await world.settle()
    for name in names:
        tear_off(world, name)
    await world.settle()


def tear_off(world: World, name: str) -> None:
    world.cluster.edit(PROTECTED_SERVICE, "tenant", name, lambda body: body["metadata"].update(finalizers=[]))
    world.cluster.remove(PROTECTED_SERVICE, "tenant", name)


def sweeping(**options: object) -> World:
    world = World(**options)  # type: ignore[arg-type]
    world.sweeps = True
    world.restart()
    return world


async def test_by_default_an_orphan_is_told_once_and_not_deleted(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await orphaned(world, "orders")

    with caplog.at_level(logging.WARNING):
        await world.later(5 * HOUR)

    (entry,) = world.ledgers()
    assert entry.record.state is State.REGISTERED
    assert world.server.count(Operation.DELETE) == 0
    told = [message for reason, message in world.events() if reason == "ClientOrphaned"]
    assert len(told) == 1
    assert entry.record.client_id is not None
    assert entry.record.client_id in told[0]
    assert "ProtectedService tenant/orders" in told[0]
    assert sum("belonged to" in line for line in caplog.messages) == 1
    assert world.metrics.value("orphans", fate="deletable") == 1


async def test_where_the_sweep_deletes_an_orphans_client_and_entry_go_and_nobody_elses() -> None:
    world = sweeping()
    world.add(protected_service("other"))
    await orphaned(world, "orders")

    await world.later(TWO_SWEEPS)

    assert [entry.record.owner_name for entry in world.ledgers()] == ["other"]
    assert len(world.server.clients) == 1
    assert world.condition("other", "Ready") == ("True", "Ready")


async def test_an_orphan_is_left_alone_until_it_was_seen_twice_ten_minutes_apart() -> None:
    world = sweeping()
    await orphaned(world, "orders")

    await world.later(HOUR / 2 + 590)  # the first sweep, at half an hour, has seen it
    assert len(world.server.clients) == 1

    await world.later(120)
    assert len(world.server.clients) == 0


async def test_an_object_that_only_the_cache_has_lost_keeps_its_client() -> None:
    world = sweeping()
    world.add(protected_service("orders"))
    await world.settle()
    body = world.service()
    world.cache.remove(PROTECTED_SERVICE, body)

    await world.later(3 * HOUR)

    assert len(world.server.clients) == 1
    assert [entry.record.state for entry in world.ledgers()] == [State.REGISTERED]


async def test_an_object_of_the_same_name_with_another_uid_does_not_keep_the_old_client() -> None:
    world = sweeping()
    await orphaned(world, "orders")
    world.add(protected_service("orders"))
    await world.settle()
    assert len(world.server.clients) == 2

    await world.later(TWO_SWEEPS)

    (entry,) = world.ledgers()
    assert entry.record.owner_uid == world.service()["metadata"]["uid"]
    assert list(world.server.clients) == [entry.record.client_id]


async def test_a_retained_client_is_no_orphan() -> None:
    world = sweeping()
    world.add(protected_service("orders", client={"deletionPolicy": "Retain"}))
    await world.settle()
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    await world.later(5 * HOUR)

    assert len(world.server.clients) == 1
    assert world.metrics.value("orphans", fate="deletable") == 0


async def test_a_sweep_deletes_ten_at_most_and_the_next_one_goes_on() -> None:
    world = sweeping()
    keepers = [f"kept-{number}" for number in range(16)]
    for name in keepers:
        world.add(protected_service(name, workload={"replicas": 0}))
    await world.settle()
    await orphaned(world, *(f"gone-{number}" for number in range(15)))

    await world.later(HOUR / 2 + 700)
    assert len(world.server.clients) == len(keepers) + 5

    await world.later(HOUR * 1.2)
    assert len(world.server.clients) == len(keepers)


async def test_when_more_than_half_of_the_ledger_would_go_nothing_goes_and_a_person_is_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = sweeping()
    await orphaned(world, *(f"gone-{number}" for number in range(12)))

    with caplog.at_level(logging.ERROR):
        await world.later(4 * HOUR)

    assert len(world.server.clients) == 12
    assert [line for line in caplog.messages if "orphans list" in line] != []


async def test_an_orphan_at_a_server_that_is_away_goes_when_it_is_back() -> None:
    world = sweeping()
    await orphaned(world, "orders")
    world.server.fail_on(Operation.DELETE, status=503, times=None)

    await world.later(TWO_SWEEPS)
    assert len(world.server.clients) == 1
    assert [entry.record.state for entry in world.ledgers()] == [State.DELETING]

    world.server.heal()
    await world.later(TWO_SWEEPS)
    assert world.server.clients == {}
    assert world.ledgers() == []


async def test_a_tenants_secret_that_poses_as_a_ledger_entry_is_not_swept() -> None:
    world = sweeping()
    world.add(protected_service("orders"))
    await world.settle()
    (ledger,) = [s for s in world.cluster.objects(SECRET, OPERATOR_NAMESPACE) if s["metadata"]["name"][:5] == "psvc-"]
    posing = {**ledger, "metadata": {**ledger["metadata"], "namespace": "tenant", "name": "psvc-fake"}}
    for gone in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        posing["metadata"].pop(gone, None)
    world.cluster.insert(SECRET, posing)

    await world.later(3 * HOUR)

    assert len(world.server.clients) == 1


# --- the command -----------------------------------------------------------------------------------------------------


async def command(world: World, *words: str) -> int:
    parser = argparse.ArgumentParser()
    orphans_command.add_arguments(parser)
    run = orphans_command.Command(world.cluster, OPERATOR_NAMESPACE, world.now)
    return await run.run(parser.parse_args(words))


async def test_the_list_shows_client_server_owner_and_what_can_be_done_and_no_secret(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = World()
    world.add(protected_service("other"))
    await orphaned(world, "orders")

    assert await command(world, "list") == 0
    table = capsys.readouterr().out
    assert await command(world, "list", "--output", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)

    assert row["owner"] == "ProtectedService tenant/orders"
    assert row["state"] == "deletable"
    assert row["authorizationServer"] == f"{OPERATOR_NAMESPACE}/default"
    assert all(value in table for value in row.values())
    for client in world.server.clients.values():
        assert client.client_secret not in table


async def test_delete_without_yes_changes_nothing_and_says_what_it_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    await orphaned(world, "orders")
    written = len(world.cluster.writes)

    assert await command(world, "delete", "--all") == 0

    assert "would delete client" in capsys.readouterr().out
    assert len(world.cluster.writes) == written


async def test_delete_has_the_running_operator_delete_the_client(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    await orphaned(world, "orders")
    (entry,) = world.ledgers()

    assert await command(world, "delete", f"psvc-{entry.record.owner_uid}", "--yes") == 0
    await world.settle()

    assert world.server.clients == {}
    assert world.ledgers() == []
    assert "the operator deletes client" in capsys.readouterr().out


async def test_delete_of_a_living_objects_entry_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    (entry,) = world.ledgers()

    assert await command(world, "delete", f"psvc-{entry.record.owner_uid}", "--yes") == 1
    await world.settle()

    assert "its object may live" in capsys.readouterr().err
    assert len(world.server.clients) == 1


async def test_delete_needs_names_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    world = World()

    assert await command(world, "delete", "--yes") == 2

    assert "--all" in capsys.readouterr().err


async def test_an_interrupted_registration_that_cannot_be_repeated_is_given_up_and_counted() -> None:
    world = World(idempotency_honoured=False)
    world.server.fail_on(Operation.REGISTER, status=503)
    world.add(protected_service("orders"))
    await world.settle()
    (entry,) = world.ledgers()
    assert entry.record.state is State.REGISTERING
    tear_off(world, "orders")
    uncertain = world.uncertain

    assert await command(world, "delete", "--all", "--yes") == 0

    assert world.ledgers() == []
    assert uncertain == world.uncertain  # the command's own process has no metrics; it says so on standard error
    assert world.cluster.objects(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE) != []
