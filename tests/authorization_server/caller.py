"""A caller of the authorization server that remembers every secret it was given."""

from __future__ import annotations

import json
from typing import Any

import httpx

from ..support.authorization_server_process import AuthorizationServerProcess

METADATA: dict[str, Any] = {
    "client_name": "cluster/tenant/orders/1",
    "grant_types": ["client_credentials"],
    "response_types": [],
    "redirect_uris": [],
    "token_endpoint_auth_method": "client_secret_basic",
    "scope": "read",
}
SECRET_MEMBERS = ("client_secret", "registration_access_token", "access_token")


class Caller:
    def __init__(self, server: AuthorizationServerProcess, http: httpx.Client) -> None:
        self.server = server
        self.secrets = {server.initial_access_token}
        self._http = http

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """`path` at the server, or an absolute URL."""
        response = self._http.request(method, httpx.URL(self.server.url).join(path), **kwargs)
        if response.headers.get("content-type") == "application/json":
            answer = response.json()
            self.secrets |= {answer[member] for member in SECRET_MEMBERS if member in answer}
        return response

    def post_registration(
        self, *, bearer: str | None = None, key: str | None = None, **metadata: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {bearer or self.server.initial_access_token}"}
        return self.request(
            "POST", "/oauth/register", headers=headers | _key(key), content=document(METADATA | metadata)
        )

    def register(self, **metadata: Any) -> dict[str, Any]:
        response = self.post_registration(**metadata)
        assert response.status_code == 201, response.text
        return dict(response.json())

    def manage(
        self, method: str, client: dict[str, Any], *, key: str | None = None, bearer: str | None = None, **metadata: Any
    ) -> httpx.Response:
        """GET, PUT or DELETE at the client's own URI."""
        headers = {"Authorization": f"Bearer {bearer or client['registration_access_token']}"} | _key(key)
        body = {"content": document(METADATA | metadata)} if method == "PUT" else {}
        return self.request(method, client["registration_client_uri"], headers=headers, **body)

    def ask_token(self, client: dict[str, Any], **form: Any) -> httpx.Response:
        return self.request(
            "POST", "/oauth/token", auth=basic(client), data={"grant_type": "client_credentials"} | form
        )

    def token(self, client: dict[str, Any], **form: Any) -> str:
        response = self.ask_token(client, **form)
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    def introspect(self, client: dict[str, Any], token: str) -> dict[str, Any]:
        response = self.request("POST", "/oauth/introspect", auth=basic(client), data={"token": token})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def is_active(self, client: dict[str, Any], token: str) -> bool:
        return self.introspect(client, token)["active"] is True


def basic(client: dict[str, Any]) -> tuple[str, str]:
    return client["client_id"], client["client_secret"]


def document(metadata: dict[str, Any]) -> str:
    """As JSON in ASCII, without the members that are None."""
    return json.dumps({name: value for name, value in metadata.items() if value is not None})


def _key(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}
