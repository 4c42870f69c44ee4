"""An AuthorizationServer that is deleted: its clients go first, its services are told, and it goes at the deadline."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from protectedservice_operator import orphans_command
from protectedservice_operator.errors import Rejected
from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    CONFIG_MAP,
    DEPLOYMENT,
    FINALIZER,
    NAMESPACE,
    PROTECTED_SERVICE,
    SECRET,
    SERVER_FINALIZER,
    SERVICE,
    SERVICE_CLIENT,
)

from ..support.fake_authorization_server import Operation
from ..support.fake_cluster import Write
from ..support.objects import OPERATOR_NAMESPACE, authorization_server, protected_service, service_client
from ..support.world import Killed, World
from .test_crash_points import reported_leaks
from .test_thousand_services import ManyServices
from .test_withdrawal import KINDS, assert_ended
from .test_withdrawal import ready as ready_at

MINUTE, DEADLINE = 60.0, 3600.0
CREDENTIAL = (SECRET, OPERATOR_NAMESPACE, "authorization-server-registration")
DELETED = ("False", "AuthorizationServerDeleted")
Act = Callable[[World], None]


def make(kind: str = "dynamic", *, honoured: bool = True) -> World:
    return World(kind=kind, idempotency_honoured=honoured, settings={"deletion_deadline": DEADLINE})


async def ready(kind: str = "dynamic", *, honoured: bool = True, **client: Any) -> World:
    world = make(kind, honoured=honoured)
    world.add(protected_service("orders", client=client))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready")
    return world


def delete(world: World, name: str = "default") -> None:
    world.cluster.remove(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, name)


def lies_there(world: World) -> bool:
    return bool(world.cluster.objects(AUTHORIZATION_SERVER))


def spec_of(world: World) -> dict[str, Any]:
    return copy.deepcopy(dict(world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")["spec"]))


def create(world: World, spec: dict[str, Any]) -> None:
    world.cluster.insert(AUTHORIZATION_SERVER, authorization_server(**spec))


# --- held, and let go ------------------------------------------------------------------------------------------------


async def test_it_is_held_before_anything_is_registered_there_and_written_no_more_after_that() -> None:
    world = await ready()
    about_server = [write for write in world.writes() if write.kind is AUTHORIZATION_SERVER and not write.subresource]
    first = world.writes().index(about_server[0])
    ledger = next(i for i, w in enumerate(world.writes()) if w.kind is SECRET and w.name.startswith("psvc-"))

    assert first < ledger
    await world.later(10 * MINUTE)
    assert [write for write in world.writes() if write.kind is AUTHORIZATION_SERVER and not write.subresource] == (
        about_server
    )
    assert len(about_server) == 1


async def test_its_clients_are_deleted_then_it_goes_and_its_services_are_told() -> None:
    world = await ready()
    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert world.ledgers() == []
    assert not lies_there(world)
    assert world.condition("orders", "Ready") == DELETED
    assert world.condition("orders", "AuthorizationServerReady") == DELETED
    assert reported_leaks(world) == 0


async def test_it_goes_only_after_the_last_of_its_clients() -> None:
    world = await ready()
    world.add(protected_service("books", "other"))
    await world.settle()
    world.server.fail_on(Operation.DELETE, status=503, times=1_000)
    delete(world)
    await world.settle()

    assert len(world.server.clients) == 2
    assert lies_there(world)
    assert world.server_condition("Ready") == DELETED

    world.server.heal()
    await world.recover()

    assert world.server.clients == {}
    assert not lies_there(world)


async def test_where_the_right_to_hold_it_is_missing_services_work_and_an_event_says_so() -> None:
    world = make()
    plain = world.cluster.before_effect

    def forbid(write: Write) -> None:
        if write.kind is AUTHORIZATION_SERVER and write.subresource is None:
            raise Rejected(403, "authorizationservers is forbidden")
        plain(write)

    world.cluster.before_effect = forbid
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert any(reason == "RejectedByCluster" and "cannot be held" in text for reason, text in world.events())


async def test_one_without_clients_goes_at_once_and_is_asked_for_nothing() -> None:
    world = make()
    await world.settle()
    world.server.down = True
    calls = len(world.server.requests)
    delete(world)
    await world.settle()

    assert not lies_there(world)
    assert len(world.server.requests) == calls


async def test_the_workload_stays_with_its_policy_and_a_client_that_is_no_more() -> None:
    world = await ready()
    kinds = (DEPLOYMENT, SERVICE, CONFIG_MAP)
    specs = [body.get("spec", body.get("data")) for kind in kinds for body in world.cluster.objects(kind)]
    delete(world)
    await world.later(20 * MINUTE)

    assert [body.get("spec", body.get("data")) for kind in kinds for body in world.cluster.objects(kind)] == specs
    assert world.credentials()["client_id"] not in world.server.clients


async def test_a_service_that_never_had_a_server_of_that_name_is_told_that_there_is_none() -> None:
    world = make()
    delete(world)
    await world.settle()
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "Ready") == ("False", "AuthorizationServerNotFound")


async def test_a_new_service_is_refused_by_one_that_is_being_deleted() -> None:
    world = await ready()
    world.server.down = True
    delete(world)
    await world.settle()
    world.add(protected_service("books"))
    world.cluster.insert(SERVICE_CLIENT, service_client("shop", scopes=["read"]))
    await world.settle()
    world.server.down = False
    await world.recover()

    assert world.condition("books", "AuthorizationServerReady") == DELETED or not lies_there(world)
    assert world.server.created_total == 1
    assert FINALIZER not in world.service("books")["metadata"].get("finalizers", [])
    (shop,) = world.cluster.objects(SERVICE_CLIENT)
    assert FINALIZER not in shop["metadata"].get("finalizers", [])


async def test_a_refused_new_service_hears_which_server_is_going() -> None:
    world = await ready()
    world.server.down = True
    delete(world)
    await world.settle()
    world.add(protected_service("books"))
    await world.settle()

    assert world.condition("books", "AuthorizationServerReady") == DELETED
    assert f"{OPERATOR_NAMESPACE}/default is being deleted" in world.message("books", "AuthorizationServerReady")


async def test_a_callers_client_is_deleted_with_the_server() -> None:
    world = make()
    world.cluster.insert(SERVICE_CLIENT, service_client("shop", scopes=["read"]))
    await world.settle()
    assert len(world.server.clients) == 1
    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert not lies_there(world)
    (shop,) = world.cluster.objects(SERVICE_CLIENT)
    ready_ = next(c for c in shop["status"]["conditions"] if c["type"] == "Ready")
    assert (ready_["status"], ready_["reason"]) == DELETED


async def test_a_suspended_service_loses_its_client_and_says_why() -> None:
    world = await ready()
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(suspend=True))
    await world.settle()
    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert not lies_there(world)
    assert world.condition("orders", "AuthorizationServerReady") == DELETED


async def test_a_service_deleted_in_the_same_moment_goes_too() -> None:
    world = await ready()
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert not lies_there(world)


async def test_an_orphans_client_goes_with_the_server_since_later_nobody_could_delete_it() -> None:
    world = await ready()
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["metadata"].update(finalizers=[]))
    await world.settle()
    assert len(world.server.clients) == 1
    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert world.ledgers() == []
    assert not lies_there(world)


async def test_a_rotation_under_way_ends_with_both_clients() -> None:
    world = await rotating()
    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert not lies_there(world)


async def rotating(**client: Any) -> World:
    world = await ready(**client)
    annotation = {"protectedservice.dev/rotate": "now"}
    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["metadata"].update(annotations=annotation)
    )
    await world.settle()
    assert len(world.server.clients) == 2
    return world


# --- Retain ----------------------------------------------------------------------------------------------------------


async def test_a_retained_client_stays_is_not_waited_for_and_is_used_again() -> None:
    world = await ready(deletionPolicy="Retain")
    spec, before = spec_of(world), world.ledgers()
    delete(world)
    await world.settle()

    assert not lies_there(world)
    assert len(world.server.clients) == 1
    assert world.ledgers() == before
    assert world.condition("orders", "Ready") == DELETED

    create(world, spec)
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_the_entry_of_a_retained_client_whose_object_is_gone_is_left_alone() -> None:
    world = await ready(deletionPolicy="Retain")
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()
    before = world.ledgers()
    assert before[0].record.state is State.RETAINED
    delete(world)
    await world.settle()

    assert not lies_there(world)
    assert world.ledgers() == before
    assert len(world.server.clients) == 1


async def test_retain_does_not_keep_what_the_service_may_not_have_any_more() -> None:
    world = await ready(deletionPolicy="Retain")
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
    )
    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert not lies_there(world)


async def test_a_rotation_of_a_retained_client_is_ended_before_the_server_goes() -> None:
    world = await rotating(deletionPolicy="Retain")
    delete(world)
    await world.settle()
    assert lies_there(world)
    await world.later(2 * 3600)

    assert not lies_there(world)
    assert list(world.server.clients) == [world.credentials()["client_id"]]


# --- an authorization server that is away ----------------------------------------------------------------------------


async def orphans(world: World, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    parser = argparse.ArgumentParser()
    orphans_command.add_arguments(parser)
    run = orphans_command.Command(world.cluster, OPERATOR_NAMESPACE, world.now)
    assert await run.run(parser.parse_args(["list", "--output", "json"])) == 0
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return found


async def test_at_the_deadline_it_goes_and_what_is_left_is_told_kept_and_listed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = await ready()
    (client,) = world.server.clients
    world.server.down = True
    delete(world)
    await world.later(DEADLINE - MINUTE)
    assert lies_there(world)
    assert await orphans(world, capsys) == []

    await world.later(2 * MINUTE)

    assert not lies_there(world)
    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.client_id) == (State.DELETING, client)
    (told,) = [message for reason, message in world.events() if reason == "ClientOrphaned"]
    assert client in told
    (row,) = await orphans(world, capsys)
    assert (row["client"], row["state"]) == (client, "server-deleted")
    assert world.condition("orders", "Ready") == DELETED
    assert client in world.message("orders", "ClientRegistered")


async def test_one_of_the_same_name_and_issuer_lets_them_be_deleted_and_registers_anew() -> None:
    world = await ready()
    spec = spec_of(world)
    (old,) = world.server.clients
    template = world.cluster.objects(DEPLOYMENT)[0]["spec"]["template"]
    world.server.down = True
    delete(world)
    await world.later(DEADLINE + MINUTE)
    assert not lies_there(world)
    world.server.heal()
    world.server.down = False
    create(world, spec)
    await world.recover()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert list(world.server.clients) == [world.credentials()["client_id"]]
    assert old not in world.server.clients
    assert world.cluster.objects(DEPLOYMENT)[0]["spec"]["template"] != template
    assert reported_leaks(world) == 1  # said at the deadline


async def test_one_of_the_same_name_makes_services_ready_with_new_credentials() -> None:
    world = await ready()
    spec, before = spec_of(world), world.credentials()
    template = world.cluster.objects(DEPLOYMENT)[0]["spec"]["template"]
    delete(world)
    await world.settle()
    create(world, spec)
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.credentials()["client_id"] != before["client_id"]
    assert list(world.server.clients) == [world.credentials()["client_id"]]
    assert world.cluster.objects(DEPLOYMENT)[0]["spec"]["template"] != template


async def test_a_server_that_comes_back_in_time_loses_the_client_before_the_object_goes() -> None:
    world = await ready()
    world.server.down = True
    delete(world)
    await world.later(20 * MINUTE)
    world.restart()
    await world.later(20 * MINUTE)
    assert lies_there(world)
    world.server.heal()
    world.server.down = False
    await world.recover()

    assert world.server.clients == {}
    assert not lies_there(world)
    assert reported_leaks(world) == 0


async def test_restarts_do_not_begin_the_deadline_anew() -> None:
    world = await ready()
    world.server.down = True
    delete(world)
    for _ in range(5):
        await world.later(DEADLINE / 5)
        world.restart()
        await world.settle()
    await world.later(1)

    assert not lies_there(world)


async def test_a_dead_server_costs_one_status_write_a_service_and_no_storm() -> None:
    world = ManyServices(20)
    for number in range(20):
        world.add(protected_service(f"service-{number}", workload={"replicas": 0}))
    await world.settle()
    world.server.down = True
    delete(world)
    await world.settle()
    await world.later(2 * MINUTE)
    writes, calls = len(world.writes()), len(world.server.requests)

    await world.later(20 * MINUTE)

    assert len(world.writes()) - writes <= 3
    assert len(world.server.requests) - calls <= 20 * 60 / 25


async def test_a_hundred_services_lose_their_clients_at_the_configured_rate_and_without_a_storm() -> None:
    world = ManyServices(100)
    for number in range(100):
        world.add(protected_service(f"service-{number}", workload={"replicas": 0}))
    await world.settle()
    assert len(world.server.clients) == 100
    began, calls = world.now, len(world.server.requests)
    written = len([write for write in world.writes() if write.kind is AUTHORIZATION_SERVER])

    delete(world)
    await world.settle()

    assert world.server.clients == {}
    assert not lies_there(world)
    seen = [request.operation for request in world.server.requests[calls:]]
    assert seen.count(Operation.DELETE) == 100
    assert len(seen) <= 100 + 10
    assert world.now - began >= (100 - 40) / 20  # 20 a second after a burst of 40
    after = [write for write in world.writes() if write.kind is AUTHORIZATION_SERVER]
    assert len(after) - written <= 10


# --- what goes with the same command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dynamic", "keycloak"])
async def test_the_credential_that_is_deleted_with_it_is_remembered_to_the_end(kind: str) -> None:
    world = await ready(kind)
    delete(world)
    world.cluster.remove(*CREDENTIAL)
    await world.settle()

    assert world.server.clients == {}
    assert not lies_there(world)


async def test_a_remembered_credential_outlasts_an_outage() -> None:
    world = await ready("keycloak")
    world.server.down = True
    delete(world)
    world.cluster.remove(*CREDENTIAL)
    await world.later(20 * MINUTE)
    world.server.heal()
    world.server.down = False
    await world.recover()

    assert world.server.clients == {}
    assert not lies_there(world)


async def test_a_credential_that_no_process_remembers_is_missed_in_an_event_and_the_deadline_ends_it() -> None:
    world = await ready("keycloak")
    world.server.down = True
    delete(world)
    await world.settle()
    world.cluster.remove(*CREDENTIAL)
    world.restart()
    world.server.heal()
    world.server.down = False
    await world.recover()

    assert lies_there(world)
    assert world.server_condition("Ready") == ("False", "RegistrationCredentialsMissing")
    told = [message for reason, message in world.events() if reason == "RegistrationCredentialsMissing"]
    assert any("authorization-server-registration" in message for message in told)

    await world.later(DEADLINE)

    assert not lies_there(world)
    assert len(world.ledgers()) == 1


async def test_a_credential_that_is_brought_again_ends_it_before_the_deadline() -> None:
    world = await ready("keycloak")
    secret = world.cluster.read(*CREDENTIAL)
    world.server.down = True
    delete(world)
    await world.settle()
    world.cluster.remove(*CREDENTIAL)
    world.restart()
    world.server.heal()
    world.server.down = False
    await world.recover()
    for name in ("uid", "resourceVersion", "creationTimestamp"):
        del secret["metadata"][name]
    world.cluster.insert(SECRET, secret)
    await world.recover()

    assert world.server.clients == {}
    assert not lies_there(world)


async def test_another_of_the_same_name_does_not_inherit_the_credential() -> None:
    world = await ready("keycloak")
    spec = spec_of(world)
    world.cluster.remove(*CREDENTIAL)
    world.cluster.edit(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda b: b["metadata"].pop("finalizers"))
    delete(world)
    create(world, spec)
    world.cluster.edit(
        AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda b: b["metadata"].update(finalizers=["test/held"])
    )
    delete(world)
    await world.settle()

    assert len(world.server.clients) == 1


async def test_no_secret_is_told_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world = await ready("keycloak")
    world.server.down = True
    delete(world)
    await world.later(DEADLINE + MINUTE)
    told = [caplog.text, *(message for _, message in world.events())]
    told += [json.dumps(body) for body in world.cluster.objects(PROTECTED_SERVICE)]
    secrets = world.server.secrets_ever

    assert secrets
    assert not [secret for secret in secrets for text in told if secret in text]


# --- whose it is to hold ---------------------------------------------------------------------------------------------


async def test_one_that_the_operator_does_not_honour_is_neither_held_nor_kept() -> None:
    world = make()
    foreign = authorization_server("own")
    foreign["metadata"]["namespace"] = "tenant"
    world.cluster.insert(AUTHORIZATION_SERVER, foreign)
    held = authorization_server("former")
    held["metadata"].update(namespace="tenant", finalizers=[SERVER_FINALIZER])
    world.cluster.insert(AUTHORIZATION_SERVER, held)
    await world.settle()

    for name in ("own", "former"):
        body = world.cluster.read(AUTHORIZATION_SERVER, "tenant", name)
        assert "finalizers" not in body["metadata"]


async def test_the_operators_own_namespace_ends_without_waiting_for_any_server() -> None:
    world = await ready()
    world.server.down = True
    world.cluster.terminate_namespace(OPERATOR_NAMESPACE)
    await world.settle()
    world.cluster.collect_garbage()

    assert not lies_there(world)
    assert OPERATOR_NAMESPACE not in [body["metadata"]["name"] for body in world.cluster.objects(NAMESPACE)]


async def test_a_finalizer_of_somebody_else_holds_it_without_a_client() -> None:
    world = await ready()
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["metadata"]["finalizers"].append("example.com/other"),
    )
    delete(world)
    await world.later(5 * MINUTE)

    assert world.server.clients == {}
    (body,) = world.cluster.objects(AUTHORIZATION_SERVER)
    assert body["metadata"]["finalizers"] == ["example.com/other"]
    assert world.server.created_total == 1


# --- killed at any point, deleted at any point -----------------------------------------------------------------------


async def settle_through_death(world: World, act: Act) -> bool:
    """Whether the process died of it; another one then has all the time it may need."""
    act(world)
    try:
        await world.recover()
    except Killed:
        world.restart()
        await world.recover()
        return True
    return False


@pytest.mark.parametrize(("kind", "honoured"), KINDS)
@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
async def test_server_and_clients_are_gone_or_reported_whatever_the_crash(
    kind: str, honoured: bool, after: bool
) -> None:
    for effect in range(1, 40):
        world = await ready_at(kind, honoured=honoured)
        world.kill_at(effect, after=after)
        died = await settle_through_death(world, delete)

        point = f"effect {effect}"
        assert not lies_there(world), point
        assert_ended(world, kind, point)
        assert world.condition("orders", "Ready") == DELETED, point
        if not died:
            break
    assert effect > 3  # the deletion's start, the entry's end, the release, the status


@pytest.mark.parametrize(
    ("kind", "honoured"),
    [("dynamic", True), ("dynamic", False), ("hydra", True), ("keycloak", True), ("register-only", False)],
)
async def test_a_server_deleted_at_any_point_of_a_registration_leaves_no_client_untold(
    kind: str, honoured: bool
) -> None:
    for effect in range(1, 40):
        world = make(kind, honoured=honoured)
        await world.settle()
        reached = delete_before(world, effect)
        world.add(protected_service("orders"))
        await world.recover()

        point = f"effect {effect}"
        if not reached():
            break
        assert not lies_there(world), point
        assert len(world.server.clients) <= reported_leaks(world), point
        assert kind == "register-only" or world.ledgers() == [], point
        assert world.condition("orders", "Ready") in (DELETED, ("False", "AuthorizationServerNotFound")), point
    assert effect > 5


def delete_before(world: World, number: int) -> Callable[[], bool]:
    """Delete the AuthorizationServer before the n-th effect from now on; the answer says whether there was one."""
    effects, plain = 0, world._effect

    def effect(*, before: bool, counts: bool = True) -> None:
        nonlocal effects
        if before and counts:
            effects += 1
            if effects == number and lies_there(world):
                delete(world)
        plain(before=before, counts=counts)

    def about(write: Write, *, before: bool) -> None:
        effect(before=before, counts=write.kind.kind != "Event")

    world.cluster.before_effect = lambda write: about(write, before=True)
    world._effect = effect  # type: ignore[method-assign]
    return lambda: effects >= number
