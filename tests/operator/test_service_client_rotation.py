"""Another client in the place of a ServiceClient's: the old credentials go on while their readers follow.

What only time or a server's answer can show is shown with the fake servers and a clock of the test's own.
"""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from protectedservice_operator.authorization_server import AuthorizationServer
from protectedservice_operator.conditions import timestamp
from protectedservice_operator.registration.ledger import Entry, State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, EVENT, PROTECTED_SERVICE, SECRET, SERVICE_CLIENT

from ..support.fake_authorization_server import Client, Operation
from ..support.objects import OPERATOR_NAMESPACE, protected_service, service_client
from ..support.world import START, Killed, World, condition

HOUR = 3600.0
LIFETIME = 300.0  # of the fake's tokens
AUDIENCE = "https://orders.example"
STOCK = "https://stock.example"
CREDENTIALS = "shop-oauth2-caller"
KINDS = ["dynamic", "hydra", "keycloak"]
ALL = {"from": "All"}
STRANGERS = {"from": "Selector", "selector": {"matchLabels": {"team": "strangers"}}}
BOTH = [{"name": "orders"}, {"name": "stock"}]


def caller(world: World) -> dict[str, Any]:
    return world.cluster.read(SERVICE_CLIENT, "tenant", "shop")


def told(world: World, type_: str) -> tuple[str, str] | None:
    """(status, reason) of a condition of ServiceClient `shop`."""
    return condition(caller(world), type_)


def ask(world: World, value: str = "1") -> None:
    """kubectl annotate."""
    annotation = {"protectedservice.dev/rotate": value}
    world.cluster.edit(
        SERVICE_CLIENT, "tenant", "shop", lambda body: body["metadata"].setdefault("annotations", {}).update(annotation)
    )


def edit(world: World, **spec: Any) -> None:
    world.cluster.edit(SERVICE_CLIENT, "tenant", "shop", lambda body: body["spec"].update(spec))


def edit_service(world: World, name: str, **spec: Any) -> None:
    world.cluster.edit(PROTECTED_SERVICE, "tenant", name, lambda body: body["spec"].update(spec))


def in_use(world: World) -> str:
    """The id that the caller's Secret holds."""
    return world.credentials(CREDENTIALS)["client_id"]


def clients(world: World) -> dict[str, Client]:
    """Those at the server that were made for `shop`, by their ids."""
    found = world.server.clients.values()
    return {one.client_id: one for one in found if "/shop/" in (one.metadata.get("client_name") or "")}


def entry_of(world: World) -> Entry:
    (entry,) = [entry for entry in world.ledgers() if entry.record.owner_kind == "ServiceClient"]
    return entry


def reasons(world: World) -> list[str]:
    """Of the Events about `shop`."""
    return [
        event["reason"] for event in world.cluster.objects(EVENT) if event["involvedObject"]["kind"] == "ServiceClient"
    ]


async def request_token(world: World, secret: dict[str, str], **more: str) -> httpx.Response:
    """As a caller does who read its Secret when it was so."""
    form = {"grant_type": "client_credentials", "scope": secret["scope"]}
    if "audience_parameter" in secret:
        form[secret["audience_parameter"]] = secret["audience"].split()[0]
    basic = base64.b64encode(f"{secret['client_id']}:{secret['client_secret']}".encode()).decode()
    async with httpx.AsyncClient(transport=world.server.transport()) as http:
        return await http.post(secret["token_url"], data=form | more, headers={"Authorization": f"Basic {basic}"})


async def minted(world: World, secret: dict[str, str]) -> str:
    answer = await request_token(world, secret)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


async def is_let_in(world: World, token: str, service: str = "orders") -> bool:
    """Whether the service's own client is told that the token is good."""
    server = AuthorizationServer.parse(world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default"))
    tokens = (await world.servers.connection(server)).tokens
    secret = world.credentials(f"{service}-oauth2-client")
    return bool(await tokens.introspect(secret["client_id"], secret["client_secret"], token))


async def calling(kind: str = "dynamic", *, honoured: bool = True, overlap: str = "1h", **spec: Any) -> World:
    """ServiceClient `shop` that calls `orders` (scope read) and, if it names it, `stock` (scope write)."""
    world = World(kind=kind, idempotency_honoured=honoured)
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(protected_service("stock", scopes=["write"], audience=STOCK))
    rotation = {"overlap": overlap, **spec.pop("rotation", {})}
    world.add(service_client("shop", rotation=rotation, **spec))
    await world.settle()
    assert told(world, "Ready") == ("True", "Ready")
    return world


async def overlapping(kind: str = "dynamic", **more: Any) -> tuple[World, str, str]:
    """In the midst of an overlap; the ids of the old client and of the one in use."""
    world = await calling(kind, **more)
    old = in_use(world)
    ask(world)
    await world.settle()
    assert in_use(world) != old
    return world, old, in_use(world)


# --- from one client to the next -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_new_value_of_the_annotation_changes_the_secret_and_deletes_the_old_client_after_the_overlap(
    kind: str,
) -> None:
    world, old, new = await overlapping(kind)
    swapped = world.now

    status = caller(world)["status"]
    assert set(clients(world)) == {old, new}
    assert (status["clientId"], status["previousClient"]) == (
        new,
        {"clientId": old, "keptUntil": timestamp(swapped + HOUR + LIFETIME)},
    )
    assert told(world, "Ready") == ("True", "Ready")
    assert told(world, "Rotating") == ("True", "Rotating")
    assert "rotatedAt" not in status

    await world.later(HOUR + LIFETIME - 5)
    assert old in world.server.clients
    await world.later(10)

    status = caller(world)["status"]
    assert set(clients(world)) == {new} == {in_use(world)}
    assert status["rotatedAt"] == timestamp(swapped + HOUR + LIFETIME)
    assert "previousClient" not in status
    assert "nextRotation" not in status
    assert told(world, "Rotating") is None
    assert reasons(world).count("RotationStarted") == reasons(world).count("Rotated") == 1
    assert (entry_of(world).record.state, entry_of(world).second) == (State.REGISTERED, None)


@pytest.mark.parametrize("kind", KINDS)
async def test_no_call_is_refused_whichever_credentials_a_caller_has_read_within_the_overlap(kind: str) -> None:
    world = await calling(kind)
    before = world.credentials(CREDENTIALS)
    tokens = [await minted(world, before)]
    ask(world)
    await world.settle()
    after, ends = world.credentials(CREDENTIALS), world.now + HOUR
    assert after["client_id"] != before["client_id"]

    while world.now < ends + 2 * LIFETIME:
        readers = [after] if world.now > ends else [before, after]  # late readers follow at the overlap's end
        tokens += [await minted(world, secret) for secret in readers]
        await world.later(50)
        tokens = [token for token in tokens if world.server.tokens[token].expires_at > world.now]
        for token in tokens:
            assert await is_let_in(world, token), (world.now - ends, world.server.tokens[token])

    assert set(clients(world)) == {after["client_id"]}
    assert (await request_token(world, before)).status_code == 401


async def test_an_overlap_that_nobody_gave_is_a_day() -> None:
    world = World()
    world.add(service_client("shop", scopes=["read"]))
    await world.settle()
    old = in_use(world)
    ask(world)
    await world.later(24 * HOUR + LIFETIME - 5)
    assert set(clients(world)) == {old, in_use(world)}
    await world.later(10)
    assert set(clients(world)) == {in_use(world)}


async def test_without_an_overlap_the_last_token_is_waited_for_all_the_same() -> None:
    world, old, _ = await overlapping(overlap="0s")
    await world.later(LIFETIME - 5)
    assert old in world.server.clients
    await world.later(10)
    assert old not in world.server.clients


@pytest.mark.parametrize(("changed", "due"), [("0s", LIFETIME), ("10m", 600 + LIFETIME), ("3h", 3 * HOUR + LIFETIME)])
async def test_an_overlap_that_is_edited_counts_from_the_same_beginning(changed: str, due: float) -> None:
    world, old, _ = await overlapping()
    await world.later(60)
    edit(world, rotation={"overlap": changed})
    await world.settle()

    assert caller(world)["status"]["previousClient"]["keptUntil"] == timestamp(START + due)
    await world.later(due - 60 - 5)
    assert old in world.server.clients
    await world.later(10)
    assert old not in world.server.clients


async def test_an_overlap_that_is_cut_short_leaves_kubelets_the_time_that_they_need() -> None:
    world = await calling(overlap="100s")
    world.server.token_lifetime = 5
    old = in_use(world)
    ask(world)
    await world.settle()
    for overlap in ("1h", "0s", "10s"):
        edit(world, rotation={"overlap": overlap})
        await world.settle()

    assert caller(world)["status"]["previousClient"]["keptUntil"] == timestamp(START + 120)
    await world.later(115)
    assert old in world.server.clients
    await world.later(10)
    assert old not in world.server.clients


async def test_an_overlap_that_is_cut_to_nothing_when_it_is_half_over_ends_at_once() -> None:
    world, _, new = await overlapping()
    await world.later(HOUR / 2)
    edit(world, rotation={"overlap": "0s"})
    await world.settle()

    assert set(clients(world)) == {new}
    assert "previousClient" not in caller(world)["status"]


async def test_the_overlap_does_not_begin_before_the_secret_can_be_changed() -> None:
    world = await calling()
    old = in_use(world)
    world.cluster.edit(SECRET, "tenant", CREDENTIALS, lambda body: body["metadata"].pop("ownerReferences"))
    ask(world)
    await world.later(5 * HOUR)

    assert told(world, "CredentialsReady") == ("False", "NotOwned")
    assert old in clients(world)
    assert in_use(world) == old


async def test_the_schedule_replaces_a_client_that_has_served_its_time_and_status_says_when() -> None:
    world = await calling(rotation={"interval": "24h"})
    first = in_use(world)
    assert caller(world)["status"]["nextRotation"] == timestamp(START + 24 * HOUR)

    await world.later(24 * HOUR - 60)
    assert in_use(world) == first
    world.restart()
    await world.later(120)
    second = in_use(world)
    assert second != first
    assert caller(world)["status"]["nextRotation"] > timestamp(START + 48 * HOUR - 1)

    await world.later(24 * HOUR)
    assert in_use(world) not in (first, second)
    assert world.server.created_total == 2 + 3


async def test_one_that_comes_with_the_annotation_is_not_rotated_at_once() -> None:
    world = World()
    body = service_client("shop", scopes=["read"])
    body["metadata"]["annotations"] = {"protectedservice.dev/rotate": "at birth"}
    world.add(body)
    await world.later(2 * HOUR)

    assert world.server.created_total == 1


async def test_the_same_value_is_served_once_restart_or_not() -> None:
    world, _, new = await overlapping()
    await world.later(2 * HOUR)
    world.restart()
    await world.later(2 * HOUR)

    assert set(clients(world)) == {new}


async def test_a_second_request_within_the_overlap_waits_for_its_end_and_is_not_lost() -> None:
    world, old, new = await overlapping(rotation={"interval": "2h"})
    ask(world, "2")
    await world.later(HOUR)
    assert set(clients(world)) == {old, new}
    assert in_use(world) == new

    await world.later(2 * LIFETIME)
    assert in_use(world) not in (old, new)
    assert set(clients(world)) == {new, in_use(world)}  # the next overlap


async def test_within_the_overlap_and_after_it_nothing_is_written_and_nobody_called_but_each_hour() -> None:
    world, *_ = await overlapping("hydra", overlap="24h")
    for _ in range(2):
        await world.later(300)
        writes, calls = len(world.writes()), len(world.server.requests)
        await world.later(5 * HOUR)
        world.restart()
        await world.later(HOUR)

        assert world.writes()[writes:] == []
        operations = {seen.operation for seen in world.server.requests[calls:]}
        assert operations <= {Operation.METADATA, Operation.READ, Operation.TOKEN, Operation.REVOKE}
        await world.later(24 * HOUR)


# --- what servers do -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_without_room_for_a_second_client_leaves_the_caller_ready(kind: str) -> None:
    world = await calling(kind)
    old = world.credentials(CREDENTIALS)
    world.server.fail_on(Operation.REGISTER, status=400, times=None)
    ask(world)
    await world.settle()

    assert world.credentials(CREDENTIALS) == old
    assert told(world, "Ready") == ("True", "Ready")
    assert told(world, "Rotating") == ("False", "RotationGivenUp")
    asked = world.server.count(Operation.REGISTER)
    await world.later(HOUR - 120)
    assert world.server.count(Operation.REGISTER) == asked

    world.server.heal()
    await world.later(3 * HOUR)
    assert set(clients(world)) == {in_use(world)} != {old["client_id"]}
    assert told(world, "Rotating") is None


async def test_a_server_that_can_only_register_keeps_the_old_client_which_is_counted_and_told() -> None:
    world, old, new = await overlapping("register-only", honoured=False)
    await world.later(2 * HOUR)

    assert {old, new} <= set(world.server.clients)
    assert world.uncertain == 1
    assert any(old in message for reason, message in world.events() if reason == "ClientOrphaned")
    assert told(world, "Ready") == ("True", "Ready")
    assert "previousClient" not in caller(world)["status"]


async def test_a_server_that_registers_nobody_is_named_and_nothing_is_rotated() -> None:
    world = World(kind="none")
    world.add(service_client("shop", scopes=["read"]))
    await world.settle()
    ask(world)
    await world.later(2 * HOUR)

    assert told(world, "ClientRegistered") == ("False", "CannotRegister")
    assert told(world, "Rotating") is None
    assert world.ledgers() == []


async def test_an_outage_neither_starts_a_rotation_nor_ends_one() -> None:
    world = await calling()
    old = in_use(world)
    world.server.down = True
    await world.later(60)
    ask(world)
    await world.later(60)
    assert entry_of(world).record.state is State.REGISTERED

    world.server.heal()
    await world.later(60)
    assert in_use(world) != old
    world.server.down = True
    await world.later(3 * HOUR)
    assert old in world.server.clients
    world.server.heal()
    await world.later(400)
    assert set(clients(world)) == {in_use(world)}


@pytest.mark.parametrize("kind", KINDS)
async def test_an_old_client_that_somebody_deleted_within_the_overlap_is_no_obstacle(kind: str) -> None:
    world, old, new = await overlapping(kind)
    world.server.lose_client(old)
    await world.later(2 * HOUR)

    assert set(clients(world)) == {new}
    assert told(world, "Rotating") is None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_in_use_that_is_lost_within_the_overlap_is_made_anew_and_the_old_one_is_kept(kind: str) -> None:
    world, old, new = await overlapping(kind, overlap="6h")
    world.server.lose_client(new)
    await world.later(HOUR)

    assert set(clients(world)) == {old, in_use(world)}
    assert in_use(world) not in (old, new)
    await world.later(6 * HOUR)
    assert set(clients(world)) == {in_use(world)}


# --- what changes meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_scopes_that_are_added_within_the_overlap_reach_both_clients(kind: str) -> None:
    world, old, new = await overlapping(kind)
    before = world.credentials(CREDENTIALS)
    edit(world, services=BOTH)
    await world.settle()

    assert (in_use(world), set(clients(world))) == (new, {old, new})
    assert {one.scopes == {"read", "write"} for one in clients(world).values()} == {True}
    assert world.credentials(CREDENTIALS)["scope"] == "read write"
    await minted(world, before)

    await world.later(2 * HOUR)
    assert set(clients(world)) == {new}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suspended", [False, True])
async def test_what_a_service_takes_back_within_the_overlap_both_clients_lose_at_once(
    kind: str, suspended: bool
) -> None:
    world = await calling(kind, services=BOTH)
    before = world.credentials(CREDENTIALS)
    ask(world)
    await world.settle()
    if suspended:
        edit(world, suspend=True)
        await world.settle()
    edit_service(world, "stock", allowedClients=STRANGERS)
    await world.settle()

    found = clients(world)
    assert set(found) == {before["client_id"], entry_of(world).record.client_id}
    for one in found.values():
        assert one.scopes == {"read"}
        assert STOCK not in one.audience
    assert (await request_token(world, before)).json()["error"] == "invalid_scope"
    assert (await request_token(world, before, scope="read")).status_code == 200
    assert "OverlapCutShort" not in reasons(world)


@pytest.mark.parametrize("kind", KINDS)
async def test_with_the_last_consent_both_clients_go(kind: str) -> None:
    world, *_ = await overlapping(kind)
    before = world.credentials(CREDENTIALS)
    edit_service(world, "orders", allowedClients=STRANGERS)
    await world.settle()

    assert clients(world) == {}
    assert (await request_token(world, before)).status_code in (400, 401)
    status = caller(world)["status"]
    assert not {"clientId", "previousClient", "nextRotation", "rotatedAt"} & set(status)
    assert told(world, "Rotating") is None

    edit_service(world, "orders", allowedClients=ALL)
    await world.later(2 * HOUR)
    assert set(clients(world)) == {in_use(world)}


async def test_a_namespace_that_the_authorization_server_allows_no_more_loses_both_clients_after_its_grace() -> None:
    world, old, new = await overlapping()
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
    )
    ask(world, "2")
    await world.later(500)
    assert set(clients(world)) == {old, new}
    await world.later(200)
    assert clients(world) == {}


async def test_an_old_client_that_cannot_be_changed_goes_when_it_has_what_was_taken_back() -> None:
    world, old, new = await overlapping("register-only", honoured=False, services=BOTH)
    edit_service(world, "stock", allowedClients=STRANGERS)
    await world.settle()

    assert "OverlapCutShort" in reasons(world)
    orphaned = [message for reason, message in world.events() if reason == "ClientOrphaned"]
    assert any(old in message for message in orphaned)
    # A client there cannot be changed either: a new one took the place of the one in use, which is counted as well.
    assert in_use(world) not in (old, new)
    assert entry_of(world).record.second is None
    assert world.uncertain == 2


async def test_a_server_that_refuses_to_narrow_the_old_client_loses_it_at_once() -> None:
    world, old, new = await overlapping("hydra", services=BOTH)
    world.server.scopes = set()  # every PUT is refused
    edit_service(world, "stock", allowedClients=STRANGERS)
    await world.settle()

    assert old not in world.server.clients
    assert in_use(world) == new
    assert "OverlapCutShort" in reasons(world)
    assert "rotatedAt" in caller(world)["status"]
    assert told(world, "Ready") == ("False", "ServiceNotAllowed")


async def test_a_server_that_refuses_to_widen_the_old_client_is_asked_once_and_it_stays() -> None:
    world, old, _ = await overlapping("hydra")
    world.server.scopes = {"read"}
    edit(world, services=BOTH)
    await world.later(300)
    asked = world.server.count(Operation.UPDATE)
    await world.later(1200)

    assert world.server.count(Operation.UPDATE) == asked
    assert world.server.clients[old].scopes == {"read"}


async def test_an_old_client_whose_handle_is_lost_is_left_alive_counted_and_told_when_it_cannot_be_narrowed() -> None:
    world, old, new = await overlapping(services=BOTH)
    world.server.clients[old].registration_token = "of somebody else"
    edit_service(world, "stock", allowedClients=STRANGERS)
    await world.settle()

    assert in_use(world) == new
    assert world.server.clients[new].scopes == {"read"}
    assert old in world.server.clients  # nobody but the server's administrator can change that
    assert world.uncertain == 1
    assert any(old in message for reason, message in world.events() if reason == "ClientOrphaned")


async def test_a_service_of_keycloaks_that_rotates_within_the_overlap_goes_on_knowing_both_clients_tokens() -> None:
    world, old, _ = await overlapping("keycloak", overlap="6h")
    secrets = [world.credentials(CREDENTIALS)]
    second = entry_of(world).second
    assert second is not None
    secrets.append({**secrets[0], "client_id": old, "client_secret": second.client_secret})
    service = world.credentials()["client_id"]
    world.cluster.edit(
        PROTECTED_SERVICE,
        "tenant",
        "orders",
        lambda body: body["metadata"].setdefault("annotations", {}).update({"protectedservice.dev/rotate": "1"}),
    )
    tokens: list[str] = []
    for _ in range(30):
        tokens += [await minted(world, secret) for secret in secrets]
        await world.later(50)
        tokens = [token for token in tokens if world.server.tokens[token].expires_at > world.now]
        for token in tokens:
            assert await is_let_in(world, token)

    assert world.credentials()["client_id"] != service


async def test_a_suspended_one_is_neither_rotated_nor_rid_of_its_old_client_until_it_goes_on() -> None:
    world, old, new = await overlapping(rotation={"interval": "2h"})
    edit(world, suspend=True)
    ask(world, "2")
    await world.later(5 * HOUR)
    assert (in_use(world), set(clients(world))) == (new, {old, new})

    edit(world, suspend=False)
    await world.settle()
    assert old not in world.server.clients
    assert in_use(world) != new  # the request that came meanwhile


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deletion_within_the_overlap_takes_both_clients_along(kind: str) -> None:
    world, *_ = await overlapping(kind)
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    await world.settle()

    assert world.cluster.objects(SERVICE_CLIENT) == []
    assert clients(world) == {}
    assert [entry.record.owner_kind for entry in world.ledgers()] == ["ProtectedService"] * 2


async def test_a_retained_client_is_the_one_in_the_secret_and_the_old_one_goes() -> None:
    world = World()
    world.add(service_client("shop", scopes=["read"], deletionPolicy="Retain"))
    await world.settle()
    old = in_use(world)
    ask(world)
    await world.settle()
    kept = world.credentials(CREDENTIALS)
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    await world.settle()

    assert kept["client_id"] != old
    assert set(world.server.clients) == {kept["client_id"]}
    assert world.credentials(CREDENTIALS) == kept
    assert entry_of(world).record.state is State.RETAINED


async def killed_after_its_post() -> World:
    """The process died when the second client was made, before it could write that down."""
    for effect in range(1, 20):
        world = await calling(honoured=False)
        made = world.server.created_total
        ask(world)
        world.kill_at(effect, after=True)
        with pytest.raises(Killed):
            await world.settle()
        if world.server.created_total > made:
            assert entry_of(world).record.state is State.ROTATING
            return world
    raise AssertionError("no second client is made")


@pytest.mark.parametrize("gone", ["the last consent", "the permission of the AuthorizationServer"])
async def test_an_interrupted_rotation_that_cannot_be_repeated_is_counted_before_the_client_is_ended(gone: str) -> None:
    """Its POST may have made a client. To send it again would make another one, and tell of neither."""
    world = await killed_after_its_post()
    made = world.server.created_total
    world.now += HOUR
    if gone == "the last consent":
        edit_service(world, "orders", allowedClients=STRANGERS)
    else:
        world.cluster.edit(
            AUTHORIZATION_SERVER,
            OPERATOR_NAMESPACE,
            "default",
            lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
        )
    world.restart()
    await world.later(HOUR)

    assert world.server.created_total == made
    assert world.uncertain == 1
    assert len(clients(world)) == 1


async def test_no_secret_of_either_client_is_told_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world, *_ = await overlapping(services=BOTH)
    ask(world, "a value that nobody needs to repeat")
    edit_service(world, "stock", allowedClients=STRANGERS)
    await world.later(3 * HOUR)

    shown = caplog.text + str(world.events()) + str(caller(world))
    shown += "".join(str(secret["metadata"]) for secret in world.cluster.objects(SECRET))
    assert world.server.secrets_ever
    assert not [secret for secret in world.server.secrets_ever if secret in shown]
    assert "a value that nobody needs to repeat" not in caplog.text + str(world.events())
