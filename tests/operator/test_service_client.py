"""A service that calls others: its client has what they let it have, and its Secret is all that it needs."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from protectedservice_operator.authorization_server import AuthorizationServer
from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    LABEL_WATCH,
    NAMESPACE,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE_CLIENT,
    Key,
)

from ..support.fake_authorization_server import Client
from ..support.fake_cluster import Write
from ..support.fake_keycloak import FakeKeycloak
from ..support.objects import OPERATOR_NAMESPACE, authorization_server, protected_service, service_client
from ..support.world import World, condition

AUDIENCE = "https://orders.example"
OTHER_AUDIENCE = "https://stock.example"
CREDENTIALS = "shop-oauth2-caller"


def caller(world: World, name: str = "shop", namespace: str = "tenant") -> dict[str, Any]:
    return world.cluster.read(SERVICE_CLIENT, namespace, name)


def told(world: World, type_: str, namespace: str = "tenant") -> tuple[str, str] | None:
    """(status, reason) of a condition of ServiceClient `shop`."""
    return condition(caller(world, namespace=namespace), type_)


def message(world: World, type_: str = "Ready", namespace: str = "tenant") -> str:
    conditions = caller(world, namespace=namespace)["status"]["conditions"]
    return str(next(c["message"] for c in conditions if c["type"] == type_))


def client(world: World, name: str = "shop") -> Client | None:
    """The client at the authorization server that is tagged with this object's name."""
    found = [one for one in world.server.clients.values() if f"/{name}/" in (one.metadata.get("client_name") or "")]
    assert len(found) <= 1
    return found[0] if found else None


def held(world: World, name: str = "shop") -> tuple[set[str], set[str]]:
    """Scopes and audiences of that client."""
    found = client(world, name)
    assert found is not None
    return found.scopes, found.audience


def edit(world: World, **spec: Any) -> None:
    world.cluster.edit(SERVICE_CLIENT, "tenant", "shop", lambda body: body["spec"].update(spec))


def edit_service(world: World, name: str = "orders", namespace: str = "tenant", **spec: Any) -> None:
    world.cluster.edit(PROTECTED_SERVICE, namespace, name, lambda body: body["spec"].update(spec))


async def token(world: World, **more: str) -> httpx.Response:
    """Ask for a token with nothing but what the Secret says."""
    secret = world.credentials(CREDENTIALS)
    form = {"grant_type": "client_credentials", "scope": secret["scope"]}
    if "audience_parameter" in secret:
        form[secret["audience_parameter"]] = secret["audience"].split()[0]
    headers = {}
    if secret["token_endpoint_auth_method"] == "client_secret_basic":
        basic = f"{secret['client_id']}:{secret['client_secret']}"
        headers["Authorization"] = f"Basic {base64.b64encode(basic.encode()).decode()}"
    else:
        form |= {"client_id": secret["client_id"], "client_secret": secret["client_secret"]}
    async with httpx.AsyncClient(transport=world.server.transport()) as http:
        return await http.post(secret["token_url"], data=form | more, headers=headers)


async def calling(kind: str = "dynamic", **spec: Any) -> World:
    """ServiceClient `shop` that calls ProtectedService `orders` of its own namespace."""
    world = World(kind=kind, idempotency_honoured=kind == "dynamic")
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(service_client("shop", **spec))
    await world.settle()
    return world


@pytest.mark.parametrize("kind", ["dynamic", "register-only", "hydra", "keycloak"])
async def test_its_secret_is_all_that_a_caller_needs_to_get_a_token_for_the_service(kind: str) -> None:
    world = await calling(kind)

    assert told(world, "Ready") == ("True", "Ready"), caller(world)["status"]
    status, secret = caller(world)["status"], world.credentials(CREDENTIALS)
    assert (status["clientId"], status["credentialsSecret"]) == (secret["client_id"], CREDENTIALS)
    assert status["tokenUrl"] == secret["token_url"]
    answer = await token(world)
    assert answer.status_code == 200, answer.text
    issued = world.server.tokens[answer.json()["access_token"]]
    assert (issued.client_id, issued.scope) == (secret["client_id"], "read")
    if kind != "keycloak":
        assert issued.audience == AUDIENCE
    # and the service's own client is told that it is good
    server = AuthorizationServer.parse(world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default"))
    tokens = (await world.servers.connection(server)).tokens
    service = world.credentials()
    assert await tokens.introspect(service["client_id"], service["client_secret"], answer.json()["access_token"])


async def test_keycloak_lets_each_service_that_is_called_introspect_the_callers_tokens_and_no_other() -> None:
    world = World(kind="keycloak")
    for name in ("orders", "stock"):
        world.add(protected_service(name))
    world.add(service_client("shop"))
    await world.settle()
    value = (await token(world)).json()["access_token"]
    server = AuthorizationServer.parse(world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default"))
    tokens = (await world.servers.connection(server)).tokens

    for name, expected in (("orders", True), ("stock", False)):
        service = world.credentials(f"{name}-oauth2-client")
        assert await tokens.introspect(service["client_id"], service["client_secret"], value) is expected, name


async def test_the_scopes_and_audiences_of_all_its_services_are_united() -> None:
    world = World()
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(protected_service("stock", "other", scopes=["write"], audience=OTHER_AUDIENCE, allowedClients=ALL))
    world.add(service_client("shop", services=[{"name": "orders"}, {"name": "stock", "namespace": "other"}]))
    await world.settle()

    assert told(world, "Ready") == ("True", "Ready")
    assert held(world) == ({"read", "write"}, {AUDIENCE, OTHER_AUDIENCE})
    assert world.credentials(CREDENTIALS)["audience"].split() == [AUDIENCE, OTHER_AUDIENCE]
    assert f"for scope read write, audience {AUDIENCE} {OTHER_AUDIENCE}" in message(world, "ClientRegistered")
    answer = await token(world, resource=OTHER_AUDIENCE, scope="write")
    assert world.server.tokens[answer.json()["access_token"]].audience == OTHER_AUDIENCE


async def test_scopes_can_be_asked_for_without_a_service() -> None:
    world = World()
    world.add(service_client("shop", scopes=["read"], audience="https://elsewhere.example"))
    await world.settle()

    assert told(world, "Ready") == ("True", "Ready")
    assert told(world, "ServicesAllowed") == ("True", "NoServiceNamed")
    assert held(world) == ({"read"}, {"https://elsewhere.example"})


# --- consent ---------------------------------------------------------------------------------------------------------

ALL = {"from": "All"}
SAME = {"from": "Same"}
SHOPS = {"from": "Selector", "selector": {"matchLabels": {"team": "shops"}}}
CALL = [{"name": "orders", "namespace": "other"}]


def protect_elsewhere(world: World, **spec: Any) -> None:
    world.add(protected_service("orders", "other", scopes=["write"], audience=AUDIENCE, **spec))


async def test_a_service_that_does_not_let_the_namespace_in_gives_nothing_and_is_named() -> None:
    world = World()
    protect_elsewhere(world)
    world.add(service_client("shop", services=CALL))
    await world.settle()

    assert told(world, "ServicesAllowed") == ("False", "ServiceNotAllowed")
    assert told(world, "Ready") == ("False", "ServiceNotAllowed")
    assert told(world, "Stalled") == ("True", "ServiceNotAllowed")
    assert "other/orders" in message(world)
    assert "spec.allowedClients" in message(world)
    assert client(world) is None
    assert world.cluster.objects(SECRET, "tenant") == []
    assert "finalizers" not in caller(world)["metadata"]


@pytest.mark.parametrize(
    ("allowed", "label", "expected"),
    [
        pytest.param(ALL, None, True, id="All"),
        pytest.param(SAME, None, False, id="Same"),
        pytest.param(SHOPS, "shops", True, id="Selector that matches"),
        pytest.param(SHOPS, "thieves", False, id="Selector that does not match"),
        pytest.param(SHOPS, None, False, id="Selector, and no label"),
    ],
)
async def test_whose_service_clients_may_call_is_the_services_owners_to_say(
    allowed: dict[str, Any], label: str | None, expected: bool
) -> None:
    world = World()
    if label is not None:
        world.cluster.edit(NAMESPACE, None, "tenant", lambda body: body["metadata"]["labels"].update(team=label))
    protect_elsewhere(world, allowedClients=allowed)
    world.add(service_client("shop", services=CALL))
    await world.settle()

    assert (client(world) is not None) is expected
    assert told(world, "ServicesAllowed") == (("True", "Allowed") if expected else ("False", "ServiceNotAllowed"))


async def test_a_selector_leaves_out_even_the_services_own_namespace() -> None:
    world = World()
    world.add(protected_service("orders", allowedClients=SHOPS))
    world.add(service_client("shop"))
    await world.settle()

    assert client(world) is None


@pytest.mark.parametrize("kind", ["dynamic", "hydra", "keycloak"])
async def test_consent_that_comes_later_is_followed_at_once_and_taken_back_at_once(kind: str) -> None:
    world = World(kind=kind)
    protect_elsewhere(world)
    world.add(protected_service("stock"))
    world.add(service_client("shop", services=[{"name": "stock"}, *CALL]))
    await world.settle()
    narrow = held(world)[0]

    edit_service(world, namespace="other", allowedClients=ALL)
    await world.settle()

    assert told(world, "Ready") == ("True", "Ready")
    client_id = caller(world)["status"]["clientId"]
    wide = held(world)[0]
    assert (narrow, wide) == ({"read"}, {"read", "write"})
    assert (await token(world, scope="write")).status_code == 200

    edit_service(world, namespace="other", allowedClients=SAME)
    await world.settle()

    assert held(world) == ({"read"}, set())
    assert caller(world)["status"]["clientId"] == client_id
    assert told(world, "Ready") == ("False", "ServiceNotAllowed")
    assert (await token(world, scope="write")).json()["error"] == "invalid_scope"
    assert world.credentials(CREDENTIALS)["scope"] == "read"
    assert "audience" not in world.credentials(CREDENTIALS)
    if isinstance(world.server, FakeKeycloak):
        stock = world.credentials("stock-oauth2-client")["client_id"]
        assert world.server.client_scopes[client_id].audiences == {client_id, stock}


async def test_a_namespaces_label_taken_away_takes_the_consent_away() -> None:
    world = World()
    world.cluster.edit(NAMESPACE, None, "tenant", lambda body: body["metadata"]["labels"].update(team="shops"))
    protect_elsewhere(world, allowedClients=SHOPS)
    world.add(service_client("shop", services=CALL, scopes=["read"]))
    await world.settle()
    assert held(world) == ({"read", "write"}, {AUDIENCE})

    world.cluster.edit(NAMESPACE, None, "tenant", lambda body: body["metadata"]["labels"].pop("team"))
    await world.settle()

    assert held(world) == ({"read"}, set())


@pytest.mark.parametrize("kind", ["dynamic", "hydra", "keycloak"])
async def test_with_the_last_consent_goes_the_client_and_comes_back_with_it(kind: str) -> None:
    world = await calling(kind)
    before = world.credentials(CREDENTIALS)

    edit_service(world, allowedClients=SHOPS)
    await world.settle()

    assert client(world) is None
    assert [entry.record.owner_kind for entry in world.ledgers()] == ["ProtectedService"]
    assert told(world, "ClientRegistered") == ("False", "ServiceNotAllowed")
    assert told(world, "CredentialsReady") == ("False", "Pending")
    assert "clientId" not in caller(world)["status"]
    assert (await token(world)).status_code in (400, 401)

    edit_service(world, allowedClients=SAME)
    await world.settle()

    assert told(world, "Ready") == ("True", "Ready")
    assert world.credentials(CREDENTIALS)["client_id"] != before["client_id"]
    assert (await token(world)).status_code == 200


async def test_a_client_that_its_server_cannot_delete_is_told_when_the_last_consent_goes() -> None:
    world = await calling("register-only")
    lost = caller(world)["status"]["clientId"]

    edit_service(world, allowedClients=SHOPS)
    await world.settle()

    assert any(reason == "ClientOrphaned" and lost in text for reason, text in world.events())
    assert told(world, "Ready") == ("False", "ServiceNotAllowed")

    edit_service(world, allowedClients=SAME)
    await world.settle()

    assert told(world, "Ready") == ("True", "Ready")
    assert caller(world)["status"]["clientId"] != lost


async def test_a_service_that_does_not_exist_is_waited_for_and_keeps_nobody_from_the_others() -> None:
    world = World()
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(service_client("shop", services=[{"name": "orders"}, {"name": "stock"}]))
    await world.settle()

    assert told(world, "ServicesAllowed") == ("False", "ServiceNotFound")
    assert told(world, "Ready") == ("False", "ServiceNotFound")
    assert told(world, "Reconciling") == ("True", "ServiceNotFound")
    assert "tenant/stock" in message(world)
    assert held(world) == ({"read"}, {AUDIENCE})
    assert told(world, "CredentialsReady") == ("True", "Projected")

    world.add(protected_service("stock", scopes=["write"]))
    await world.settle()

    assert told(world, "Ready") == ("True", "Ready")
    assert held(world) == ({"read", "write"}, {AUDIENCE})


async def test_a_service_that_is_deleted_takes_its_scopes_along() -> None:
    world = World()
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(protected_service("stock", scopes=["write"], audience=OTHER_AUDIENCE))
    world.add(service_client("shop", services=[{"name": "orders"}, {"name": "stock"}]))
    await world.settle()

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "stock")
    await world.settle()

    assert held(world) == ({"read"}, {AUDIENCE})
    assert told(world, "Ready") == ("False", "ServiceNotFound")


async def test_what_a_service_demands_from_now_on_its_callers_get() -> None:
    world = await calling()

    edit_service(world, scopes=["read", "write"], audience=OTHER_AUDIENCE)
    await world.settle()

    assert held(world) == ({"read", "write"}, {OTHER_AUDIENCE})
    assert world.credentials(CREDENTIALS)["audience"] == OTHER_AUDIENCE


async def test_a_service_at_another_authorization_server_is_told_and_gives_nothing() -> None:
    world = World()
    world.cluster.insert(AUTHORIZATION_SERVER, authorization_server("second"))
    reference = {"name": "second", "namespace": OPERATOR_NAMESPACE}
    world.add(protected_service("orders", authorizationServerRef=reference))
    world.add(service_client("shop"))
    await world.settle()

    assert told(world, "ServicesAllowed") == ("False", "ServedElsewhere")
    assert f"{OPERATOR_NAMESPACE}/second" in message(world)
    assert client(world) is None


async def test_a_namespace_that_the_authorization_server_does_not_allow_gets_no_client() -> None:
    world = World()
    world.cluster.edit(
        AUTHORIZATION_SERVER,
        OPERATOR_NAMESPACE,
        "default",
        lambda body: body["spec"].update(allowedNamespaces={"from": "Same"}),
    )
    world.add(service_client("shop", scopes=["read"]))
    await world.settle()

    assert told(world, "AuthorizationServerReady") == ("False", "NotAllowed")
    assert client(world) is None

    world.cluster.edit(
        AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda body: body["spec"].update(allowedNamespaces=ALL)
    )
    await world.settle()
    assert told(world, "Ready") == ("True", "Ready")


# --- the daily life --------------------------------------------------------------------------------------------------


async def test_in_steady_state_and_at_a_restart_nothing_is_written_and_nobody_called() -> None:
    world = await calling()  # its service's client is looked at each hour: test_client_drift.py asserts that rate
    await world.later(200)  # the AuthorizationServer counts its clients once a minute
    writes, calls = len(world.writes()), [s for s in world.server.requests if s.operation not in ("metadata", "read")]

    await world.later(3600)
    world.restart()
    await world.settle()

    assert world.writes()[writes:] == []
    assert [s for s in world.server.requests if s.operation not in ("metadata", "read")] == calls


@pytest.mark.parametrize("act", ["delete", "edit", "add a key", "take a label away"])
async def test_a_secret_that_somebody_touched_is_put_right_with_the_same_client(act: str) -> None:
    world = await calling()
    before = world.credentials(CREDENTIALS)
    owned = world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"]["ownerReferences"]
    assert [(o["kind"], o["name"], o["controller"]) for o in owned] == [("ServiceClient", "shop", True)]
    match act:
        case "delete":
            world.cluster.remove(SECRET, "tenant", CREDENTIALS)
        case "edit":
            wrong = {"token_url": base64.b64encode(b"https://evil.example").decode()}
            world.cluster.edit(SECRET, "tenant", CREDENTIALS, lambda body: body["data"].update(wrong))
        case "add a key":
            world.cluster.edit(SECRET, "tenant", CREDENTIALS, lambda body: body["data"].update(more="AAAA"))
        case _:
            world.cluster.edit(SECRET, "tenant", CREDENTIALS, lambda body: body["metadata"]["labels"].pop(LABEL_WATCH))

    await world.settle()

    assert world.credentials(CREDENTIALS) == before
    assert world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"]["ownerReferences"] == owned
    assert told(world, "Ready") == ("True", "Ready")
    assert world.server.created_total == 2


async def test_keys_labels_and_annotations_of_the_secret_are_the_users_to_choose() -> None:
    keys = {
        "clientId": "ID", "clientSecret": "SECRET", "tokenUrl": "TOKEN_URL", "scope": "SCOPE", "audience": "AUDIENCE",
        "audienceParameter": "PARAMETER", "clientAuthentication": "METHOD",
    }  # fmt: skip
    secret = {"name": "mine", "keys": keys, "labels": {"team": "a"}, "annotations": {"team": "b"}}
    world = await calling(credentialsSecret=secret)

    assert sorted(world.credentials("mine")) == sorted(keys.values())
    metadata = world.cluster.read(SECRET, "tenant", "mine")["metadata"]
    assert (metadata["labels"]["team"], metadata["annotations"]["team"]) == ("a", "b")

    edit(world, credentialsSecret={**secret, "keys": {**keys, "scope": "SCOPES"}})
    await world.settle()
    assert sorted(world.credentials("mine")) == sorted({**keys, "scope": "SCOPES"}.values())


async def test_an_outage_is_waited_for_and_changes_nothing_of_what_is_there() -> None:
    world = await calling()
    world.server.down = True
    await world.later(61)
    world.add(service_client("second", services=[{"name": "orders"}]))
    world.cluster.remove(SECRET, "tenant", CREDENTIALS)
    await world.settle()

    assert told(world, "AuthorizationServerReady") == ("False", "AuthorizationServerUnavailable")
    assert world.credentials(CREDENTIALS)["scope"] == "read"  # repaired out of the ledger
    assert client(world, "second") is None

    world.server.down = False
    await world.recover()
    assert told(world, "Ready") == ("True", "Ready")
    assert client(world, "second") is not None


async def test_a_suspended_one_is_neither_made_nor_changed_nor_repaired() -> None:
    world = World()
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(service_client("shop", suspend=True))
    await world.settle()
    assert client(world) is None
    assert told(world, "Suspended") == ("True", "Suspended")

    edit(world, suspend=False)
    await world.settle()
    edit(world, suspend=True, client={"name": "Shop"}, scopes=["write"])
    world.cluster.remove(SECRET, "tenant", CREDENTIALS)
    await world.settle()

    assert held(world) == ({"read"}, {AUDIENCE})
    assert not client(world, "shop").metadata["client_name"].startswith("Shop")  # type: ignore[union-attr]
    assert world.cluster.objects(SECRET, "tenant") != []  # that of the service
    assert CREDENTIALS not in [s["metadata"]["name"] for s in world.cluster.objects(SECRET, "tenant")]

    edit(world, suspend=False)
    await world.settle()
    assert told(world, "Ready") == ("True", "Ready")
    assert held(world) == ({"read", "write"}, {AUDIENCE})


async def test_a_suspended_one_loses_what_is_withdrawn_all_the_same() -> None:
    world = World()
    protect_elsewhere(world, allowedClients=ALL)
    world.add(protected_service("stock"))
    world.add(service_client("shop", services=[{"name": "stock"}, *CALL]))
    await world.settle()
    edit(world, suspend=True)
    await world.settle()

    edit_service(world, namespace="other", allowedClients=SAME)
    await world.settle()
    assert held(world) == ({"read"}, set())

    edit_service(world, "stock", allowedClients=SHOPS)
    await world.settle()
    assert client(world) is None


async def test_who_suspends_himself_and_names_the_service_no_more_keeps_nothing_of_it() -> None:
    world = World()
    protect_elsewhere(world, allowedClients=ALL)
    world.add(protected_service("stock"))
    world.add(service_client("shop", services=[{"name": "stock"}, *CALL]))
    await world.settle()

    edit(world, suspend=True, services=[{"name": "stock"}])
    await world.settle()

    assert held(world) == ({"read"}, set())


async def test_an_edit_that_our_own_status_write_tells_of_first_is_not_overlooked() -> None:
    world = await calling()
    edited = False

    def edit_first(write: Write) -> None:
        nonlocal edited
        if write.subresource == "status" and not edited:
            edited = True
            edit(world, scopes=["write"])

    # The answers to our own writes come before the watch's events, which are nothing new by then.
    world.cluster.deaf = True
    world.cluster.before_effect = edit_first
    edit(world, client={"name": "Shop"})
    world.wake(Key("ServiceClient", "tenant", "shop"))
    world.cache.put(SERVICE_CLIENT, caller(world))
    await world.settle()

    assert edited
    assert held(world) == ({"read", "write"}, {AUDIENCE})


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_a_deletion_takes_client_ledger_and_secret_along_and_leaves_the_services() -> None:
    world = await calling()
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    await world.settle()

    assert world.cluster.objects(SERVICE_CLIENT) == []
    assert client(world) is None
    assert [entry.record.owner_kind for entry in world.ledgers()] == ["ProtectedService"]
    assert [s["metadata"]["name"] for s in world.cluster.objects(SECRET, "tenant")] == ["orders-oauth2-client"]
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_deletion_in_an_outage_waits_until_its_deadline_and_is_finished_later() -> None:
    world = World(settings={"deletion_deadline": 60.0})
    world.add(service_client("shop", scopes=["read"]))
    await world.settle()
    world.server.down = True
    await world.later(61)
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    await world.settle()
    assert "waiting to delete client" in message(world)

    await world.later(400)

    assert world.cluster.objects(SERVICE_CLIENT) == []
    (entry,) = world.ledgers()
    assert (entry.record.state, entry.record.owner_kind) == (State.DELETING, "ServiceClient")
    assert any(reason == "ClientOrphaned" and "ServiceClient tenant/shop" in text for reason, text in world.events())

    world.server.down = False
    await world.later(400)
    assert world.ledgers() == []
    assert world.server.clients == {}


async def test_a_retained_client_outlives_its_object_with_its_secret() -> None:
    world = World()
    world.add(service_client("shop", scopes=["read"], deletionPolicy="Retain"))
    await world.settle()
    before = world.credentials(CREDENTIALS)
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    await world.settle()

    assert client(world) is not None
    assert world.credentials(CREDENTIALS) == before
    assert "ownerReferences" not in world.cluster.read(SECRET, "tenant", CREDENTIALS)["metadata"]
    assert State.RETAINED in [entry.record.state for entry in world.ledgers()]


async def test_a_client_whose_object_lost_its_finalizer_by_hand_is_found_by_the_sweep_and_a_living_one_is_not() -> None:
    world = await calling()
    world.sweeps = True
    world.restart()
    world.add(service_client("second"))
    await world.settle()
    world.cluster.edit(SERVICE_CLIENT, "tenant", "second", lambda body: body["metadata"].update(finalizers=[]))
    world.cluster.remove(SERVICE_CLIENT, "tenant", "second")
    await world.settle()
    assert client(world, "second") is not None

    await world.later(2 * 3600)

    assert client(world, "second") is None
    assert told(world, "Ready") == ("True", "Ready")
    assert client(world) is not None


async def test_a_client_is_not_retained_with_what_a_service_gave_however_fast_spec_is_changed() -> None:
    world = World()
    protect_elsewhere(world, allowedClients=ALL)
    world.add(service_client("shop", scopes=["read"], services=CALL))
    await world.settle()
    assert held(world) == ({"read", "write"}, {AUDIENCE})

    edit(world, services=[], deletionPolicy="Retain")
    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    await world.settle()

    assert world.cluster.objects(SERVICE_CLIENT) == []
    assert client(world) is None


# --- what tenants may try --------------------------------------------------------------------------------------------


async def test_a_service_and_a_caller_of_one_name_do_not_meet() -> None:
    world = World()
    world.add(protected_service("orders", audience=AUDIENCE))
    world.add(service_client("orders", services=[{"name": "orders"}]))
    await world.settle()
    service, its_caller = world.credentials("orders-oauth2-client"), world.credentials("orders-oauth2-caller")

    assert service["client_id"] != its_caller["client_id"]
    assert sorted(entry.record.owner_kind for entry in world.ledgers()) == ["ProtectedService", "ServiceClient"]

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()
    assert world.cluster.read(SERVICE_CLIENT, "tenant", "orders")["status"]["conditions"]
    assert [entry.record.owner_kind for entry in world.ledgers()] == []  # it had only what the service gave

    world.add(protected_service("orders", audience=AUDIENCE))
    await world.settle()
    world.cluster.remove(SERVICE_CLIENT, "tenant", "orders")
    await world.settle()
    assert [entry.record.owner_kind for entry in world.ledgers()] == ["ProtectedService"]
    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize("named", ["made before by hand", "the service's own"])
async def test_a_secret_that_is_not_its_own_is_neither_read_nor_written(named: str) -> None:
    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    name = "orders-oauth2-client"
    if named == "made before by hand":
        name = CREDENTIALS
        labels = {"protectedservice.dev/watch": "true", "protectedservice.dev/name": "shop"}
        data = {"client_id": "AAAA", "client_secret": "AAAA"}
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "tenant"}, "data": data}
        body["metadata"]["labels"] = labels  # type: ignore[index]
        world.cluster.insert(SECRET, body)
    before = world.cluster.read(SECRET, "tenant", name)
    keys = service_client()["spec"]["credentialsSecret"]["keys"]
    world.add(service_client("shop", credentialsSecret={"name": name, "keys": keys}))
    await world.settle()

    assert told(world, "CredentialsReady") == ("False", "NotOwned")
    assert world.cluster.read(SECRET, "tenant", name) == before
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_an_audience_that_a_service_holds_is_not_had_by_asking_for_it_directly() -> None:
    world = World()
    protect_elsewhere(world)
    world.add(service_client("shop", scopes=["write"], audience=AUDIENCE))
    await world.settle()

    assert held(world) == ({"write"}, set())
    assert told(world, "ServicesAllowed") == ("False", "ServiceNotAllowed")
    assert "spec.audience" in message(world)
    assert "other/orders" in message(world)


async def test_an_audience_asked_for_before_its_service_came_is_lost_to_the_service() -> None:
    world = World()
    world.add(service_client("shop", scopes=["write"], audience=AUDIENCE))
    await world.settle()
    assert held(world) == ({"write"}, {AUDIENCE})

    protect_elsewhere(world)
    await world.settle()

    assert held(world) == ({"write"}, set())
    assert world.condition("orders", "Ready", "other") == ("True", "Ready")

    world.cluster.remove(PROTECTED_SERVICE, "other", "orders")
    await world.settle()
    assert held(world) == ({"write"}, {AUDIENCE})


async def test_a_service_of_ones_own_that_claims_anothers_audience_gives_nothing() -> None:
    world = World()
    world.add(protected_service("victim", "other", scopes=["write"], audience=AUDIENCE))
    await world.settle()
    world.add(protected_service("decoy", "tenant", scopes=["write"], audience=AUDIENCE))
    world.add(service_client("shop", services=[{"name": "decoy"}]))
    await world.settle()

    assert client(world) is None
    assert told(world, "ServicesAllowed") == ("False", "AudienceTaken")
    assert "other/victim" in message(world)


async def test_no_label_of_the_object_itself_is_taken_for_its_namespaces() -> None:
    world = World()
    protect_elsewhere(world, allowedClients=SHOPS)
    body = service_client("shop", services=CALL)
    body["metadata"]["labels"] = {"team": "shops", "kubernetes.io/metadata.name": "other"}
    world.add(body)
    await world.settle()

    assert client(world) is None


async def test_no_credential_stands_in_status_events_or_conditions() -> None:
    world = await calling()
    edit_service(world, allowedClients=SHOPS)
    await world.settle()
    edit_service(world, allowedClients=SAME)
    await world.settle()

    shown = str(world.cluster.objects(SERVICE_CLIENT)) + str(world.events())
    assert world.server.secrets_ever
    assert not [secret for secret in world.server.secrets_ever if secret in shown]
