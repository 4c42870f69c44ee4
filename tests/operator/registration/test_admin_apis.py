"""Hydra's and Keycloak's admin APIs on bad days: what is refused, what is repeated, and what nobody may read."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from protectedservice_operator import reasons
from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.errors import AdministratorMustAct, Outcome, ServerUnavailable
from protectedservice_operator.registration.credential import Credential
from protectedservice_operator.registration.driver import (
    ClientGone,
    ClientIdTaken,
    ClientMetadata,
    Driver,
    MetadataRejected,
    Registration,
    RegistrationRefused,
)
from protectedservice_operator.registration.hydra import HydraAdmin
from protectedservice_operator.registration.keycloak import KeycloakAdmin
from protectedservice_operator.registration.remote import Remote

from ...support.fake_authorization_server import FakeAuthorizationServer, Operation
from ...support.fake_hydra import FakeHydra
from ...support.fake_keycloak import FakeKeycloak
from .clock import FakeClock
from .told import assert_untold, log_of, told

METADATA = ClientMetadata(
    "Orders [c/ns/orders/uid/0a1b2c3d]", ("read",), ("https://orders.example",), tag="c/ns/orders/uid/0a1b2c3d"
)
CHOSEN = Registration("psvc-uid-0a1b2c3d", "the client's secret")
TEXT = {"content-type": "text/html"}


@dataclass
class Case:
    server: FakeAuthorizationServer
    driver: Driver


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["hydra", "keycloak"])
async def case(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncIterator[Case]:
    if request.param == "hydra":
        hydra = FakeHydra(now=clock)
        remote = Remote("AuthorizationServer ns/as", transport=hydra.transport())
        yield Case(hydra, HydraAdmin(remote, Endpoints(), hydra.admin_url, Credential()))
    else:
        keycloak = FakeKeycloak(now=clock)
        remote = Remote("AuthorizationServer ns/as", transport=keycloak.transport())
        yield Case(keycloak, keycloak_driver(keycloak, remote, clock))
    await remote.aclose()


def keycloak_driver(server: FakeKeycloak, remote: Remote, clock: FakeClock) -> KeycloakAdmin:
    client_id, client_secret = server.service_account
    credential = Credential(client_id=client_id, client_secret=client_secret)
    return KeycloakAdmin(remote, Endpoints(), server.admin_url, server.realm, credential, clock=clock)


@pytest.fixture
async def keycloak(clock: FakeClock) -> AsyncIterator[tuple[FakeKeycloak, KeycloakAdmin]]:
    server = FakeKeycloak(now=clock)
    remote = Remote("AuthorizationServer ns/as", transport=server.transport())
    yield server, keycloak_driver(server, remote, clock)
    await remote.aclose()


async def test_a_repeated_registration_makes_one_client_and_gives_it_the_last_metadata(case: Case) -> None:
    await case.driver.register(METADATA, "attempt", CHOSEN)
    again = await case.driver.register(replace(METADATA, scopes=("write",)), "attempt", CHOSEN)

    assert again == CHOSEN
    assert case.server.created_total == 1
    assert case.server.clients[CHOSEN.client_id].scopes == {"write"}
    assert case.server.clients[CHOSEN.client_id].client_secret == CHOSEN.client_secret


async def test_what_another_attempt_of_the_same_object_made_is_taken_over(case: Case) -> None:
    await case.driver.register(METADATA, "attempt", CHOSEN)
    later = replace(METADATA, scopes=("write",), tag="c/ns/orders/uid/ffffffff")
    await case.driver.register(later, "later", replace(CHOSEN, client_secret="another secret"))

    assert case.server.created_total == 1
    assert case.server.clients[CHOSEN.client_id].client_secret == "another secret"


@pytest.mark.parametrize("tag", ["", "c/ns/orders/another-uid/0a1b2c3d"])
async def test_a_client_of_the_same_id_that_is_somebody_elses_is_not_overwritten(case: Case, tag: str) -> None:
    theirs = replace(CHOSEN, client_secret="their secret")
    await case.driver.register(replace(METADATA, tag=tag), "theirs", theirs)
    with pytest.raises(ClientIdTaken) as taken:
        await case.driver.register(replace(METADATA, scopes=("write",)), "ours", CHOSEN)

    assert taken.value.reason == reasons.CLIENT_ID_TAKEN
    assert case.server.clients[CHOSEN.client_id].client_secret == "their secret"
    assert case.server.clients[CHOSEN.client_id].scopes == {"read"}
    assert case.server.created_total == 1
    assert_untold(("another-uid", "their secret", CHOSEN.client_secret), told(taken.value))


async def test_an_update_puts_the_secret_right_too(case: Case) -> None:
    await case.driver.register(METADATA, "attempt", CHOSEN)
    case.server.clients[CHOSEN.client_id].client_secret = "somebody changed it"
    await case.driver.update(CHOSEN, METADATA, "attempt")

    assert case.server.clients[CHOSEN.client_id].client_secret == CHOSEN.client_secret


async def test_a_client_that_is_gone_is_told_by_an_update_and_done_for_a_deletion(case: Case) -> None:
    await case.driver.register(METADATA, "attempt", CHOSEN)
    await case.driver.delete(CHOSEN)

    await case.driver.delete(CHOSEN)
    with pytest.raises(ClientGone):
        await case.driver.update(CHOSEN, METADATA, "attempt")
    assert case.server.deleted_total == 1


async def test_without_an_id_nothing_is_sent(case: Case) -> None:
    with pytest.raises(ValueError, match="ids that the operator chooses"):
        await case.driver.register(METADATA, "attempt")

    assert case.server.requests == []


@pytest.mark.parametrize(
    ("status", "body", "headers", "outcome"),
    [
        pytest.param(400, b'{"error": "invalid"}', {}, MetadataRejected, id="the metadata are refused"),
        pytest.param(400, b"<html>", TEXT, AdministratorMustAct, id="a page instead of the admin API"),
        pytest.param(404, b"<html>", TEXT, AdministratorMustAct, id="nothing at that address"),
        pytest.param(403, b'{"error": "forbidden"}', {}, RegistrationRefused, id="the account may not"),
        pytest.param(302, b"", {"location": "https://elsewhere.test"}, ServerUnavailable, id="a redirect"),
        pytest.param(503, b"busy", TEXT, ServerUnavailable, id="down"),
    ],
)
async def test_each_refusal_is_an_outcome_that_names_the_server_and_no_secret(
    case: Case,
    status: int,
    body: bytes,
    headers: dict[str, str],
    outcome: type[Outcome],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    case.server.fail_on(Operation.REGISTER, status=status, body=body, headers=headers, times=None)
    with pytest.raises(outcome) as caught:
        await case.driver.register(METADATA, "attempt", CHOSEN)

    assert "AuthorizationServer ns/as" in caught.value.message
    assert_untold([CHOSEN.client_secret, *case.server.secrets_ever], told(caught.value), log_of(caplog))


async def test_a_server_that_repeats_what_it_was_sent_gets_no_secret_into_a_message(case: Case) -> None:
    said = {"error": "invalid", "error_description": f"no {CHOSEN.client_secret} here"}
    case.server.fail_on(Operation.REGISTER, status=400, body=json.dumps(said).encode())
    with pytest.raises(MetadataRejected, match=r"\[removed\]") as caught:
        await case.driver.register(METADATA, "attempt", CHOSEN)

    assert_untold([CHOSEN.client_secret], told(caught.value))


async def test_a_page_instead_of_a_404_costs_no_client(case: Case) -> None:
    await case.driver.register(METADATA, "attempt", CHOSEN)
    for operation in (Operation.READ, Operation.UPDATE, Operation.DELETE):
        case.server.fail_on(operation, status=404, body=b"<html>", headers=TEXT)
    with pytest.raises(AdministratorMustAct):
        await case.driver.update(CHOSEN, METADATA, "attempt")
    with pytest.raises(AdministratorMustAct):
        await case.driver.delete(CHOSEN)

    assert CHOSEN.client_id in case.server.clients


# Hydra


@pytest.mark.parametrize(
    ("credential", "sent"),
    [
        (Credential(token="t0ken"), "Bearer t0ken"),
        (Credential(client_id="a", client_secret="b+c"), "Basic YTpiJTJCYw=="),
        (Credential(username="u", password="p"), "Basic dTpw"),
    ],
    ids=["token", "client", "user"],
)
async def test_a_proxy_in_front_of_hydra_is_shown_the_credential(credential: Credential, sent: str) -> None:
    server = FakeHydra()
    server.proxy_authorization = sent
    remote = Remote("AuthorizationServer ns/as", transport=server.transport())
    await HydraAdmin(remote, Endpoints(), server.admin_url, credential).register(METADATA, "attempt", CHOSEN)
    with pytest.raises(RegistrationRefused, match="credentialsSecret"):
        await HydraAdmin(remote, Endpoints(), server.admin_url, Credential()).register(METADATA, "attempt", CHOSEN)
    await remote.aclose()

    assert list(server.clients) == [CHOSEN.client_id]


def test_a_token_that_no_header_can_hold_is_told_without_it() -> None:
    token = " ".join(("two", "words"))  # a traceback quotes this file
    with pytest.raises(AdministratorMustAct, match="key `token`") as caught:
        HydraAdmin(Remote("as"), Endpoints(), "https://hydra.example", Credential(token=token))

    assert_untold([token], told(caught.value))


async def test_hydra_s_client_carries_its_tag_and_its_audiences() -> None:
    server = FakeHydra()
    remote = Remote("as", transport=server.transport())
    wanted = replace(METADATA, audiences=(*METADATA.audiences, "urn:stock"))
    await HydraAdmin(remote, Endpoints(), f"{server.admin_url}/", Credential()).register(wanted, "attempt", CHOSEN)
    await remote.aclose()
    metadata = server.clients[CHOSEN.client_id].metadata

    assert metadata["metadata"] == {"protectedservice.dev/tag": METADATA.tag}
    assert metadata["audience"] == ["https://orders.example", "urn:stock"]
    assert metadata["grant_types"] == ["client_credentials"]


# Keycloak


async def test_the_administrator_s_token_is_kept_until_shortly_before_its_end(
    keycloak: tuple[FakeKeycloak, KeycloakAdmin], clock: FakeClock
) -> None:
    server, driver = keycloak
    await driver.register(METADATA, "attempt", CHOSEN)
    clock.now += 49
    await driver.update(CHOSEN, METADATA, "attempt")

    assert server.logins == 1

    clock.now += 2
    await driver.update(CHOSEN, METADATA, "attempt")
    assert server.logins == 2


async def test_a_token_that_ends_early_is_replaced_once(keycloak: tuple[FakeKeycloak, KeycloakAdmin]) -> None:
    server, driver = keycloak
    await driver.register(METADATA, "attempt", CHOSEN)
    server.admin_tokens.clear()
    await driver.update(CHOSEN, METADATA, "attempt")

    assert server.logins == 2

    server.fail_on(Operation.READ, status=401, body=b'{"error": "HTTP 401 Unauthorized"}', times=None)
    with pytest.raises(RegistrationRefused, match="manage-clients"):
        await driver.update(CHOSEN, METADATA, "attempt")
    assert server.logins == 3


async def test_a_wrong_credential_is_told_as_such(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = FakeKeycloak(now=clock)
    remote = Remote("as", transport=server.transport())
    credential = Credential(username="admin", password="not the password")
    driver = KeycloakAdmin(remote, Endpoints(), server.admin_url, server.realm, credential)
    with pytest.raises(RegistrationRefused, match="realm master gave the operator no token") as caught:
        await driver.register(METADATA, "attempt", CHOSEN)
    await remote.aclose()

    assert_untold(["not the password"], told(caught.value), log_of(caplog), repr(credential))


async def test_a_scope_that_the_realm_does_not_have_is_named_before_anything_is_made(
    keycloak: tuple[FakeKeycloak, KeycloakAdmin],
) -> None:
    server, driver = keycloak
    before = set(server.client_scopes)
    with pytest.raises(AdministratorMustAct, match="realm shop has no client scope admin, audit: create it") as caught:
        await driver.register(replace(METADATA, scopes=("read", "admin", "audit")), "attempt", CHOSEN)

    assert caught.value.reason == reasons.CLIENT_SCOPE_MISSING
    assert server.clients == {}
    assert set(server.client_scopes) == before


async def test_scopes_and_audience_follow_an_update(keycloak: tuple[FakeKeycloak, KeycloakAdmin]) -> None:
    server, driver = keycloak
    await driver.register(METADATA, "attempt", CHOSEN)
    other = replace(METADATA, scopes=("write",), audiences=("https://other.example",))
    await driver.update(CHOSEN, other, "attempt")
    realm = server.realm_clients[CHOSEN.client_id]

    assert realm.optional == {"write"}
    assert server.client_scopes[CHOSEN.client_id].audiences == {CHOSEN.client_id, "https://other.example"}

    await driver.update(CHOSEN, replace(other, audiences=()), "attempt")
    assert server.client_scopes[CHOSEN.client_id].audiences == {CHOSEN.client_id}


async def test_several_audiences_and_the_clients_that_introspect_are_all_named_and_taken_away_one_by_one(
    keycloak: tuple[FakeKeycloak, KeycloakAdmin],
) -> None:
    server, driver = keycloak
    both = replace(METADATA, audiences=("urn:a", "urn:b"), peers=("psvc-one", "psvc-two"))
    await driver.register(both, "attempt", CHOSEN)

    assert server.client_scopes[CHOSEN.client_id].audiences == {
        CHOSEN.client_id, "urn:a", "urn:b", "psvc-one", "psvc-two",
    }  # fmt: skip

    await driver.update(CHOSEN, replace(both, audiences=("urn:b",), peers=("psvc-two",)), "attempt")
    assert server.client_scopes[CHOSEN.client_id].audiences == {CHOSEN.client_id, "urn:b", "psvc-two"}


async def test_what_an_administrator_took_from_the_client_scope_comes_back(
    keycloak: tuple[FakeKeycloak, KeycloakAdmin],
) -> None:
    server, driver = keycloak
    await driver.register(METADATA, "attempt", CHOSEN)
    del server.client_scopes[CHOSEN.client_id]
    server.realm_clients[CHOSEN.client_id].default.clear()
    await driver.update(CHOSEN, METADATA, "attempt")

    assert server.client_scopes[CHOSEN.client_id].audiences == {CHOSEN.client_id, *METADATA.audiences}
    assert CHOSEN.client_id in server.realm_clients[CHOSEN.client_id].default


async def test_an_update_that_changes_nothing_asks_for_one_put(keycloak: tuple[FakeKeycloak, KeycloakAdmin]) -> None:
    server, driver = keycloak
    await driver.register(METADATA, "attempt", CHOSEN)
    before = server.count(Operation.UPDATE)
    await driver.update(CHOSEN, METADATA, "attempt")

    assert server.count(Operation.UPDATE) == before + 1


async def test_an_unknown_realm_is_the_administrator_s_to_correct(clock: FakeClock) -> None:
    server = FakeKeycloak(now=clock)
    server.fail_on(Operation.READ, status=404, body=b'{"error": "Realm not found."}')
    remote = Remote("as", transport=server.transport())
    driver = keycloak_driver(server, remote, clock)
    with pytest.raises(AdministratorMustAct, match=r"Realm not found.*correct spec\.registration\.keycloak"):
        await driver.register(METADATA, "attempt", CHOSEN)
    await remote.aclose()
