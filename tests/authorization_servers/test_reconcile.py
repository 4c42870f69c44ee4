"""The operator's whole pass against real servers: cluster, kubelets and time in memory, every call over the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET, SERVICE_CLIENT

from ..support import adoption
from ..support.keycloak_process import KeycloakProcess
from ..support.objects import OPERATOR_NAMESPACE, protected_service, service_client
from ..support.world import Killed, World, condition
from .conftest import Real

pytestmark = pytest.mark.slow

AUDIENCE = "https://orders.example"


@pytest.fixture
async def worlds(real: Real) -> AsyncIterator[Callable[[], World]]:
    """Makes worlds around the real server; their connections are closed in the end."""
    made: list[World] = []

    def make() -> World:
        world = World(spec={**real.spec, "credential": real.credential})
        world.pod_answers = lambda request: pod(world, request)
        made.append(world)
        return world

    yield make
    for world in made:
        await world.servers.aclose()


def pod(world: World, request: httpx.Request) -> httpx.Response:
    """What a resource server answers that asks the real server about each token."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not token:
        return httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="test"'})
    server = world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    held = world.credentials()
    auth = None
    if server["spec"]["introspection"]["clientAuthentication"] != "none":
        auth = (held["client_id"], held["client_secret"])  # of characters that need no encoding
    answer = httpx.post(server["status"]["endpoints"]["introspection"], data={"token": token}, auth=auth, timeout=30)
    audience: Any = answer.json().get("aud") or ()
    good = answer.json()["active"] and AUDIENCE in ([audience] if isinstance(audience, str) else audience)
    return httpx.Response(204 if good else 401, headers={"WWW-Authenticate": 'Bearer realm="test"'})


def create(world: World) -> None:
    world.add(protected_service("orders", audience=AUDIENCE))


def update(world: World) -> None:
    def edit(body: dict[str, Any]) -> None:
        body["spec"].update(scopes=["read", "write"])

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", edit)


def delete(world: World) -> None:
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")


async def test_a_service_gets_ready_and_proved_changes_and_goes(real: Real, worlds: Callable[[], World]) -> None:
    world = worlds()
    create(world)
    await world.settle()

    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]
    assert world.condition("orders", "Verified") == ("True", "Proved")
    assert world.server_condition("AdminApiExposed") == (("True", "SameOrigin") if real.kind == "hydra" else None)

    before = world.credentials()
    update(world)
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]
    assert world.credentials() == before

    await world.later(91)  # the number of clients is written at most once a minute, by a probe: one comes every 30 s
    writes = len(world.writes())
    await world.later(61)
    assert world.writes()[writes:] == []

    delete(world)
    await world.settle()
    assert world.cluster.objects(PROTECTED_SERVICE) == []
    assert world.ledgers() == []
    if real.client_ids is not None:
        assert real.client_ids() == []


async def test_a_client_that_was_left_is_adopted_by_its_secret_and_by_no_other_one(
    real: Real, worlds: Callable[[], World]
) -> None:
    world = worlds()
    world.add(protected_service("orders", audience=AUDIENCE, client={"deletionPolicy": "Retain"}))
    await world.settle()
    left = world.credentials()
    delete(world)
    await world.settle()
    world.cluster.remove(SECRET, "tenant", "orders-oauth2-client")
    allow = {"allowAdoption": True}
    world.cluster.edit(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda body: body["spec"].update(allow))
    world.cluster.insert(SECRET, adoption.secret(left["client_id"], "surely-not-the-secret"))
    world.add(adoption.adopting(client_id=left["client_id"], audience=AUDIENCE, policy="Delete"))
    await world.later(61)

    assert world.condition("orders", "ClientRegistered") == ("False", "AdoptionNotProved")

    data = adoption.secret(**left)["data"]
    world.cluster.edit(SECRET, "tenant", adoption.SECRET_NAME, lambda body: body.update(data=data))
    await world.later(61)

    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]
    assert world.condition("orders", "Verified") == ("True", "Proved")
    assert world.credentials() == left
    if real.client_ids is not None:
        assert real.client_ids() == [left["client_id"]]

    await world.later(4000)  # the hourly look finds nothing
    assert "ClientDriftRepaired" not in [reason for reason, _ in world.events()]
    delete(world)
    await world.recover()
    assert world.cluster.objects(PROTECTED_SERVICE) == []
    if real.client_ids is not None:
        assert real.client_ids() == []


async def test_a_caller_gets_a_token_for_the_service_with_its_secret_alone_until_consent_is_taken_back(
    real: Real, worlds: Callable[[], World]
) -> None:
    world = worlds()
    create(world)
    world.add(service_client("shop"))
    await world.settle()

    def caller() -> dict[str, Any]:
        return world.cluster.read(SERVICE_CLIENT, "tenant", "shop")

    assert condition(caller(), "Ready") == ("True", "Ready"), caller()["status"]
    secret = world.credentials("shop-oauth2-caller")
    issued = ask_for_token(secret)
    assert issued.status_code == 200, issued.text
    headers = {"Authorization": f"Bearer {issued.json()['access_token']}"}
    assert pod(world, httpx.Request("GET", "http://pod/", headers=headers)).status_code == 204

    strangers = {"from": "Selector", "selector": {"matchLabels": {"team": "strangers"}}}
    world.cluster.edit(
        PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(allowedClients=strangers)
    )
    await world.settle()

    assert condition(caller(), "Ready") == ("False", "ServiceNotAllowed")
    assert ask_for_token(secret).status_code in (400, 401)
    if real.kind != "oidc-provider":  # which lets a deleted client's tokens live until they expire
        assert pod(world, httpx.Request("GET", "http://pod/", headers=headers)).status_code == 401

    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    delete(world)
    await world.settle()
    assert world.ledgers() == []
    if real.client_ids is not None:
        assert real.client_ids() == []


def ask_for_token(secret: dict[str, str]) -> httpx.Response:
    """With nothing but what a ServiceClient's Secret says."""
    form = {"grant_type": "client_credentials", "scope": secret["scope"]}
    if "audience_parameter" in secret:
        form[secret["audience_parameter"]] = secret["audience"]
    # Ids and secrets here are of characters that need no encoding.
    return httpx.post(secret["token_url"], data=form, auth=(secret["client_id"], secret["client_secret"]), timeout=30)


@pytest.mark.parametrize("after", [False, True], ids=["killed before the effect", "killed after the effect"])
@pytest.mark.parametrize("act", [create, update, delete])
async def test_exactly_one_client_whatever_the_crash(
    real: Real, worlds: Callable[[], World], act: Callable[[World], None], after: bool
) -> None:
    if real.client_ids is None:
        pytest.skip("this server chooses the ids itself; the fake shows what is promised then")

    async def begin() -> World:
        world = worlds()
        if act is not create:
            create(world)
            await world.settle()
        world.effects = 0
        return world

    async def end(world: World) -> None:
        if world.cluster.objects(PROTECTED_SERVICE):
            delete(world)
            await world.recover()
        assert real.client_ids is not None
        assert real.client_ids() == []
        if isinstance(real.process, KeycloakProcess):
            assert real.process.client_scopes() == []

    world = await begin()
    act(world)
    await world.settle()
    effects = world.effects
    await end(world)

    assert effects >= 3

    for effect in range(1, effects + 1):
        world = await begin()
        world.kill_at(effect, after=after)
        act(world)
        with pytest.raises(Killed):
            await world.settle()
        world.restart()
        await world.recover()
        if act is not delete:
            assert world.condition("orders", "Ready") == ("True", "Ready"), (effect, world.service()["status"])
            (entry,) = world.ledgers()
            assert entry.record.state is State.REGISTERED
            assert real.client_ids() == [entry.record.client_id], effect
        await end(world)
