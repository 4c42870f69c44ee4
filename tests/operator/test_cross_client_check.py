"""Whether one client may introspect another's token: asked once at each server, by a probe client that goes again."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from protectedservice_operator.registration.ledger import State, secret_name
from protectedservice_operator.resource import AUTHORIZATION_SERVER, SECRET

from ..support.fake_authorization_server import AccessToken, Answer, Client, Operation, reply
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import OPERATOR_NAMESPACE, protected_service
from ..support.world import Killed, World

ON = {"cross_client_check": True}
PASS = 31.0  # seconds until the AuthorizationServer is looked at again
DELETING_KINDS = ["dynamic", "keycloak"]


def told(world: World) -> tuple[str, str] | None:
    """(status, reason) of the AuthorizationServer's condition."""
    found = condition(world)
    return None if found is None else (found["status"], found["reason"])


def condition(world: World) -> dict[str, Any] | None:
    conditions = server(world)["status"]["conditions"]
    found: list[dict[str, Any]] = [one for one in conditions if one["type"] == "CrossClientIntrospection"]
    return found[0] if found else None


def server(world: World) -> dict[str, Any]:
    return world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")


def probe_entry(world: World) -> dict[str, Any] | None:
    name = secret_name(server(world)["metadata"]["uid"])
    return next((one for one in world.cluster.objects(SECRET) if one["metadata"]["name"] == name), None)


def hide_tokens_of_others(world: World) -> None:
    """From now on introspection answers a client about its own tokens alone."""
    real = world.server.introspect

    def introspect(known: AccessToken | None, asker: Client | None) -> Answer:
        if known is not None and (asker is None or asker.client_id != known.client_id):
            return reply(200, {"active": False})
        return real(known, asker)

    world.server.introspect = introspect  # type: ignore[method-assign]


async def with_a_service(kind: str = "dynamic", **options: Any) -> World:
    world = World(kind=kind, settings=ON, **options)
    world.add(protected_service("orders"))
    await world.later(2 * PASS)
    return world


def assert_only_the_services_client_is_left(world: World) -> None:
    assert probe_entry(world) is None
    assert [entry.record.owner_name for entry in world.ledgers()] == ["orders"]
    assert list(world.server.clients) == [world.ledgers()[0].record.client_id]


@pytest.mark.parametrize("kind", DELETING_KINDS)
async def test_a_server_that_tells_one_client_about_anothers_token_is_found_to(kind: str) -> None:
    world = World(kind=kind, settings=ON)
    if isinstance(world.server, FakeKeycloak):
        world.server.demands_audience = False
    world.add(protected_service("orders"))
    await world.later(2 * PASS)

    assert told(world) == ("True", "Introspected")
    assert_only_the_services_client_is_left(world)
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_keycloaks_rule_is_found_and_named_with_what_to_do_and_costs_no_service_its_readiness() -> None:
    world = await with_a_service("keycloak")

    assert told(world) == ("False", "AudienceNotNamed")
    found = condition(world)
    assert found is not None
    assert "26.6.2" in found["message"]
    assert "client scope" in found["message"]
    assert_only_the_services_client_is_left(world)
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_another_server_that_hides_tokens_of_others_is_found_too() -> None:
    world = World(settings=ON)
    hide_tokens_of_others(world)
    world.add(protected_service("orders"))
    await world.later(2 * PASS)

    assert told(world) == ("False", "TokensOfOthersHidden")
    assert_only_the_services_client_is_left(world)


async def test_a_proof_that_fails_names_what_the_server_hides() -> None:
    world = await with_a_service("keycloak")
    world.pod_answers = lambda _: httpx.Response(401, headers={"WWW-Authenticate": "Bearer"})
    await world.later(7 * 3600)

    assert world.condition("orders", "Verified") == ("False", "VerificationFailed")
    assert "CrossClientIntrospection" in world.message("orders", "Verified")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("hydra", ("True", "IntrospectionOpen")),
        ("register-only", ("True", "IntrospectionOpen")),
        ("none", ("Unknown", "NobodyRegisters")),
    ],
)
async def test_where_no_question_is_needed_or_possible_no_client_is_made(kind: str, said: tuple[str, str]) -> None:
    world = World(kind=kind, settings=ON, idempotency_honoured=kind != "register-only")
    if kind != "none":
        world.add(protected_service("orders"))
    await world.later(2 * PASS)

    assert told(world) == said
    assert world.server.created_total == (0 if kind == "none" else 1)


async def test_a_server_that_deletes_no_client_gets_no_probe_client() -> None:
    world = World(settings=ON)
    world.server.manages_clients = False
    world.add(protected_service("orders"))
    await world.later(4 * PASS)

    assert told(world) == ("Unknown", "CannotDelete")
    assert world.server.created_total == 1


async def test_before_the_first_service_no_client_is_made() -> None:
    world = World(settings=ON)
    await world.later(4 * PASS)

    assert told(world) == ("Unknown", "NoClientYet")
    assert world.server.created_total == 0


async def test_switched_off_it_neither_asks_nor_says_anything() -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.later(4 * PASS)

    assert told(world) is None
    assert world.server.created_total == 1


@pytest.mark.parametrize("kind", DELETING_KINDS)
async def test_what_was_found_is_not_asked_again_nor_after_a_restart(kind: str) -> None:
    world = await with_a_service(kind)
    before = condition(world)
    world.restart()
    await world.later(20 * PASS)
    world.add(protected_service("crm"))
    await world.later(4 * PASS)

    assert world.server.created_total == 3  # two services, and one probe client once
    assert condition(world) == before


async def test_another_spec_is_asked_about_anew() -> None:
    world = await with_a_service()
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"]["limits"].update(requestsPerSecond=7),
    )
    hide_tokens_of_others(world)
    await world.later(2 * PASS)

    assert told(world) == ("False", "TokensOfOthersHidden")
    assert_only_the_services_client_is_left(world)


async def test_other_endpoints_are_asked_about_anew() -> None:
    world = await with_a_service()
    world.server.metadata["revocation_endpoint"] = None
    await world.later(3 * PASS)

    assert told(world) == ("True", "Introspected")
    assert world.server.created_total == 3


async def test_an_outage_in_the_middle_delays_only_the_check() -> None:
    world = World(settings=ON)
    world.server.fail_on(Operation.INTROSPECT, status=500, times=None)
    world.add(protected_service("orders"))
    await world.later(2 * PASS)
    assert told(world) == ("Unknown", "NoClientYet")
    assert world.condition("orders", "Ready") == ("True", "Ready")

    world.server.heal()
    await world.later(600)
    assert told(world) == ("True", "Introspected")
    assert_only_the_services_client_is_left(world)


async def test_no_secret_and_no_token_of_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        world = await with_a_service("keycloak")
    texts = "\n".join([*caplog.messages, str(world.events()), str(server(world))])
    assert world.server.secrets_ever
    for secret in world.server.secrets_ever:
        assert secret not in texts


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ["dynamic", "keycloak"])
async def test_killed_anywhere_it_leaves_no_client_and_finds_the_same(kind: str, after: bool) -> None:
    effect = 0
    while True:
        effect += 1
        world = World(kind=kind, settings={"cross_client_check": False})
        world.add(protected_service("orders"))
        await world.later(2 * PASS)
        world.settings = type(world.settings)(
            **{**{name: getattr(world.settings, name) for name in world.settings.__slots__}, "cross_client_check": True}
        )
        world.restart()
        world.kill_at(effect, after=after)
        try:
            await world.later(2 * PASS)
        except Killed:
            world.restart()
            await world.later(600)
            assert told(world) == (("True", "Introspected") if kind == "dynamic" else ("False", "AudienceNotNamed"))
            assert_only_the_services_client_is_left(world)
            continue
        break
    assert effect > 8


async def in_the_middle(kind: str) -> tuple[World, str]:
    """A probe client is registered, and introspection fails; its id."""
    world = World(kind=kind, settings=ON)
    world.sweeps = True
    world.restart()
    world.server.fail_on(Operation.INTROSPECT, status=500, times=None)
    world.add(protected_service("orders"))
    await world.later(2 * PASS)
    (client_id,) = [e.record.client_id for e in world.ledgers() if e.record.owner_kind == "AuthorizationServer"]
    assert client_id in world.server.clients
    return world, str(client_id)


@pytest.mark.parametrize("kind", DELETING_KINDS)
async def test_a_probe_client_goes_with_its_authorization_server(kind: str) -> None:
    world, client_id = await in_the_middle(kind)
    world.cluster.remove(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    await world.later(2 * PASS)

    assert client_id not in world.server.clients
    assert "AuthorizationServer" not in {entry.record.owner_kind for entry in world.ledgers()}
    assert world.cluster.objects(AUTHORIZATION_SERVER) == []


@pytest.mark.parametrize("kind", DELETING_KINDS)
async def test_a_probe_client_whose_authorization_server_was_torn_away_goes_when_it_is_back(kind: str) -> None:
    world, client_id = await in_the_middle(kind)
    body = server(world)
    place = (AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default")
    world.cluster.edit(*place, lambda one: one["metadata"].update(finalizers=[]))
    world.cluster.remove(*place)
    await world.later(2 * 3600)
    states = {entry.record.owner_kind: entry.record.state for entry in world.ledgers()}
    assert states["AuthorizationServer"] is State.DELETING

    world.server.heal()
    for name in ("uid", "resourceVersion", "creationTimestamp", "generation", "finalizers"):
        body["metadata"].pop(name, None)
    body.pop("status", None)
    world.cluster.insert(AUTHORIZATION_SERVER, body)
    await world.later(2 * 3600)
    assert client_id not in world.server.clients
    assert "AuthorizationServer" not in {entry.record.owner_kind for entry in world.ledgers()}
