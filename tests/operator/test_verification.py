"""The live proof: what pods answer, and what is said of it."""

from __future__ import annotations

import httpx

from protectedservice_operator.resource import POD, PROTECTED_SERVICE

from ..support.fake_authorization_server import Operation
from ..support.objects import protected_service
from ..support.world import World

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="test"'}


def gate(world: World, request: httpx.Request, *, delay: float = 0.0) -> httpx.Response:
    """A pod that does as it should, with a cache of `delay` seconds."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    issued = world.server.tokens.get(token)
    if issued is None:
        return httpx.Response(401, headers=CHALLENGE)
    if world.server.is_active(token):
        return httpx.Response(204)
    world.revoked_since = getattr(world, "revoked_since", world.now)  # type: ignore[attr-defined]
    stale = world.now - world.revoked_since < delay  # type: ignore[attr-defined]
    return httpx.Response(204) if stale else httpx.Response(401, headers=CHALLENGE)


async def test_the_measured_revocation_delay_is_published() -> None:
    world = World()
    world.pod_answers = lambda request: gate(world, request, delay=3.0)
    world.add(protected_service("orders"))

    await world.settle()

    verification = world.service()["status"]["verification"]
    assert world.condition("orders", "Verified") == ("True", "Proved")
    assert verification["revocationDelay"] == "3.00s"
    assert [check["name"] for check in verification["checks"]] == ["WithoutToken", "WithToken", "AfterRevocation"]
    assert verification["lastVerified"]


async def test_a_pod_that_lets_everybody_in_fails_the_proof() -> None:
    world = World()
    world.pod_answers = lambda request: httpx.Response(204)
    world.add(protected_service("orders"))

    await world.settle()

    assert world.condition("orders", "Verified") == ("False", "VerificationFailed")
    assert world.condition("orders", "Ready") == ("False", "VerificationFailed")
    assert "204 without a token" in world.message("orders", "Verified")


async def test_a_pod_that_keeps_accepting_a_revoked_token_fails_the_proof_and_is_asked_again_later() -> None:
    world = World()
    world.pod_answers = lambda request: gate(world, request, delay=1e9)
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "Verified") == ("False", "VerificationFailed")
    minted = world.server.count(Operation.TOKEN)

    await world.later(1)

    assert world.server.count(Operation.TOKEN) == minted

    world.pod_answers = None
    await world.later(60)

    assert world.condition("orders", "Verified") == ("True", "Proved")


async def test_pods_that_cannot_be_called_leave_the_proof_unknown_and_name_the_policy_to_add() -> None:
    world = World()

    def blocked(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectTimeout("", request=request)

    world.pod_answers = blocked
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "Verified") == ("Unknown", "PodsUnreachable")
    assert world.condition("orders", "Ready") == ("False", "PodsUnreachable")
    assert "NetworkPolicy" in world.message("orders", "Verified")


async def test_pods_that_answer_503_say_nothing_about_themselves_and_are_asked_again() -> None:
    world = World()
    world.pod_answers = lambda request: (
        httpx.Response(503) if "authorization" in request.headers else httpx.Response(401, headers=CHALLENGE)
    )
    world.add(protected_service("orders"))
    await world.settle()

    assert world.condition("orders", "Verified") == ("Unknown", "Verifying")

    world.pod_answers = None
    await world.later(30)

    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_server_without_revocation_gives_verified_with_the_reason() -> None:
    world = World()
    world.server.metadata = {"revocation_endpoint": None}
    world.add(protected_service("orders"))

    await world.settle()

    assert world.condition("orders", "Verified") == ("True", "RevocationNotProved")
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_bound_longer_than_the_proof_waits_gives_verified_with_the_reason() -> None:
    world = World()
    world.pod_answers = lambda request: gate(world, request, delay=1e9)
    world.add(protected_service("orders", validation={"maxRevocationDelay": "1h", "timeout": "2s", "retries": 1}))

    await world.settle()

    assert world.condition("orders", "Verified") == ("True", "RevocationNotProved")


async def test_no_verification_token_stays_active() -> None:
    world = World()
    world.pod_answers = lambda request: httpx.Response(204)  # the proof stops at its first step
    world.add(protected_service("orders"))

    await world.settle()

    assert world.server.tokens
    assert all(token.revoked for token in world.server.tokens.values())


async def test_a_new_pod_is_proved_and_a_restart_of_the_operator_proves_nothing_again() -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    minted = world.server.count(Operation.TOKEN)

    (pod,) = world.cluster.objects(POD, "tenant")
    world.cluster.remove(POD, "tenant", pod["metadata"]["name"])
    pod["metadata"] = {"name": "orders-protected-new", "namespace": "tenant", "labels": pod["metadata"]["labels"]}
    world.cluster.insert(POD, {k: v for k, v in pod.items() if k != "status"}, status=pod["status"])
    await world.settle()

    assert world.server.count(Operation.TOKEN) == minted + 1

    world.restart()
    await world.settle()

    assert world.server.count(Operation.TOKEN) == minted + 1


async def test_an_unchanged_service_is_proved_again_after_six_hours() -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    minted = world.server.count(Operation.TOKEN)

    await world.later(5 * 3600)

    assert world.server.count(Operation.TOKEN) == minted

    await world.later(2 * 3600)

    assert world.server.count(Operation.TOKEN) == minted + 1


async def test_scaled_to_zero_is_ready_without_a_proof_and_says_so() -> None:
    world = World()
    world.add(protected_service("orders", workload={"replicas": 0, "resources": {}}))

    await world.settle()

    assert world.condition("orders", "Verified") == ("Unknown", "ScaledToZero")
    assert world.condition("orders", "Ready") == ("True", "ScaledToZero")


async def test_a_changed_policy_is_proved_anew_and_ready_is_not_kept_from_before() -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    minted = world.server.count(Operation.TOKEN)
    world.kubelet_runs = False

    def change(body: dict[str, dict[str, dict[str, str]]]) -> None:
        body["spec"]["validation"]["maxRevocationDelay"] = "1s"

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", change)
    await world.settle()

    assert world.condition("orders", "Ready") == ("False", "Progressing")

    world.kubelet_runs = True
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert world.server.count(Operation.TOKEN) == minted + 1
