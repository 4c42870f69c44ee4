"""Registering, changing and removing clients, at a server with a memory and with bad days."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.errors import AdministratorMustAct, Outcome, ServerUnavailable
from protectedservice_operator.registration.driver import (
    AttemptSpent,
    Capabilities,
    ClientGone,
    ClientMetadata,
    Driver,
    HandleRefused,
    MetadataRejected,
    RegisteredOtherwise,
    Registration,
    RegistrationRefused,
)
from protectedservice_operator.registration.dynamic import DynamicClientRegistration
from protectedservice_operator.registration.remote import Remote

from ...support.fake_authorization_server import FakeAuthorizationServer, Operation, Seen
from .told import assert_untold, log_of, told

ISSUER = "https://authorization-server.test"
ENDPOINTS = Endpoints(
    token=f"{ISSUER}/oauth/token", introspection=f"{ISSUER}/oauth/introspect", registration=f"{ISSUER}/oauth/register"
)
METADATA = ClientMetadata("c/ns/orders/uid/0a1b2c3d", ("read", "write"), audiences=("https://orders.example",))
TEXT = {"content-type": "text/plain"}
FEWER = replace(METADATA, scopes=("read",))


@pytest.fixture
def server() -> FakeAuthorizationServer:
    return FakeAuthorizationServer(issuer=ISSUER)


@pytest.fixture
async def remote(server: FakeAuthorizationServer) -> AsyncIterator[Remote]:
    remote = Remote("AuthorizationServer ns/as", transport=server.transport())
    yield remote
    await remote.aclose()


@pytest.fixture
def driver(server: FakeAuthorizationServer, remote: Remote) -> DynamicClientRegistration:
    return DynamicClientRegistration(remote, ENDPOINTS, server.initial_access_token, idempotency_honoured=True)


def answer(server: FakeAuthorizationServer, operation: Operation, status: int, body: Mapping[str, object]) -> None:
    server.fail_on(operation, status=status, body=json.dumps(body).encode())


# Registering


async def test_a_client_is_registered_with_exactly_what_was_asked(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    registration = await driver.register(METADATA, "attempt-1")
    client = server.clients[registration.client_id]

    assert client.metadata == {
        "client_name": METADATA.client_name,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "token_endpoint_auth_method": "client_secret_basic",
        "scope": "read write",
        "audience": ["https://orders.example"],
    }
    assert registration == Registration(
        client_id=client.client_id,
        client_secret=client.client_secret,
        registration_client_uri=f"{ISSUER}/oauth/register/{client.client_id}",
        registration_access_token=client.registration_token,
    )
    assert server.requests == [Seen(Operation.REGISTER, None, "attempt-1", 201)]


async def test_no_audience_is_not_sent(server: FakeAuthorizationServer, driver: Driver) -> None:
    registration = await driver.register(replace(METADATA, audiences=()), "attempt")

    assert "audience" not in server.clients[registration.client_id].metadata


async def test_the_last_newline_of_a_token_file_does_no_harm(server: FakeAuthorizationServer, remote: Remote) -> None:
    driver = DynamicClientRegistration(remote, ENDPOINTS, server.initial_access_token + "\n")
    await driver.register(METADATA, "attempt")

    assert server.created_total == 1


@pytest.mark.parametrize("token", ["", " ", "two words", "line\nbreak", "schlüssel"])
async def test_a_token_that_cannot_be_sent_refuses_registrations_only_and_stays_unquoted(
    token: str, remote: Remote, server: FakeAuthorizationServer
) -> None:
    driver = DynamicClientRegistration(remote, ENDPOINTS, token)

    with pytest.raises(AdministratorMustAct, match="correct the Secret") as caught:
        await driver.register(METADATA, "attempt")

    assert caught.value.reason == "RegistrationRefused"
    assert server.requests == []
    if token.strip():
        assert token not in told(caught.value)


def test_without_a_registration_endpoint_there_is_no_driver(remote: Remote) -> None:
    with pytest.raises(AdministratorMustAct, match=r"spec\.endpoints\.registration"):
        DynamicClientRegistration(remote, Endpoints(), "token")


async def test_a_lost_answer_is_uncertain_and_the_same_attempt_gets_the_same_client(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    server.fail_on(Operation.REGISTER, status=None, after_effect=True)
    with pytest.raises(ServerUnavailable) as caught:
        await driver.register(METADATA, "attempt")
    assert caught.value.uncertain is True

    registration = await driver.register(METADATA, "attempt")

    assert list(server.clients) == [registration.client_id]
    assert server.created_total == 1


async def test_a_server_that_ignores_the_key_makes_a_second_client(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    server.idempotency_honoured = False
    server.fail_on(Operation.REGISTER, status=502, after_effect=True)
    with pytest.raises(ServerUnavailable):
        await driver.register(METADATA, "attempt")
    await driver.register(METADATA, "attempt")

    assert server.created_total == 2


async def test_nothing_is_uncertain_about_a_server_that_is_down(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    server.down = True
    with pytest.raises(ServerUnavailable) as caught:
        await driver.register(METADATA, "attempt")

    assert caught.value.uncertain is False


async def test_an_attempt_used_with_other_metadata_is_spent(server: FakeAuthorizationServer, driver: Driver) -> None:
    await driver.register(METADATA, "attempt")
    with pytest.raises(AttemptSpent):
        await driver.register(FEWER, "attempt")

    assert server.created_total == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_initial_access_token_names_the_secret_to_correct(
    status: int, server: FakeAuthorizationServer, driver: Driver
) -> None:
    answer(server, Operation.REGISTER, status, {"error": "invalid_token"})
    with pytest.raises(RegistrationRefused) as caught:
        await driver.register(METADATA, "attempt")

    assert caught.value.reason == "RegistrationRefused"
    assert "credentialsSecret" in caught.value.message
    assert "invalid_token" in caught.value.message


async def test_a_changed_initial_access_token_is_refused_until_it_is_corrected(
    server: FakeAuthorizationServer, remote: Remote, driver: Driver
) -> None:
    server.initial_access_token = "another-token"
    with pytest.raises(RegistrationRefused):
        await driver.register(METADATA, "attempt")

    corrected = DynamicClientRegistration(remote, ENDPOINTS, "another-token")
    await corrected.register(METADATA, "attempt")

    assert server.created_total == 1


async def test_an_unknown_scope_is_the_users_to_edit(server: FakeAuthorizationServer, driver: Driver) -> None:
    with pytest.raises(MetadataRejected, match="Unknown scope: fly") as caught:
        await driver.register(replace(METADATA, scopes=("fly",)), "attempt")

    assert caught.value.reason == "InvalidClientMetadata"
    assert not isinstance(caught.value, RegisteredOtherwise)
    assert server.created_total == 0


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(400, {"error": "invalid_client_metadata"}, MetadataRejected, id="400 with an OAuth error"),
        pytest.param(413, {"error": "too_large"}, MetadataRejected, id="413 with an error"),
        pytest.param(422, {"error": "invalid_scope"}, MetadataRejected, id="422 with an error"),
        pytest.param(400, {}, AdministratorMustAct, id="400 without: a proxy's or a framework's, ALLOWED_HOSTS"),
        pytest.param(404, {}, AdministratorMustAct, id="404: no registration here"),
        pytest.param(405, {}, AdministratorMustAct, id="405: another endpoint"),
        pytest.param(415, {}, AdministratorMustAct, id="415: another endpoint"),
        pytest.param(409, {}, ServerUnavailable, id="409: still at work on the first request with this key"),
        pytest.param(409, {"error": "idempotency_key_unreadable"}, AttemptSpent, id="409 for good"),
        pytest.param(422, {"error": "idempotency_key_reused"}, AttemptSpent, id="422 about the key"),
    ],
)
@pytest.mark.parametrize("operation", [Operation.REGISTER, Operation.UPDATE])
async def test_other_refusals(
    operation: Operation,
    status: int,
    body: Mapping[str, object],
    expected: type[Exception],
    server: FakeAuthorizationServer,
    driver: Driver,
) -> None:
    registration = await driver.register(METADATA, "attempt-1")
    answer(server, operation, status, body)
    if operation is Operation.UPDATE and status == 404:
        expected = ClientGone
    call = driver.register(METADATA, "attempt-2")
    if operation is Operation.UPDATE:
        call.close()
        call = driver.update(registration, FEWER, "attempt-2")
    with pytest.raises(expected):
        await call


async def test_other_scopes_than_asked_are_told_and_the_client_is_not_lost(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    server.granted_scope = lambda _: "read profile"
    with pytest.raises(RegisteredOtherwise, match="of read write it granted read;") as caught:
        await driver.register(METADATA, "attempt")

    assert caught.value.reason == "ScopeNotGranted"
    assert list(server.clients) == [caught.value.registration.client_id]
    await driver.delete(caught.value.registration)
    assert server.clients == {}


async def test_scopes_in_another_order_are_the_same(server: FakeAuthorizationServer, driver: Driver) -> None:
    server.granted_scope = lambda asked: " ".join(reversed(asked.split()))
    await driver.register(METADATA, "attempt")

    assert server.created_total == 1


async def test_scopes_that_are_not_echoed_say_nothing(server: FakeAuthorizationServer, driver: Driver) -> None:
    server.echoes_scope = False
    await driver.register(METADATA, "attempt")

    assert server.created_total == 1


async def test_a_client_without_a_secret_is_told_and_can_be_deleted(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    body = {"client_id": "public", "registration_client_uri": f"{ISSUER}/oauth/register/public"}
    answer(server, Operation.REGISTER, 201, body | {"registration_access_token": "t"})
    with pytest.raises(RegisteredOtherwise, match="without a client_secret") as caught:
        await driver.register(METADATA, "attempt")

    assert caught.value.registration.client_id == "public"
    assert caught.value.registration.registration_access_token == "t"


@pytest.mark.parametrize("client_id", [None, "", 5, "line\nbreak"])
async def test_an_answer_without_a_client_id_is_none(
    client_id: object, server: FakeAuthorizationServer, driver: Driver
) -> None:
    answer(server, Operation.REGISTER, 201, {"client_id": client_id, "client_secret": "s"})
    with pytest.raises(ServerUnavailable) as caught:
        await driver.register(METADATA, "attempt")

    assert caught.value.uncertain is True


async def test_a_secret_that_expires_is_warned_about_without_the_secret(
    server: FakeAuthorizationServer, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    answer(
        server,
        Operation.REGISTER,
        201,
        {"client_id": "c", "client_secret": "hunter2", "client_secret_expires_at": 2_000_000_000},
    )
    await driver.register(METADATA, "attempt")

    assert "secret of client c expires at 2000000000" in caplog.text
    assert "hunter2" not in caplog.text


# The handle


@pytest.mark.parametrize(
    ("uri", "stored"),
    [
        pytest.param(f"{ISSUER}/oauth/register/x", f"{ISSUER}/oauth/register/x", id="our origin"),
        pytest.param("https://evil.test/steal?x=1", f"{ISSUER}/steal?x=1", id="a foreign origin"),
        pytest.param("http://authorization-server.test/r/x/", f"{ISSUER}/r/x/", id="the scheme behind a proxy"),
        pytest.param("http://localhost:8000/r/x", f"{ISSUER}/r/x", id="localhost"),
        pytest.param("https://u:p@evil.test/r", f"{ISSUER}/r", id="user information"),
        pytest.param("//evil.test/r/x", f"{ISSUER}/r/x", id="a foreign host without a scheme"),
        pytest.param("https:////evil.test/r", f"{ISSUER}//evil.test/r", id="slashes that hide a host"),
        pytest.param("/r/x", f"{ISSUER}/r/x", id="a path"),
        pytest.param("https://[evil/r", None, id="no URL"),
        pytest.param("https://evil.test/a b", None, id="a blank in it"),
        pytest.param(5, None, id="no string"),
        pytest.param(None, None, id="absent"),
    ],
)
async def test_the_registration_token_goes_nowhere_but_to_the_configured_origin(
    uri: object, stored: str | None, server: FakeAuthorizationServer, driver: Driver
) -> None:
    body = {"client_id": "c", "client_secret": "s", "registration_access_token": "t", "registration_client_uri": uri}
    answer(server, Operation.REGISTER, 201, body)

    assert (await driver.register(METADATA, "attempt")).registration_client_uri == stored


async def test_a_handle_in_the_ledger_is_brought_home_too(server: FakeAuthorizationServer, driver: Driver) -> None:
    registration = await driver.register(METADATA, "attempt")
    strayed = replace(
        registration, registration_client_uri=f"https://evil.test/oauth/register/{registration.client_id}"
    )
    await driver.delete(strayed)

    assert server.deleted_total == 1


async def test_a_server_behind_another_name_is_managed_all_the_same(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    server.client_uri_base = "http://10.0.0.1:8000"
    registration = await driver.register(METADATA, "attempt")
    await driver.update(registration, FEWER, "attempt-2")

    assert server.clients[registration.client_id].scopes == {"read"}


# Changing


async def test_an_update_replaces_metadata_and_handle_and_keeps_the_secret(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    first = await driver.register(METADATA, "attempt-1")
    second = await driver.update(first, FEWER, "attempt-2")
    client = server.clients[first.client_id]

    assert client.scopes == {"read"}
    assert second == replace(first, registration_access_token=client.registration_token)
    assert second.registration_access_token != first.registration_access_token
    assert server.requests[-1] == Seen(Operation.UPDATE, first.client_id, "attempt-2", 200)


async def test_an_update_whose_answer_brings_a_new_secret_gives_it(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    first = await driver.register(METADATA, "attempt-1")
    answer(server, Operation.UPDATE, 200, {"client_id": first.client_id, "client_secret": "new"})
    second = await driver.update(first, FEWER, "attempt-2")

    assert second == replace(first, client_secret="new")


async def test_an_update_that_grants_other_scopes_gives_the_new_handle_with_the_error(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    first = await driver.register(METADATA, "attempt-1")
    server.granted_scope = lambda _: "write"
    with pytest.raises(RegisteredOtherwise, match="granted none") as caught:
        await driver.update(first, FEWER, "attempt-2")

    handle = caught.value.registration
    assert handle.registration_access_token == server.clients[first.client_id].registration_token
    assert handle.client_secret == first.client_secret


async def test_an_answer_about_another_client_is_none(server: FakeAuthorizationServer, driver: Driver) -> None:
    first = await driver.register(METADATA, "attempt-1")
    answer(server, Operation.UPDATE, 200, {"client_id": "somebody-else", "client_secret": "x"})
    with pytest.raises(ServerUnavailable):
        await driver.update(first, FEWER, "attempt-2")


async def test_a_lost_answer_to_an_update_leaves_a_stale_handle_unless_the_attempt_is_repeated(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    first = await driver.register(METADATA, "attempt-1")
    server.fail_on(Operation.UPDATE, status=None, after_effect=True)
    with pytest.raises(ServerUnavailable) as caught:
        await driver.update(first, FEWER, "attempt-2")
    assert caught.value.uncertain is True

    with pytest.raises(HandleRefused):
        await driver.update(first, FEWER, "attempt-3")
    second = await driver.update(first, FEWER, "attempt-2")
    await driver.delete(second)

    assert server.clients == {}


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        pytest.param(401, {}, b"{}", HandleRefused, id="401: gone or stale"),
        pytest.param(403, {}, b"", HandleRefused, id="403"),
        pytest.param(404, {}, b'{"error": "not_found"}', ClientGone, id="404 of the server itself"),
        pytest.param(404, {}, b"", HandleRefused, id="404 without a word"),
        pytest.param(404, TEXT, b"default backend - 404", AdministratorMustAct, id="404 of an ingress"),
        pytest.param(403, TEXT, b"forbidden", AdministratorMustAct, id="403 of an ingress"),
        pytest.param(401, {"content-type": "text/html; charset=utf-8"}, b"<html>", AdministratorMustAct, id="a login"),
        pytest.param(410, {}, b"", ClientGone, id="410"),
    ],
)
async def test_what_a_refusal_at_the_clients_uri_means(
    status: int,
    headers: dict[str, str],
    body: bytes,
    expected: type[Exception],
    server: FakeAuthorizationServer,
    driver: Driver,
) -> None:
    registration = await driver.register(METADATA, "attempt-1")
    server.fail_on(Operation.UPDATE, status=status, headers=headers, body=body)
    server.fail_on(Operation.DELETE, status=status, headers=headers, body=body)
    with pytest.raises(expected):
        await driver.update(registration, FEWER, "attempt-2")

    if expected is ClientGone:
        await driver.delete(registration)
    else:
        with pytest.raises(expected):
            await driver.delete(registration)


# Removing


async def test_a_deleted_client_is_gone_and_a_second_delete_is_refused(
    server: FakeAuthorizationServer, driver: Driver
) -> None:
    registration = await driver.register(METADATA, "attempt")
    await driver.delete(registration)
    assert (server.clients, server.deleted_total) == ({}, 1)

    with pytest.raises(HandleRefused):
        await driver.delete(registration)


async def test_a_server_that_does_not_delete_needs_a_person(server: FakeAuthorizationServer, driver: Driver) -> None:
    registration = await driver.register(METADATA, "attempt")
    answer(server, Operation.DELETE, 405, {})
    with pytest.raises(AdministratorMustAct, match=f"client {registration.client_id}.*delete it by hand"):
        await driver.delete(registration)


async def test_a_server_that_only_registers_gives_no_handle(server: FakeAuthorizationServer, driver: Driver) -> None:
    server.manages_clients = False
    registration = await driver.register(METADATA, "attempt")
    assert registration.registration_client_uri is None

    for call in (driver.delete(registration), driver.update(registration, FEWER, "attempt-2")):
        with pytest.raises(HandleRefused, match="no configuration endpoint"):
            await call
    assert server.count(Operation.DELETE) == server.count(Operation.UPDATE) == 0


# Capabilities


async def test_management_is_published_once_it_was_shown(server: FakeAuthorizationServer, driver: Driver) -> None:
    assert driver.capabilities == Capabilities(register=True, idempotent_register=True)

    await driver.register(METADATA, "attempt")
    assert driver.capabilities == Capabilities(
        register=True, idempotent_register=True, read=True, update=True, delete=True
    )


async def test_a_server_that_only_registers_is_published_as_such(
    server: FakeAuthorizationServer, remote: Remote
) -> None:
    server.manages_clients = False
    driver = DynamicClientRegistration(remote, ENDPOINTS, server.initial_access_token, manages_clients=True)
    await driver.register(METADATA, "attempt")

    assert driver.capabilities == Capabilities(register=True)


def test_what_was_known_and_what_discovery_found_is_published(remote: Remote) -> None:
    endpoints = replace(ENDPOINTS, revocation=f"{ISSUER}/revoke", jwks=f"{ISSUER}/jwks")
    driver = DynamicClientRegistration(remote, endpoints, "token", manages_clients=True)

    assert driver.capabilities == Capabilities(
        register=True, read=True, update=True, delete=True, revocation=True, jwks=True
    )


# Secrets


@pytest.mark.parametrize("operation", [Operation.REGISTER, Operation.UPDATE, Operation.DELETE])
@pytest.mark.parametrize("status", [None, 200, 302, 400, 401, 404, 405, 409, 422, 503])
async def test_a_server_that_repeats_what_it_was_sent_gets_no_secret_into_errors_or_logs(
    operation: Operation,
    status: int | None,
    server: FakeAuthorizationServer,
    driver: Driver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    registration = await driver.register(METADATA, "attempt-1")
    sent = [server.initial_access_token]
    if operation is not Operation.REGISTER:
        sent += [str(registration.registration_access_token), registration.client_secret]
    echo = f"you sent {' and '.join(sent)}"
    body = json.dumps({"error": sent[-1], "error_description": echo, "client_secret": sent[-1]}).encode()
    server.fail_on(operation, status=status, times=None, body=body)

    async def call() -> BaseException | None:
        try:
            match operation:
                case Operation.REGISTER:
                    await driver.register(METADATA, "attempt-2")
                case Operation.UPDATE:
                    await driver.update(registration, FEWER, "attempt-2")
                case _:
                    await driver.delete(registration)
        except (Outcome, AttemptSpent, HandleRefused, ClientGone) as error:
            return error
        return None

    error = await call()

    assert (error is None) is (operation is Operation.DELETE and status in (200, 404))
    assert_untold(server.secrets_ever, told(error) if error else "", log_of(caplog), repr(registration))
