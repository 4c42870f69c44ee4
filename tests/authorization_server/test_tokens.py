"""Token, introspection and revocation at the real server."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ..support.authorization_server_process import AuthorizationServerProcess
from .caller import Caller, basic


def test_introspection_tells_everything_about_a_live_token(server: AuthorizationServerProcess, caller: Caller) -> None:
    client, observer = caller.register(scope="read write"), caller.register()
    granted = caller.ask_token(client, scope="read").json()
    answer = caller.introspect(observer, granted["access_token"])
    issued = answer.pop("iat")

    assert (granted["token_type"], granted["expires_in"], granted["scope"]) == ("Bearer", 300, "read")
    assert answer.pop("exp") - issued in {299, 300, 301}
    assert answer == {
        "active": True,
        "scope": "read",
        "client_id": client["client_id"],
        "sub": client["client_id"],
        "token_type": "Bearer",
        "iss": server.issuer,
    }


def test_token_without_scope_gets_the_client_s_own_scopes_and_no_more(caller: Caller) -> None:
    client = caller.register(scope="orders:read read")

    assert set(caller.ask_token(client).json()["scope"].split()) == {"orders:read", "read"}


def test_client_without_scopes_gets_a_token_without_scopes(caller: Caller) -> None:
    client = caller.register(scope=None)

    assert caller.introspect(client, caller.token(client))["scope"] == ""
    assert caller.ask_token(client, scope="read").json()["error"] == "invalid_scope"


def test_scope_that_the_client_did_not_register_is_refused(caller: Caller) -> None:
    client = caller.register(scope="read")
    response = caller.ask_token(client, scope="read write")

    assert (response.status_code, response.json()["error"]) == (400, "invalid_scope")


def test_client_unknown_to_registration_may_ask_for_nothing(server: AuthorizationServerProcess, caller: Caller) -> None:
    client = caller.register(scope="read", audience=["https://a.example"])
    server.query(
        "DELETE FROM client_policy WHERE application_id ="
        " (SELECT id FROM oauth2_provider_application WHERE client_id = ?)",
        client["client_id"],
    )

    assert caller.ask_token(client, scope="read").json()["error"] == "invalid_scope"
    assert caller.ask_token(client, resource="https://a.example").json()["error"] == "invalid_target"


@pytest.mark.parametrize(
    "resources", [["https://a.example"], ["https://a.example", "https://b.example/x"]], ids=["one", "two"]
)
def test_token_is_bound_to_the_audiences_it_was_asked_for(caller: Caller, resources: list[str]) -> None:
    client = caller.register(audience=["https://a.example", "https://b.example/x"])

    assert caller.introspect(client, caller.token(client, resource=resources))["aud"] == resources


def test_token_without_resource_is_bound_to_no_audience(caller: Caller) -> None:
    client = caller.register(audience=["https://a.example"])

    assert "aud" not in caller.introspect(client, caller.token(client))


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param("https://b.example", id="audience of nobody"),
        pytest.param("https://a.example/", id="nearly the registered one"),
        pytest.param("https://a.example/deeper", id="below the registered one"),
        pytest.param("orders", id="no URI"),
        pytest.param(["https://a.example", "https://b.example"], id="one registered, one not"),
        pytest.param(["https://b.example", "https://a.example"], id="one not registered, one registered"),
    ],
)
def test_audience_that_the_client_did_not_register_is_refused(caller: Caller, resource: Any) -> None:
    client = caller.register(audience=["https://a.example"])
    response = caller.ask_token(client, resource=resource)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_target")


def test_client_without_audiences_cannot_bind_a_token(caller: Caller) -> None:
    assert caller.ask_token(caller.register(), resource="https://a.example").json()["error"] == "invalid_target"


def test_wrong_secret_and_unknown_client_are_told_alike(caller: Caller) -> None:
    client = caller.register()
    wrong = caller.ask_token(client | {"client_secret": "wrong"})
    unknown = caller.ask_token({"client_id": "unknown", "client_secret": "wrong"})

    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert wrong.json() == unknown.json()
    assert wrong.json()["error"] == "invalid_client"
    assert "WWW-Authenticate" in wrong.headers


def test_credentials_in_the_form_work_too(caller: Caller) -> None:
    client = caller.register(token_endpoint_auth_method="client_secret_post")
    form = {"client_id": client["client_id"], "client_secret": client["client_secret"]}
    token = caller.request("POST", "/oauth/token", data=form | {"grant_type": "client_credentials"}).json()

    assert caller.request("POST", "/oauth/introspect", data=form | {"token": token["access_token"]}).json()["active"]


@pytest.mark.parametrize(
    "grant_type",
    ["password", "authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code", "nonsense"],
)
def test_other_grants_are_unsupported(caller: Caller, grant_type: str) -> None:
    response = caller.ask_token(caller.register(), grant_type=grant_type)

    assert (response.status_code, response.json()["error"]) == (400, "unsupported_grant_type")


def test_revoked_token_is_inactive_at_once_and_revoking_again_is_fine(caller: Caller) -> None:
    client = caller.register()
    token = caller.token(client)
    before = caller.is_active(client, token)
    revocations = [caller.request("POST", "/oauth/revoke", auth=basic(client), data={"token": token}) for _ in range(2)]

    assert before
    assert [revocation.status_code for revocation in revocations] == [200, 200]
    assert not caller.is_active(client, token)


def test_client_cannot_revoke_another_client_s_token(caller: Caller) -> None:
    client, other = caller.register(), caller.register()
    token = caller.token(client)
    caller.request("POST", "/oauth/revoke", auth=basic(other), data={"token": token})

    assert caller.is_active(client, token)


def test_revocation_needs_client_credentials(caller: Caller) -> None:
    client = caller.register()
    token = caller.token(client)
    response = caller.request("POST", "/oauth/revoke", data={"token": token})

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert caller.is_active(client, token)


def test_expired_token_is_inactive(server: AuthorizationServerProcess, caller: Caller) -> None:
    client = caller.register()
    token = caller.token(client)
    server.query(
        "UPDATE oauth2_provider_accesstoken SET expires = datetime('now', '-1 seconds') WHERE id ="
        " (SELECT max(id) FROM oauth2_provider_accesstoken)"
    )

    assert not caller.is_active(client, token)


def test_registration_access_token_is_not_an_active_token(caller: Caller) -> None:
    client = caller.register()

    assert caller.introspect(client, client["registration_access_token"]) == {"active": False}


@pytest.mark.parametrize("token", ["unknown", "eyJhbGciOiJub25lIn0.e30.", "é", "x" * 10_000])
def test_token_that_nobody_issued_is_inactive(caller: Caller, token: str) -> None:
    assert caller.introspect(caller.register(), token) == {"active": False}


def test_introspection_with_wrong_credentials_is_401_and_says_nothing_of_the_token(caller: Caller) -> None:
    client = caller.register()
    token = caller.token(client)
    response = caller.request("POST", "/oauth/introspect", auth=(client["client_id"], "wrong"), data={"token": token})

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic ")
    assert response.json().keys() == {"error", "error_description"}
    assert response.json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    "authorization", ["Basic", "Basic !", "Basic " + base64.b64encode(b"\xff:x").decode(), "Bearer x", ""]
)
def test_introspection_with_unreadable_credentials_is_401(caller: Caller, authorization: str) -> None:
    headers = {"Authorization": authorization}

    assert caller.request("POST", "/oauth/introspect", headers=headers, data={"token": "x"}).status_code == 401


def test_access_token_is_no_credential_for_introspection(caller: Caller) -> None:
    client = caller.register()
    token = caller.token(client)
    headers = {"Authorization": f"Bearer {token}"}

    assert caller.request("POST", "/oauth/introspect", headers=headers, data={"token": token}).status_code == 401


def test_introspection_without_a_token_is_refused(caller: Caller) -> None:
    response = caller.request("POST", "/oauth/introspect", auth=basic(caller.register()), data={})

    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
def test_get_with_a_token_in_the_url_is_405(caller: Caller, path: str) -> None:
    client = caller.register()
    response = caller.request("GET", path, auth=basic(client), params={"token": caller.token(client)})

    assert response.status_code == 405
    assert response.headers["Allow"] == "POST"


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/introspect", "/oauth/revoke"])
@pytest.mark.parametrize("query", ["token=x", "client_secret=x", "%zz"])
def test_post_with_a_query_is_refused(caller: Caller, path: str, query: str) -> None:
    response = caller.request("POST", f"{path}?{query}", auth=basic(caller.register()), data={"token": "x"})

    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_client_secrets_are_stored_by_the_fast_hasher_and_tokens_as_digests(
    server: AuthorizationServerProcess, caller: Caller
) -> None:
    client = caller.register()
    token = caller.token(client)
    [(stored,)] = server.query(
        "SELECT client_secret FROM oauth2_provider_application WHERE client_id = ?", client["client_id"]
    )

    assert stored.startswith("fast$1$")
    assert server.query("SELECT count(*) FROM oauth2_provider_application WHERE client_secret NOT LIKE 'fast$1$%'") == [
        (0,)
    ]
    assert server.query("SELECT count(*) FROM oauth2_provider_accesstoken WHERE token = ?", token) == [(0,)]
