"""RFC 7591 and RFC 7592 at the real server."""

from __future__ import annotations

from typing import Any

import pytest

from ..support.authorization_server_process import AuthorizationServerProcess, Client
from .caller import METADATA, Caller


def test_registration_answers_with_everything_rfc_7591_asks_for(
    server: AuthorizationServerProcess, caller: Caller
) -> None:
    response = caller.post_registration(scope="orders:read read", audience=["https://orders.example"])
    answer = response.json()

    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert len(answer.pop("client_secret")) >= 64
    assert len(answer.pop("registration_access_token")) >= 64
    assert answer.pop("client_id_issued_at") > 1_700_000_000
    client_id = answer.pop("client_id")
    assert answer.pop("registration_client_uri") == f"{server.issuer}/oauth/register/{client_id}"
    assert answer == METADATA | {
        "scope": "orders:read read",
        "audience": ["https://orders.example"],
        "client_secret_expires_at": 0,
    }
    assert server.clients()[-1] == Client(
        client_id, METADATA["client_name"], "orders:read read", ["https://orders.example"]
    )


def test_registered_method_client_secret_post_is_echoed(caller: Caller) -> None:
    answer = caller.register(token_endpoint_auth_method="client_secret_post")

    assert answer["token_endpoint_auth_method"] == "client_secret_post"


def test_registration_uri_ignores_a_forged_host(server: AuthorizationServerProcess, caller: Caller) -> None:
    headers = {"Authorization": f"Bearer {server.initial_access_token}", "Host": "evil.example"}
    answer = caller.request("POST", "/oauth/register", headers=headers, json=METADATA).json()

    assert answer["registration_client_uri"].startswith(f"{server.issuer}/oauth/register/")


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        pytest.param(None, "Bearer", id="no credentials: plain challenge"),
        pytest.param("Bearer wrong", 'Bearer error="invalid_token"', id="another token"),
        pytest.param("Bearer", 'Bearer error="invalid_token"', id="no token"),
        pytest.param("Bearer é", 'Bearer error="invalid_token"', id="token that is not ASCII"),
        pytest.param("Basic dTpw", 'Bearer error="invalid_token"', id="another scheme"),
    ],
)
def test_registration_without_the_initial_access_token_is_refused(
    server: AuthorizationServerProcess, caller: Caller, authorization: str | None, challenge: str
) -> None:
    before = server.client_count()
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    response = caller.request("POST", "/oauth/register", headers=headers, json=METADATA)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == challenge
    assert response.json()["error"] == "invalid_token"
    assert server.client_count() == before


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        pytest.param({"scope": "read launch"}, "launch", id="scope that the server does not offer"),
        pytest.param({"scope": "oauth2_provider:registration"}, "registration", id="scope that manages clients"),
        pytest.param({"scope": ["read"]}, "scope", id="scope as a list"),
        pytest.param({"grant_types": None}, "grant_types", id="no grant type means authorization_code"),
        pytest.param({"grant_types": ["authorization_code"]}, "grant_types", id="another grant type"),
        pytest.param({"response_types": ["code"]}, "response_types", id="a response type"),
        pytest.param({"redirect_uris": ["https://a.example"]}, "redirect_uris", id="a redirect URI"),
        pytest.param({"token_endpoint_auth_method": "none"}, "token_endpoint_auth_method", id="public client"),
        pytest.param({"token_endpoint_auth_method": ["none"]}, "token_endpoint_auth_method", id="method as a list"),
        pytest.param({"client_name": "n" * 256}, "client_name", id="name too long"),
        pytest.param({"client_name": "n\0"}, "client_name", id="name with NUL"),
        pytest.param({"client_name": "n\ud800"}, "client_name", id="name with half a character"),
        pytest.param({"audience": ["https://\ud800.example"]}, "audience", id="audience with half a character"),
        pytest.param({"client_name": 7}, "client_name", id="name that is a number"),
        pytest.param({"audience": "https://a.example"}, "audience", id="audience as a string"),
        pytest.param({"audience": ["orders"]}, "audience", id="audience without scheme"),
        pytest.param({"audience": ["https://a.example#b"]}, "audience", id="audience with fragment"),
        pytest.param({"audience": [7]}, "audience", id="audience that is a number"),
        pytest.param({"audience": [f"https://a{n}.example" for n in range(33)]}, "audience", id="33 audiences"),
    ],
)
def test_metadata_that_cannot_be_honoured_is_refused_by_name(
    server: AuthorizationServerProcess, caller: Caller, metadata: dict[str, Any], word: str
) -> None:
    before = server.client_count()
    response = caller.post_registration(**metadata)

    assert response.status_code == 400
    assert response.json()["error"] == "invalid_client_metadata"
    assert word in response.json()["error_description"]
    assert server.client_count() == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 20_000])
def test_body_that_is_no_json_object_is_refused(
    server: AuthorizationServerProcess, caller: Caller, body: bytes
) -> None:
    headers = {"Authorization": f"Bearer {server.initial_access_token}"}
    response = caller.request("POST", "/oauth/register", headers=headers, content=body)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_client_metadata")


def test_reading_shows_the_metadata_and_no_secret(caller: Caller) -> None:
    client = caller.register(audience=["https://orders.example"])
    response = caller.manage("GET", client)

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json() == {k: v for k, v in client.items() if not k.startswith("client_secret")}


def test_update_replaces_metadata_and_rotates_the_registration_token(
    server: AuthorizationServerProcess, caller: Caller
) -> None:
    client = caller.register(scope="read write", audience=["https://a.example"])
    response = caller.manage("PUT", client, scope="admin", client_name="renamed", audience=["https://b.example"])
    updated = response.json()

    assert response.status_code == 200
    assert server.clients()[-1] == Client(client["client_id"], "renamed", "admin", ["https://b.example"])
    assert (updated["scope"], updated["audience"], updated["client_name"]) == (
        "admin",
        ["https://b.example"],
        "renamed",
    )
    assert updated["registration_access_token"] != client["registration_access_token"]
    assert caller.manage("GET", client).status_code == 401
    assert caller.manage("GET", updated).status_code == 200
    assert caller.ask_token(client, scope="admin", resource="https://b.example").status_code == 200
    assert caller.ask_token(client, scope="read").json()["error"] == "invalid_scope"
    assert caller.ask_token(client, resource="https://a.example").json()["error"] == "invalid_target"


def test_update_leaves_out_what_it_does_not_name(caller: Caller) -> None:
    client = caller.register(scope="read", audience=["https://a.example"])
    updated = caller.manage("PUT", client, scope=None, audience=None, client_name=None).json()

    assert (updated["scope"], updated["audience"], updated["client_name"]) == ("", [], "")


@pytest.mark.parametrize(
    "metadata", [{"scope": "launch"}, {"client_id": "another"}, {"client_secret": "chosen"}, {"client_secret": 7}]
)
def test_refused_update_changes_nothing(
    server: AuthorizationServerProcess, caller: Caller, metadata: dict[str, Any]
) -> None:
    client = caller.register()
    before = server.clients()
    response = caller.manage("PUT", client, **metadata)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_client_metadata")
    assert server.clients() == before
    assert caller.manage("GET", client).status_code == 200


def test_update_may_repeat_the_current_id_and_secret(caller: Caller) -> None:
    client = caller.register()
    secret = {"client_id": client["client_id"], "client_secret": client["client_secret"]}

    assert caller.manage("PUT", client, **secret).status_code == 200
    assert caller.ask_token(client).status_code == 200


def test_deletion_removes_the_client_and_kills_its_tokens(server: AuthorizationServerProcess, caller: Caller) -> None:
    client, observer = caller.register(), caller.register()
    token = caller.token(client)
    alive_before = caller.is_active(observer, token)
    response = caller.manage("DELETE", client)

    assert alive_before
    assert response.status_code == 204
    assert not caller.is_active(observer, token)
    assert client["client_id"] not in {known.client_id for known in server.clients()}
    assert caller.ask_token(client).status_code == 401
    assert caller.manage("DELETE", client).status_code == 401


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_registration_token_of_another_client_is_refused(caller: Caller, method: str) -> None:
    client, other = caller.register(), caller.register()
    response = caller.manage(method, client, bearer=other["registration_access_token"])

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert caller.manage("GET", client).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_access_token_does_not_manage_its_own_client(caller: Caller, method: str) -> None:
    client = caller.register(scope="admin")

    assert caller.manage(method, client, bearer=caller.token(client)).status_code == 401
    assert caller.ask_token(client, scope="oauth2_provider:registration").json()["error"] == "invalid_scope"
