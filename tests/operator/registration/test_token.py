"""Tokens, their end, and the probe that tells a live client from a dead one."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping

import pytest

from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.errors import ServerUnavailable
from protectedservice_operator.registration.driver import ClientMetadata, ClientState, Registration
from protectedservice_operator.registration.dynamic import DynamicClientRegistration
from protectedservice_operator.registration.remote import Remote
from protectedservice_operator.registration.token import Token, TokenEndpoint, TokenRefused

from ...support.fake_authorization_server import FakeAuthorizationServer, Operation
from .told import assert_untold, log_of, told

ISSUER = "https://authorization-server.test"
ENDPOINTS = Endpoints(
    token=f"{ISSUER}/oauth/token",
    introspection=f"{ISSUER}/oauth/introspect",
    revocation=f"{ISSUER}/oauth/revoke",
    registration=f"{ISSUER}/oauth/register",
)
AUDIENCE = "https://orders.example"


@pytest.fixture
def server() -> FakeAuthorizationServer:
    return FakeAuthorizationServer(issuer=ISSUER)


@pytest.fixture
async def remote(server: FakeAuthorizationServer) -> AsyncIterator[Remote]:
    remote = Remote("AuthorizationServer ns/as", transport=server.transport())
    yield remote
    await remote.aclose()


@pytest.fixture
def tokens(remote: Remote) -> TokenEndpoint:
    return TokenEndpoint(remote, ENDPOINTS)


@pytest.fixture
async def client(server: FakeAuthorizationServer, remote: Remote) -> Registration:
    driver = DynamicClientRegistration(remote, ENDPOINTS, server.initial_access_token)
    return await driver.register(ClientMetadata("name", ("read", "write"), audiences=(AUDIENCE,)), "attempt")


async def mint(tokens: TokenEndpoint, client: Registration, *scopes: str, audience: str | None = None) -> Token:
    return await tokens.mint(client.client_id, client.client_secret, scopes or ("read",), audience)


def answer(server: FakeAuthorizationServer, operation: Operation, status: int, body: Mapping[str, object]) -> None:
    server.fail_on(operation, status=status, body=json.dumps(body).encode())


async def test_a_token_has_the_scopes_and_the_audience_that_were_asked_for(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    token = await mint(tokens, client, "read", "write", audience=AUDIENCE)
    issued = server.tokens[token.value]

    assert (issued.scope, issued.audience, token.expires_in) == ("read write", AUDIENCE, 300.0)
    assert token.value not in repr(token)


@pytest.mark.parametrize(
    ("scope", "audience", "code"),
    [
        pytest.param("admin", None, "invalid_scope", id="a scope that the client lacks"),
        pytest.param("read", "https://other.example", "invalid_target", id="an audience that it did not register"),
    ],
)
async def test_a_refused_token_request_says_which_oauth_error(
    scope: str, audience: str | None, code: str, tokens: TokenEndpoint, client: Registration
) -> None:
    with pytest.raises(TokenRefused) as caught:
        await mint(tokens, client, scope, audience=audience)

    assert (caught.value.status, caught.value.error) == (400, code)


async def test_a_wrong_secret_is_invalid_client(tokens: TokenEndpoint, client: Registration) -> None:
    with pytest.raises(TokenRefused) as caught:
        await tokens.mint(client.client_id, "wrong", ("read",))

    assert (caught.value.status, caught.value.error) == (401, "invalid_client")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="no access_token"),
        pytest.param({"access_token": "t\nX-Evil: 1", "token_type": "Bearer"}, id="no token that a header can hold"),
        pytest.param({"access_token": 5, "token_type": "Bearer"}, id="no string"),
        pytest.param({"access_token": "t"}, id="no token_type"),
        pytest.param({"access_token": "t", "token_type": "DPoP"}, id="another token_type"),
    ],
)
async def test_a_200_without_a_usable_bearer_token_is_no_answer(
    body: Mapping[str, object], server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    answer(server, Operation.TOKEN, 200, body)
    with pytest.raises(ServerUnavailable):
        await mint(tokens, client)


@pytest.mark.parametrize(
    ("told_lifetime", "expected"),
    [
        pytest.param(60, 60.0, id="a number"),
        pytest.param(None, None, id="not said"),
        pytest.param("60", None, id="a string"),
        pytest.param(-1, None, id="negative"),
        pytest.param(True, None, id="a boolean"),
    ],
)
async def test_expires_in(
    told_lifetime: object,
    expected: float | None,
    server: FakeAuthorizationServer,
    tokens: TokenEndpoint,
    client: Registration,
) -> None:
    answer(server, Operation.TOKEN, 200, {"access_token": "t", "token_type": "bearer", "expires_in": told_lifetime})

    assert (await mint(tokens, client)).expires_in == expected


async def test_a_revoked_token_is_not_active_any_more(tokens: TokenEndpoint, client: Registration) -> None:
    token = await mint(tokens, client)
    assert await tokens.introspect(client.client_id, client.client_secret, token.value) is True

    assert await tokens.revoke(client.client_id, client.client_secret, token.value) is True

    assert await tokens.introspect(client.client_id, client.client_secret, token.value) is False


async def test_without_a_revocation_endpoint_nothing_is_sent_and_false_says_so(
    server: FakeAuthorizationServer, remote: Remote
) -> None:
    tokens = TokenEndpoint(remote, Endpoints(token=ENDPOINTS.token))

    assert tokens.can_revoke is False
    assert await tokens.revoke("client", "secret", "token") is False
    assert server.requests == []


async def test_a_revocation_answered_200_is_done_whatever_the_body_says(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    """Keycloak answers 200 with {"error": "invalid_token"} about a token that it does not know."""
    answer(server, Operation.REVOKE, 200, {"error": "invalid_token"})

    assert await tokens.revoke(client.client_id, client.client_secret, "unknown") is True


async def test_a_refused_revocation_is_no_success(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    answer(server, Operation.REVOKE, 400, {"error": "unsupported_token_type"})
    with pytest.raises(TokenRefused, match="unsupported_token_type"):
        await tokens.revoke(client.client_id, client.client_secret, "a-token-of-another-kind")


@pytest.mark.parametrize("active", ["true", 1, None, [], {}])
async def test_an_introspection_without_a_boolean_is_no_answer(
    active: object, server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    answer(server, Operation.INTROSPECT, 200, {"active": active})
    with pytest.raises(ServerUnavailable):
        await tokens.introspect(client.client_id, client.client_secret, "token")


async def test_an_introspection_that_blames_the_token_means_inactive(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    answer(server, Operation.INTROSPECT, 400, {"error": "unsupported_token_type"})

    assert await tokens.introspect(client.client_id, client.client_secret, "eyJ.junk") is False


@pytest.mark.parametrize("status", [401, 403])
async def test_an_introspection_refused_to_the_client_says_nothing_about_the_token(
    status: int, server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    server.fail_on(Operation.INTROSPECT, status=status, body=b"")
    with pytest.raises(TokenRefused) as caught:
        await tokens.introspect(client.client_id, client.client_secret, "token")

    assert (caught.value.status, caught.value.error) == (status, None)


async def test_a_probe_of_a_live_client_leaves_no_token(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    assert await tokens.probe(client.client_id, client.client_secret) is ClientState.ALIVE
    assert server.tokens == {}


async def test_a_probe_of_a_lost_client_is_refused(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    server.lose_client(client.client_id)

    assert await tokens.probe(client.client_id, client.client_secret) is ClientState.REFUSED


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        pytest.param(400, {"error": "invalid_scope"}, ClientState.ALIVE, id="400 invalid_scope"),
        pytest.param(401, {"error": "invalid_client"}, ClientState.REFUSED, id="401 invalid_client"),
        pytest.param(401, {"error": "unauthorized_client"}, ClientState.REFUSED, id="Keycloak, wrong secret"),
        pytest.param(400, {"error": "invalid_client"}, ClientState.REFUSED, id="400 invalid_client"),
        pytest.param(400, {"error": "unauthorized_client"}, ClientState.UNKNOWN, id="known, but not for this grant"),
        pytest.param(400, {"error": "invalid_request"}, ClientState.UNKNOWN, id="another error"),
        pytest.param(401, {}, ClientState.UNKNOWN, id="401 without an error, as a proxy answers"),
        pytest.param(401, {"error": "invalid_token"}, ClientState.UNKNOWN, id="401 about something else"),
        pytest.param(403, {"error": "invalid_client"}, ClientState.UNKNOWN, id="403"),
        pytest.param(404, {}, ClientState.UNKNOWN, id="404"),
    ],
)
async def test_what_a_probe_makes_of_an_answer(
    status: int,
    body: Mapping[str, object],
    state: ClientState,
    server: FakeAuthorizationServer,
    tokens: TokenEndpoint,
    client: Registration,
) -> None:
    answer(server, Operation.TOKEN, status, body)

    assert await tokens.probe(client.client_id, client.client_secret) is state


async def test_a_probe_that_is_granted_its_scope_revokes_the_token_at_once(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    state = await tokens.probe(client.client_id, client.client_secret, absent_scope="read")

    assert state is ClientState.ALIVE
    assert [token.revoked for token in server.tokens.values()] == [True]


async def test_a_probe_whose_token_cannot_be_revoked_still_knows(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    server.fail_on(Operation.REVOKE, status=503)

    assert await tokens.probe(client.client_id, client.client_secret, absent_scope="read") is ClientState.ALIVE


async def test_an_outage_is_no_answer_to_a_probe(
    server: FakeAuthorizationServer, tokens: TokenEndpoint, client: Registration
) -> None:
    server.down = True
    with pytest.raises(ServerUnavailable):
        await tokens.probe(client.client_id, client.client_secret)


@pytest.mark.parametrize("operation", [Operation.TOKEN, Operation.INTROSPECT, Operation.REVOKE])
@pytest.mark.parametrize("status", [None, 200, 302, 400, 401, 503])
async def test_a_server_that_repeats_what_it_was_sent_gets_no_secret_into_errors_or_logs(
    operation: Operation,
    status: int | None,
    server: FakeAuthorizationServer,
    tokens: TokenEndpoint,
    client: Registration,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    token = (await mint(tokens, client)).value
    echo = f"you sent {client.client_secret}" + ("" if operation is Operation.TOKEN else f" and {token}")
    body = json.dumps({"error": client.client_secret, "error_description": echo, "access_token": [echo]}).encode()
    server.fail_on(operation, status=status, times=None, body=body)

    async def call() -> BaseException | None:
        try:
            match operation:
                case Operation.TOKEN:
                    await mint(tokens, client)
                case Operation.INTROSPECT:
                    await tokens.introspect(client.client_id, client.client_secret, token)
                case _:
                    await tokens.revoke(client.client_id, client.client_secret, token)
        except (TokenRefused, ServerUnavailable) as error:
            return error
        return None

    error = await call()

    assert (error is None) is ((operation, status) == (Operation.REVOKE, 200))
    assert_untold(server.secrets_ever, told(error) if error else "", log_of(caplog))


async def test_credentials_go_in_the_form_where_the_server_wants_them_there(
    server: FakeAuthorizationServer, remote: Remote, client: Registration, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.authentication_methods = {"client_secret_post"}
    by_post = TokenEndpoint(
        remote, ENDPOINTS, authentication="client_secret_post", introspection_authentication="client_secret_post"
    )
    credentials = (client.client_id, client.client_secret)
    token = await mint(by_post, client)

    assert await by_post.introspect(*credentials, token.value) is True
    assert await by_post.probe(*credentials) is ClientState.ALIVE
    assert await by_post.revoke(*credentials, token.value) is True
    assert await by_post.introspect(*credentials, token.value) is False
    with pytest.raises(TokenRefused, match="invalid_client"):
        await mint(TokenEndpoint(remote, ENDPOINTS), client)
    assert_untold([client.client_secret, token.value], log_of(caplog))


async def test_an_open_introspection_endpoint_is_told_nothing_but_the_token(
    server: FakeAuthorizationServer, remote: Remote, tokens: TokenEndpoint, client: Registration
) -> None:
    server.open_introspection = True
    token = await mint(tokens, client)
    silent = TokenEndpoint(remote, ENDPOINTS, introspection_authentication="none")

    assert await silent.introspect(client.client_id, client.client_secret, token.value) is True
    assert server.requests[-1].client_id is None


async def test_an_audience_is_asked_for_by_the_name_that_the_server_knows(
    server: FakeAuthorizationServer, remote: Remote, client: Registration
) -> None:
    server.audience_parameter = "audience"
    token = await mint(TokenEndpoint(remote, ENDPOINTS, audience_parameter="audience"), client, audience=AUDIENCE)
    without = await mint(TokenEndpoint(remote, ENDPOINTS), client, audience=AUDIENCE)

    assert server.tokens[token.value].audience == AUDIENCE
    assert server.tokens[without.value].audience is None
