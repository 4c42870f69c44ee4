"""A Keycloak realm with a memory, as 26.7 was seen to behave.

    server = FakeKeycloak()
    server.admin_url, server.realm         # for spec.registration.keycloak
    server.client_scopes["read"]           # what the realm has

Scope lists count when a client is made and are ignored when it is replaced, mappers of a client scope likewise; unknown
scopes are left out without a word; the administrator's token ends after 60 s; and introspection says `active: false`
to a client that the token's audience does not name.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from .fake_authorization_server import (
    AccessToken,
    Answer,
    Client,
    FakeAuthorizationServer,
    Operation,
    Request,
    error,
    reply,
)

REALM = "shop"
ADMIN = f"/admin/realms/{REALM}"
LOGINS = {"/realms/master/protocol/openid-connect/token", f"/realms/{REALM}/protocol/openid-connect/token"}
ADMIN_TOKEN_SECONDS = 60.0


@dataclass
class ClientScope:
    """One client scope of the realm; its audiences are what its mappers add."""

    id: str
    name: str
    mappers: dict[str, dict[str, Any]] = field(default_factory=dict)  # by id

    @property
    def audiences(self) -> set[str]:
        configs = [mapper["config"] for mapper in self.mappers.values()]
        return {
            config[key]
            for config in configs
            for key in ("included.client.audience", "included.custom.audience")
            if key in config
        }


@dataclass
class _Realm:
    """What the realm holds of a client beside what every server holds."""

    id: str
    default: set[str]
    optional: set[str]
    representation: dict[str, Any]


class FakeKeycloak(FakeAuthorizationServer):
    """See the module. `user` of the realm master and `service_account` of this one may manage clients."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.realm = REALM
        self.user = ("admin", "password-of-the-test")
        self.service_account = ("operator", "secret-of-the-operator")
        self.metadata = {"registration_endpoint": None}
        self.audience_parameter = None
        self._ids = itertools.count(1)
        self.client_scopes: dict[str, ClientScope] = {}
        for name in ("basic", *sorted(self.scopes)):
            self._add_scope(name)
        self.realm_clients: dict[str, _Realm] = {}
        self.admin_tokens: dict[str, float] = {}  # with the time of their end
        self.logins = 0
        self.demands_audience = True  # False: as before 26.6.2
        self.secrets_ever |= {self.user[1], self.service_account[1]}

    @property
    def admin_url(self) -> str:
        return self.issuer

    def lose_client(self, client_id: str) -> None:
        super().lose_client(client_id)
        del self.realm_clients[client_id]

    def operation_of(self, request: Request) -> tuple[Operation, str | None]:
        if request.path in LOGINS:
            return Operation.LOGIN, None
        if not request.path.startswith(ADMIN):
            return super().operation_of(request)
        kind, *rest = request.path.removeprefix(f"{ADMIN}/").split("/")
        if request.method == "GET":
            return Operation.READ, None
        client = self._by_id(rest[0]) if kind == "clients" and rest else None
        if request.method == "POST" and not rest:
            return Operation.REGISTER, None
        if request.method == "DELETE" and len(rest) == 1:
            return Operation.DELETE, client
        return Operation.UPDATE, client

    def perform(self, operation: Operation, client_id: str | None, request: Request) -> Answer:
        if operation is Operation.LOGIN:
            return self._log_in(request)
        if not request.path.startswith(ADMIN):
            return super().perform(operation, client_id, request)
        if self.admin_tokens.get(request.bearer or "", 0.0) <= self._now():
            return reply(401, {"error": "HTTP 401 Unauthorized"})
        kind, *rest = request.path.removeprefix(f"{ADMIN}/").split("/")
        body = json.loads(request.body) if request.body else {}
        if kind == "clients":
            return self._clients(request.method, rest, dict(parse_qsl(request.query)), body)
        return self._scopes(request.method, rest, body)

    def introspect(self, known: AccessToken | None, asker: Client | None) -> Answer:
        audiences: set[str] = set()
        if known is not None and known.client_id in self.realm_clients:
            for name in self.realm_clients[known.client_id].default:
                audiences |= self.client_scopes[name].audiences if name in self.client_scopes else set()
        unnamed = asker is None or asker.client_id not in audiences
        if known is None or (unnamed and self.demands_audience):
            return reply(200, {"active": False})
        facts = {"active": True, "scope": known.scope, "client_id": known.client_id, "exp": int(known.expires_at)}
        return reply(200, facts | {"aud": sorted(audiences)})

    def _log_in(self, request: Request) -> Answer:
        form = request.form
        if request.path == sorted(LOGINS)[0]:
            good = form.get("grant_type") == "password" and (form.get("username"), form.get("password")) == self.user
        else:
            good = request.basic == self.service_account
        if not good:
            return error(401, "unauthorized_client")
        self.logins += 1
        token = self._secret("admin")
        self.admin_tokens[token] = self._now() + ADMIN_TOKEN_SECONDS
        return reply(200, {"access_token": token, "token_type": "Bearer", "expires_in": int(ADMIN_TOKEN_SECONDS)})

    # Clients

    def _by_id(self, id_: str) -> str | None:
        return next((name for name, client in self.realm_clients.items() if client.id == id_), None)

    def _clients(self, method: str, rest: list[str], query: dict[str, str], body: dict[str, Any]) -> Answer:
        if not rest:
            return self._create(body) if method == "POST" else self._list(query["clientId"])
        name = self._by_id(rest[0])
        if name is None:
            return reply(404, {"error": "Could not find client"})
        client, realm = self.clients[name], self.realm_clients[name]
        if len(rest) == 3:
            names = realm.default if rest[1] == "default-client-scopes" else realm.optional
            scope = next((scope.name for scope in self.client_scopes.values() if scope.id == rest[2]), None)
            if scope is None:
                return reply(404, {"error": "Could not find client scope"})
            (names.add if method == "PUT" else names.discard)(scope)
            self._take_over(name)
            return Answer(204, b"", {})
        if method == "DELETE":
            del self.clients[name], self.realm_clients[name]
            self.deleted_total += 1
            return Answer(204, b"", {})
        realm.representation |= {key: value for key, value in body.items() if not key.endswith("ClientScopes")}
        client.client_secret = body.get("secret", client.client_secret)
        self._take_over(name)
        return Answer(204, b"", {})

    def _list(self, client_id: str) -> Answer:
        found = []
        if client_id in self.realm_clients:
            realm = self.realm_clients[client_id]
            lists = {"defaultClientScopes": sorted(realm.default), "optionalClientScopes": sorted(realm.optional)}
            found.append({"id": realm.id, **realm.representation, **lists})
        return Answer(200, json.dumps(found).encode(), {"content-type": "application/json"})

    def _create(self, body: dict[str, Any]) -> Answer:
        name = body["clientId"]
        if name in self.clients:
            return reply(409, {"errorMessage": f"Client {name} already exists"})
        default, optional = set(body.pop("defaultClientScopes")), set(body.pop("optionalClientScopes"))
        known = set(self.client_scopes)
        id_ = f"uuid-{next(self._ids)}"
        self.realm_clients[name] = _Realm(id_, (default & known) | {"service_account"}, optional & known, body)
        self.clients[name] = Client(name, body["secret"], "", {})
        self.secrets_ever.add(body["secret"])
        self._take_over(name)
        self.created_total += 1
        return Answer(201, b"", {"location": f"https://elsewhere.test/clients/{id_}"})

    def _take_over(self, name: str) -> None:
        """What the token endpoint goes by."""
        realm = self.realm_clients[name]
        self.clients[name].metadata = {
            "scope": " ".join(sorted(realm.optional)),
            "client_name": realm.representation["name"],
        }

    # Client scopes

    def _add_scope(self, name: str) -> ClientScope:
        self.client_scopes[name] = ClientScope(f"uuid-{next(self._ids)}", name)
        return self.client_scopes[name]

    def _scopes(self, method: str, rest: list[str], body: dict[str, Any]) -> Answer:
        if not rest and method == "GET":
            found = [
                {
                    "id": scope.id,
                    "name": scope.name,
                    "protocol": "openid-connect",
                    "protocolMappers": list(scope.mappers.values()),
                }
                for scope in self.client_scopes.values()
            ]
            return Answer(200, json.dumps(found).encode(), {"content-type": "application/json"})
        if not rest:
            if body["name"] in self.client_scopes:
                return reply(409, {"errorMessage": f"Client Scope {body['name']} already exists"})
            scope = self._add_scope(body["name"])
            for mapper in body["protocolMappers"]:
                self._put_mapper(scope, mapper)
            return Answer(201, b"", {})
        found_scope = next((scope for scope in self.client_scopes.values() if scope.id == rest[0]), None)
        if found_scope is None:
            return reply(404, {"error": "Could not find client scope"})
        if rest[1:3] == ["protocol-mappers", "models"]:
            if method == "DELETE":
                del found_scope.mappers[rest[3]]
            else:
                self._put_mapper(found_scope, body)
            return Answer(201 if method == "POST" else 204, b"", {})
        del self.client_scopes[found_scope.name]
        for realm in self.realm_clients.values():
            realm.default.discard(found_scope.name)
            realm.optional.discard(found_scope.name)
        return Answer(204, b"", {})

    def _put_mapper(self, scope: ClientScope, mapper: dict[str, Any]) -> None:
        id_ = mapper.get("id") or f"uuid-{next(self._ids)}"
        scope.mappers[id_] = {**mapper, "id": id_}
