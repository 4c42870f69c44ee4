"""What one tenant, one server or one stray write can do to everybody else: nothing."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from protectedservice_operator.errors import ClusterUnavailable, Rejected
from protectedservice_operator.registration.driver import AttemptSpent
from protectedservice_operator.registration.dynamic import DynamicClientRegistration
from protectedservice_operator.registration.ledger import State, secret_name
from protectedservice_operator.resource import AUTHORIZATION_SERVER, DEPLOYMENT, PROTECTED_SERVICE, SECRET, SERVICE

from ..support.fake_authorization_server import Operation
from ..support.fake_cluster import Write
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import Killed, World

AUDIENCE = "https://victim.example"


async def ready_world(**settings: Any) -> World:
    world = World(settings=settings)
    world.add(protected_service("orders"))
    await world.settle()
    return world


async def test_a_pod_that_answers_for_ever_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protectedservice_operator.verification.POD_TIMEOUT", 0.05)
    world = World()

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            while True:
                yield b"x"
                await asyncio.sleep(0.001)

    headers = {"WWW-Authenticate": "Bearer"}
    world.pod_answers = lambda request: httpx.Response(401, headers=headers, stream=Endless())
    for number in range(9):
        world.add(protected_service(f"slow-{number}"))

    await asyncio.wait_for(world.settle(), 10)

    assert world.condition("slow-8", "Verified") == ("False", "VerificationFailed")  # 401 with a token


async def test_a_tenants_secret_that_poses_as_a_ledger_entry_neither_counts_nor_breaks_anything() -> None:
    world = World()
    for name, notes in (("bare", {}), ("forged", {"protectedservice.dev/ledger": '{"server": "x"}'})):
        labels = {"protectedservice.dev/watch": "true", "protectedservice.dev/component": "ledger"}
        metadata = {"name": name, "namespace": "tenant", "labels": labels, "annotations": notes}
        world.cluster.insert(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    world.add(protected_service("orders"))

    await world.later(95)

    server = world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    assert server["status"]["registeredClients"] == 1
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_older_service_that_takes_up_a_held_audience_later_is_refused() -> None:
    world = World()
    world.add(protected_service("evil", "other"))
    await world.settle()
    world.now += 60
    world.add(protected_service("victim", "tenant", audience=AUDIENCE))
    await world.settle()

    world.cluster.edit(PROTECTED_SERVICE, "other", "evil", lambda body: body["spec"].update(audience=AUDIENCE))
    await world.later(95)

    assert world.condition("evil", "ClientRegistered", "other") == ("False", "AudienceTaken")
    assert world.condition("victim", "Ready") == ("True", "Ready")
    assert [client.metadata.get("audience") for client in world.server.clients.values()].count([AUDIENCE]) == 1


async def test_an_audience_given_up_by_an_edit_goes_to_who_waited_for_it() -> None:
    world = World()
    world.add(protected_service("first", "tenant", audience=AUDIENCE))
    await world.settle()
    world.add(protected_service("second", "other", audience=AUDIENCE))
    await world.settle()

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "first", lambda body: body["spec"].pop("audience"))
    await world.settle()

    assert world.condition("second", "Ready", "other") == ("True", "Ready")


async def test_workloads_that_never_become_available_stop_an_upgrade_for_ten_minutes_at_most() -> None:
    world = World()
    world.reconcile._children._rollouts = 2
    for name in ("a", "b", "orders"):
        world.add(protected_service(name))
    await world.settle()
    world.settings = replace(world.settings, server_image="protectedservice/resource-server:next")
    world.restart()
    world.reconcile._children._rollouts = 2
    world.kubelet_runs = False  # the new pods of whoever is first never come up
    await world.settle()

    def upgraded() -> set[str]:
        return {
            body["metadata"]["name"]
            for body in world.cluster.objects(DEPLOYMENT)
            if body["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":next")
        }

    waiting = {"a-protected", "b-protected", "orders-protected"} - upgraded()
    assert len(waiting) == 1
    name = waiting.pop().removesuffix("-protected")
    assert world.condition(name, "Ready") == ("True", "Ready")  # its old pods serve
    writes = len(world.writes())

    await world.later(300)

    assert not [write for write in world.writes()[writes:] if write.name == name]

    await world.later(300 + 300)  # the patience with a rollout, and the longest backoff

    assert f"{name}-protected" in upgraded()


async def test_a_server_that_limits_its_rate_is_not_told_unreachable() -> None:
    world = await ready_world()
    world.server.fail_on(Operation.REGISTER, status=429, times=1, headers={"Retry-After": "1"})
    world.add(protected_service("second"))
    flips: list[Any] = []
    world.cluster.on_change(
        lambda kind, _, body: flips.append(body["status"]) if kind is AUTHORIZATION_SERVER else None, None
    )

    await world.later(60)

    assert world.condition("second", "Ready") == ("True", "Ready")
    assert all(c["status"] == "True" for status in flips for c in status["conditions"] if c["type"] == "Reachable")


async def test_a_withdrawn_permission_is_told_at_once() -> None:
    world = await ready_world()

    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
    )
    await world.settle()

    assert world.condition("orders", "AuthorizationServerReady") == ("False", "NotAllowed")


async def test_a_deleted_authorization_server_is_told_at_once() -> None:
    world = await ready_world()

    world.cluster.remove(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    await world.settle()

    assert world.condition("orders", "Ready") == ("False", "AuthorizationServerDeleted")
    assert f"AuthorizationServer {OPERATOR_NAMESPACE}/default was deleted" in world.message("orders", "Ready")


def move_the_server(world: World) -> None:
    world.server.issuer = "https://another.test"
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(issuer="https://another.test"),
    )


async def test_an_authorization_server_that_names_another_server_gets_no_token_of_the_old_one() -> None:
    world = await ready_world()
    calls = len(world.server.requests)
    policies = world.cluster.objects(DEPLOYMENT)

    move_the_server(world)
    await world.settle()
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert {seen.operation for seen in world.server.requests[calls:]} == {Operation.METADATA}
    assert "names another server" in world.message("orders", "Ready")
    assert len(world.ledgers()) == 1
    assert world.cluster.objects(DEPLOYMENT) == policies


async def test_a_service_whose_server_changed_says_so_and_keeps_its_policy() -> None:
    world = await ready_world()

    move_the_server(world)
    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "AuthorizationServerChanged")


async def test_a_client_without_a_secret_is_told_and_does_not_run_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    register = DynamicClientRegistration._registration

    def without_secret(self: Any, answer: Any, *, previous: Any) -> Any:
        return replace(register(self, answer, previous=previous), client_secret="")

    monkeypatch.setattr(DynamicClientRegistration, "_registration", without_secret)
    world.add(protected_service("orders"))

    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "InvalidClientMetadata")
    assert world.condition("orders", "CredentialsReady") == ("False", "InvalidClientMetadata")


async def test_scopes_that_were_not_granted_make_the_service_unready_even_without_verification() -> None:
    world = World(settings={"verification": False})
    world.server.granted_scope = lambda asked: "read"
    world.add(protected_service("orders", scopes=["read", "write"]))

    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "ScopeNotGranted")
    assert world.condition("orders", "Ready") == ("False", "ScopeNotGranted")


async def test_a_lost_registration_credential_keeps_nobody_from_updating_and_deleting() -> None:
    world = await ready_world()
    world.cluster.remove(SECRET, OPERATOR_NAMESPACE, "authorization-server-registration")
    world.restart()
    await world.settle()

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["write"]))
    await world.later(60)

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server_condition("Ready") == ("False", "RegistrationCredentialsMissing")

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.later(60)

    assert world.server.clients == {}
    assert world.cluster.objects(PROTECTED_SERVICE) == []


async def test_a_service_that_was_always_refused_is_deleted_without_asking_a_server_that_is_away() -> None:
    world = World()
    world.add(protected_service("orders", scopes=["nobody-knows"]))
    await world.settle()
    world.server.down = True
    await world.later(30)

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.ledgers() == []


async def test_a_refused_credential_is_remembered_over_a_restart() -> None:
    world = World()
    world.server.initial_access_token = "another-token"
    world.add(protected_service("orders"))
    await world.settle()
    writes, asked = len(world.writes()), world.server.count(Operation.REGISTER)

    world.restart()
    await world.settle()

    assert world.writes()[writes:] == []
    assert world.server.count(Operation.REGISTER) == asked


async def test_after_a_refusal_one_trial_a_minute_is_made_however_many_wait() -> None:
    world = World()
    world.server.initial_access_token = "another-token"
    for number in range(8):
        world.add(protected_service(f"service-{number}"))
    await world.settle()
    asked = world.server.count(Operation.REGISTER)
    keys = list(world.outcomes)

    world.now += 61
    await asyncio.gather(*(world._pass(key) for key in keys))

    assert world.server.count(Operation.REGISTER) == asked + 1


async def test_an_object_of_another_namespace_that_claims_our_service_as_owner_is_nothing_to_us() -> None:
    world = await ready_world()
    ours = world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")
    foreign = {key: value for key, value in ours.items() if key != "status"}
    foreign["metadata"] = {**ours["metadata"], "namespace": "other", "finalizers": ["example.com/keeps-it"]}
    foreign["spec"] = {**ours["spec"], "replicas": 9}
    world.cluster.insert(DEPLOYMENT, foreign)
    writes = len(world.writes())

    await world.settle()

    assert world.writes()[writes:] == []


async def test_a_touched_ledger_entry_does_not_lose_the_servers_answer() -> None:
    world = World(idempotency_honoured=False)

    def touch(write: Write) -> None:
        # somebody annotates the intent before the answer is stored
        if write.kind is SECRET and write.verb == "create" and write.name.startswith("psvc-"):
            world.cluster.edit(
                SECRET, OPERATOR_NAMESPACE, write.name, lambda body: body["metadata"]["annotations"].update(backup="1")
            )

    world.cluster.after_effect = touch
    world.add(protected_service("orders"))

    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.created_total == 1


async def test_a_moments_silence_of_the_kubernetes_api_flips_no_condition() -> None:
    world = await ready_world()
    failures = [ClusterUnavailable("ClusterUnavailable", "429")]

    def fail_once(write: Write) -> None:
        if write.kind is SERVICE and failures:
            raise failures.pop()

    world.cluster.before_effect = fail_once
    world.cluster.remove(SERVICE, "tenant", "orders-protected")
    statuses = [w for w in world.writes() if w.subresource == "status"]
    await world.later(10)

    assert world.cluster.read(SERVICE, "tenant", "orders-protected")
    assert [w for w in world.writes() if w.subresource == "status"] == statuses


async def test_a_quota_on_ledger_entries_is_told_in_the_status() -> None:
    world = World()

    def quota(write: Write) -> None:
        if write.kind is SECRET and write.name.startswith("psvc-"):
            raise Rejected(403, 'exceeded quota: "secrets"')

    world.cluster.before_effect = quota
    world.add(protected_service("orders"))

    await world.settle()

    assert world.condition("orders", "ClientRegistered") == ("False", "RejectedByCluster")
    assert "exceeded quota" in world.message("orders", "ClientRegistered")


async def test_another_controller_that_keeps_changing_a_field_is_fought_three_times_and_then_told() -> None:
    world = await ready_world()

    def scale(body: dict[str, Any]) -> None:
        body["spec"]["replicas"] = 5

    for _ in range(30):
        world.cluster.edit(DEPLOYMENT, "tenant", "orders-protected", scale)
        await world.settle()
        world.now += 1

    assert world.condition("orders", "WorkloadAvailable") == ("False", "DriftFought")
    assert "spec.replicas" in world.message("orders", "WorkloadAvailable")
    applied = [w for w in world.writes() if w.kind is DEPLOYMENT and w.verb == "apply"]
    await world.later(600)
    assert [w for w in world.writes() if w.kind is DEPLOYMENT and w.verb == "apply"] == applied


def pause(body: dict[str, Any]) -> None:
    body["spec"]["paused"] = True


def run_as_root(body: dict[str, Any]) -> None:
    body["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsUser"] = 0


def add_capability(body: dict[str, Any]) -> None:
    context = body["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    context["capabilities"]["add"] = ["NET_ADMIN"]


def bind_host_port(body: dict[str, Any]) -> None:
    body["spec"]["template"]["spec"]["containers"][0]["ports"][0]["hostPort"] = 8080


def drop_the_secret(body: dict[str, Any]) -> None:
    for volume in body["spec"]["template"]["spec"]["volumes"]:
        if "secret" in volume:
            volume["secret"]["optional"] = True


@pytest.mark.parametrize("change", [pause, run_as_root, add_capability, bind_host_port, drop_the_secret])
async def test_additions_to_closed_maps_are_removed(change: Any) -> None:
    world = await ready_world()
    before = world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")["spec"]

    world.cluster.edit(DEPLOYMENT, "tenant", "orders-protected", change)
    await world.settle()

    assert world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")["spec"] == before


@pytest.mark.parametrize("effect", range(1, 9))
async def test_a_service_deleted_amid_the_replacement_of_its_client_leaves_no_new_client(effect: int) -> None:
    world = await ready_world()
    lost = world.service()["status"]["clientId"]
    world.server.clients[lost].registration_token = "rotated-by-somebody"
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(scopes=["write"]))
    world.kill_at(effect, after=True)
    with pytest.raises(Killed):
        await world.settle()

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    world.restart()
    await world.recover()

    assert set(world.server.clients) <= {lost}  # its handle is lost, which was counted
    assert world.cluster.objects(PROTECTED_SERVICE) == []


async def test_an_attempt_whose_answer_the_server_lost_is_kept_as_an_orphan_when_its_object_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await ready_world()
    (entry,) = world.ledgers()
    name = secret_name(entry.record.owner_uid)
    world.cluster.edit(SECRET, OPERATOR_NAMESPACE, name, lambda body: body.update(_as_intent(body)))

    async def spent(*_: Any) -> None:
        raise AttemptSpent("the server does not answer this attempt again")

    monkeypatch.setattr(DynamicClientRegistration, "register", spent)
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    world.restart()
    await world.recover()

    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert [entry.record.state for entry in world.ledgers()] == [State.ORPHANED]
    assert "RegistrationUncertain" in [reason for reason, _ in world.events()]


def _as_intent(body: dict[str, Any]) -> dict[str, Any]:
    annotation = json.loads(body["metadata"]["annotations"]["protectedservice.dev/ledger"])
    intent = {"operation": "register", "client_name": "x", "scopes": ["read"]}
    annotation |= {"state": "registering", "intent": intent, "client_id": None}
    body["metadata"]["annotations"]["protectedservice.dev/ledger"] = json.dumps(annotation)
    return {"data": {}}
